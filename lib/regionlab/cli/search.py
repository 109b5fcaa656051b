"""`regionlab search`: find images by words, an image, or an object in an image."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regionlab.cli.app import (
    Device,
    EncoderName,
    IndexFolder,
    SegmenterName,
    app,
    load_encoder_of,
    option,
    path_option,
)
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.index.index import Index
    from regionlab.search.images import Ranking


@app.command(epilog='Example: regionlab search data/indexes/mine "a red star" -k 5')
def search(
    index: IndexFolder,
    words: Annotated[
        list[str] | None, typer.Argument(help="What to look for; with --image, what in it.")
    ] = None,
    image: Annotated[Path | None, path_option("Look for what is like this image.", "FILE")] = None,
    box: Annotated[
        list[str] | None, option("An object in --image: x0,y0,x1,y1 in pixels; repeatable.")
    ] = None,
    points: Annotated[
        list[str] | None,
        option(
            'An object in --image by points in it: "x,y x,y"; "x,y,0" is a point outside of it.',
            "--points",
            "--point",
        ),
    ] = None,  # fmt: skip
    k: Annotated[int, option("How many images.", "-k", min=1)] = 10,
    exclude_self: Annotated[bool, option("Leave --image itself out.", "--exclude-self")] = False,
    where: Annotated[
        str | None, option('Only images for which this holds, such as "width > 500".')
    ] = None,
    engine: Annotated[str, option("exact, faiss:..., chroma:..., of whole images.")] = "exact",
    encoder: EncoderName = None,
    segmenter: SegmenterName = None,
    device: Device = "auto",
    as_json: Annotated[bool, option("Print JSON.", "--json")] = False,
    show: Annotated[bool, option("Show a panel of what was found.", "--open")] = False,
    save: Annotated[Path | None, path_option("Write that panel to this file.", "FILE")] = None,
) -> None:
    """Find images by words, by an image, or by an object in an image.

    With words alone, or an image alone, whole images are compared. A box, points or words in an
    image mark objects of it: their regions are compared with the regions of the index.
    """
    from regionlab.index.index import open_index

    prompts = _read_prompts(image, box or [], points or [], words or [])
    opened = open_index(index)
    model = load_encoder_of(opened, encoder, device=device)
    if prompts:
        if where or engine != "exact":
            raise InputError("--where and --engine are for whole images, not for objects in one")
        ranking, seen = _search_objects(opened, image, prompts, model, segmenter, k, exclude_self)
    else:
        from regionlab.search.images import search_image, search_text

        options = {"k": k, "engine": engine, "where": where}
        if image:
            ranking = search_image(opened, image, model, exclude_self=exclude_self, **options)
        else:
            ranking = search_text(opened, " ".join(words), model, **options)
        seen = None
    _print_ranking(ranking, as_json)
    if show or save:
        _draw_panel(ranking, save, image, seen, show=show)


def _read_prompts(
    image: Path | None, boxes: list[str], points: list[str], words: list[str]
) -> list[Any]:
    """Return the objects that are marked in an image; none where whole images are asked for."""
    if image is None and (boxes or points):
        raise InputError("--box and --points mark an object in an image: name it by --image")
    if image is None:
        if not words:
            raise InputError("nothing to look for: give words, or --image")
        return []
    from regionlab.data.prompts import Box, Points, Text

    prompts: list[Any] = [Box(*_read_numbers(text, "--box", (4,))) for text in boxes]
    for text in points:
        found = [
            _read_numbers(point, "--points", (2, 3)) for point in text.replace(";", " ").split()
        ]
        labels = tuple(int(one[2]) if len(one) == 3 else 1 for one in found)
        prompts.append(Points(tuple(one[:2] for one in found), labels))
    return prompts + [Text(text) for text in words]


def _read_numbers(text: str, option: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split(",")))
    except ValueError:
        numbers = ()
    if len(numbers) not in counts:
        wanted = " or ".join(map(str, counts))
        raise InputError(f"{option} takes {wanted} numbers with commas between, got {text!r}")
    return numbers


def _search_objects(
    index: "Index", file: Path, prompts: list[Any], encoder: Any, segmenter: str | None, k: int,
    exclude_self: bool,
) -> tuple["Ranking", tuple]:  # fmt: skip
    """Return what has objects like those that prompts mark, and the prompts with their regions."""
    from regionlab.data.images import read_image
    from regionlab.models.registry import load_segmenter
    from regionlab.regions.grounding import find_regions
    from regionlab.search.query import Query, part_from_region
    from regionlab.search.regions import search_regions

    index.check_regions()
    made = index.manifest["regions"]
    pixels = read_image(file)
    finder = load_segmenter(segmenter or made["segmenter"]["model"])
    regions = find_regions(pixels, prompts, finder, encoder)
    parts = [part_from_region(encoder, pixels, one, encoding=made["encoding"]) for one in regions]
    exclude = None
    if exclude_self:
        own = (row for row in range(len(index)) if index.path(row) == file.resolve())
        exclude = [next(own, -1)]
    ranking = search_regions(index, Query(tuple(parts)), k=k, exclude=exclude)
    return ranking, (pixels, prompts, regions)


def _print_ranking(ranking: "Ranking", as_json: bool) -> None:
    table = ranking.table()
    found = [
        {"rank": int(rank), "score": round(float(score), 4), "path": str(ranking.index.root / path),
         "image_id": name}
        for rank, score, path, name in zip(
            table["rank"], table["score"], table["path"], table["image_id"], strict=True
        )
    ]  # fmt: skip
    if as_json:
        import json

        print(json.dumps(found, indent=1))
        return
    print("rank   score  path")
    for one in found:
        print(f"{one['rank']:4d}  {one['score']:6.3f}  {one['path']}")


def _draw_panel(ranking: "Ranking", file: Path | None, image, seen, *, show: bool) -> None:
    import tempfile

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from regionlab.viz.charts import draw_ranking
    from regionlab.viz.images import draw_search

    count, lead = ranking.rows.shape[1], 2 if seen else 0
    with plt.style.context("regionlab.paper"):
        fig, axes = plt.subplots(
            1, count + lead, figsize=(1.3 * (count + lead), 1.6), squeeze=False
        )
        if seen:
            pixels, prompts, regions = seen
            draw_search(axes[0], pixels, prompts, regions, ranking)
        else:
            draw_ranking(axes[0], ranking)
    file = file or Path(tempfile.mkdtemp()) / "found.png"
    try:
        fig.savefig(file, dpi=200, bbox_inches="tight")
    except (OSError, ValueError) as e:
        raise InputError(f"cannot write the panel {file}: {e}") from e
    print(file, file=sys.stderr)
    if show:
        typer.launch(str(file))
