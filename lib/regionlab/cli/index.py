"""`regionlab index`, `update`, `verify` and `copy`: what is done to an index folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from regionlab.cli.app import (
    Address,
    Cpus,
    Dataset,
    Device,
    EncoderName,
    Gpus,
    ImageFolder,
    IndexFolder,
    Padding,
    Precision,
    Ray,
    SegmenterName,
    Split,
    app,
    load_encoder_of,
    option,
    path_option,
)
from regionlab.util.errors import InputError


@app.command(epilog="Example: regionlab index photos --encoder ViT-B-32/openai --segmenter vit_b")
def index(
    folder: ImageFolder = None,
    out: Annotated[Path | None, path_option("Of the index; data/indexes/... if not given.")] = None,
    dataset: Dataset = "folder",
    split: Split = None,
    encoder: Annotated[str, option("Such as ViT-B-32/openai.")] = "toyclip",
    segmenter: Annotated[str | None, option("Finds regions: toysam, vit_b, ...")] = None,
    regions: Annotated[str | None, option("How a region is encoded, such as erase.")] = None,
    limit: Annotated[
        int | None, option("Only so many images, the first, to try or to time.", min=1)
    ] = None,
    batch_size: Annotated[str, option("Images a forward pass, or auto: measured.")] = "64",
    shard_size: Annotated[int, option("Images between two savings.")] = 2048,
    precision: Precision = "auto",
    padding: Padding = "none",
    device: Device = "auto",
    fresh: Annotated[bool, option("Embed everything again.", "--fresh")] = False,
    ray: Ray = False,
    address: Address = None,
    workers: Annotated[int, option("With --ray: copies of the model.")] = 2,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
) -> None:
    """Build the index of a folder of images or of a data set, or go on with one begun.

    Only what is new or changed is embedded. A segmenter finds the regions of each image too.
    """
    from regionlab.models.registry import load_encoder, load_segmenter
    from regionlab.util.paths import index_folder

    if regions and not segmenter and encoder != "toyclip":
        raise InputError("--regions needs a --segmenter to find them, such as vit_b")
    size = _read_batch_size(batch_size)
    collection = _load_collection(dataset, folder, split)
    if limit:
        _check_limit(out, limit)
        collection = collection.subset(list(collection.images["image_id"][:limit]))
    has_regions = bool(regions or segmenter)
    parts = (f"first{limit}" if limit else "", "regions" if has_regions else "")
    place = out or index_folder(collection.name, collection.split, encoder, *parts)
    finder = load_segmenter(segmenter or "toysam", device=device) if has_regions else None
    encoding = {"encoding": regions} if regions else {}
    if ray or address:
        from regionlab.index.on_ray import build_index_distributed

        found = build_index_distributed(
            collection, encoder, place, workers=workers, cpus_per_worker=cpus,
            gpus_per_worker=gpus, batch_size=size, shard_size=shard_size, precision=precision,
            padding=padding, address=address, fresh=fresh,
        )  # fmt: skip
        if finder:
            from regionlab.index.build import add_regions

            model = load_encoder(encoder, device=device, precision=precision, padding=padding)
            found = add_regions(found, finder, model, fresh=fresh, **encoding)
    else:
        from regionlab.index.build import build_index

        model = load_encoder(encoder, device=device, precision=precision, padding=padding)
        found = build_index(
            collection, model, place, batch_size=size, shard_size=shard_size, fresh=fresh,
            segmenter=finder, **encoding,
        )  # fmt: skip
    print(f"{found} in {found.folder}")


def _check_limit(out: Path | None, limit: int) -> None:
    """Raise InputError if an index of more images would shrink to a trial."""
    from regionlab.index.tables import read_manifest

    if out is None or not (out / "manifest.json").is_file():
        return
    count = read_manifest(out)["count"]
    if count > limit:
        raise InputError(
            f"--limit {limit} would take all but {limit} of {count} images out of the index "
            f"{out}: name another folder by --out"
        )


def _load_collection(dataset: str, folder: Path | None, split: str | None) -> Any:
    from regionlab.data.registry import load_collection

    try:
        return load_collection(dataset, folder, **({"split": split} if split else {}))
    except OSError as e:
        raise InputError(str(e)) from e
    except TypeError as e:
        if "split" not in str(e):
            raise
        raise InputError(f"a data set of kind {dataset!r} has no --split") from e


def _read_batch_size(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError as e:
        raise InputError(f"--batch-size must be a whole number or auto, got {text!r}") from e


@app.command(epilog="Example: regionlab update data/indexes/mine")
def update(
    index: IndexFolder,
    folder: ImageFolder = None,
    dataset: Dataset = "folder",
    split: Split = None,
    encoder: EncoderName = None,
    segmenter: SegmenterName = None,
    device: Device = "auto",
) -> None:
    """Make an index that of its folder as it is now: embed what is new, drop what is gone."""
    from regionlab.index.index import open_index
    from regionlab.index.update import update_index

    opened = open_index(index)
    given = folder or (None if dataset == "toybox" else opened.root)
    collection = _load_collection(dataset, given, split)
    was = (opened.manifest["collection"], opened.manifest.get("split") or "")
    if folder is None and was != (collection.name, collection.split or ""):
        raise InputError(
            f"the index {index} is of {' '.join(filter(None, was))}, not of the images under "
            f"{given}: say so by --dataset and --split, or name the folder"
        )
    model = load_encoder_of(
        opened, encoder, device=device, precision=opened.manifest["model"]["precision"]
    )
    finder = None
    if opened.regions is not None:
        from regionlab.models.registry import load_segmenter

        finder = load_segmenter(
            segmenter or opened.manifest["regions"]["segmenter"]["model"], device=device
        )
    print(update_index(opened, collection, model, segmenter=finder))


@app.command(epilog="Example: regionlab verify data/indexes/mine --encoder toyclip")
def verify(
    index: IndexFolder,
    encoder: Annotated[
        str | None, option("Its model: embed some images again and compare.")
    ] = None,
    precision: Precision = "auto",
    padding: Padding = "none",
    quick: Annotated[bool, option("Do not decode masks or read images.", "--quick")] = False,
) -> None:
    """Look for damage in an index, and say what to do about it (exit code 1 if there is some)."""
    from regionlab.index.verify import verify_index

    model = None
    if encoder:
        from regionlab.models.registry import load_encoder

        model = load_encoder(encoder, precision=precision, padding=padding)
    found = verify_index(index, encoder=model, quick=quick)
    for finding in found:
        print(finding)
    harm = sum(finding.harm for finding in found)
    print(f"{index}: {harm} findings" if harm else f"{index}: nothing wrong")
    raise typer.Exit(1 if harm else 0)


@app.command(epilog="Example: regionlab copy data/indexes/mine s3://bucket/mine")
def copy(
    source: Annotated[str, typer.Argument(help="A folder, or a URI such as s3://bucket/folder.")],
    target: Annotated[str, typer.Argument(help="A folder, or such a URI.")],
) -> None:
    """Copy an index, also to object storage and from there; every file is checked."""
    from regionlab.index.verify import copy_index

    print(copy_index(source, target))
