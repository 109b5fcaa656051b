"""`regionlab serve`, `run`, `bench`, `models` and `train`: what is done with indexes and models."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from regionlab.cli.app import Address, Cpus, Device, Gpus, Ray, app, option, path_option
from regionlab.util.errors import InputError


@app.command(epilog="Example: regionlab serve --images photos --encoder ViT-B-32/openai")
def serve(
    index: Annotated[Path | None, path_option("An index; Toybox's if not given.")] = None,
    images: Annotated[Path | None, path_option("Images, indexed on first use.")] = None,
    encoder: Annotated[str, option("Such as ViT-B-32/openai.")] = "toyclip",
    segmenter: Annotated[str, option("toysam, vit_b, ...")] = "toysam",
    device: Device = "auto",
    host: Annotated[str, option("0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, option("Where it listens.")] = 8000,
    name: Annotated[list[str] | None, option("By which it may be called; repeatable.")] = None,
    seconds: Annotated[float, option("Most for a request.")] = 60,
    batch: Annotated[int, option("Most that is encoded at once.")] = 32,
) -> None:
    """Serve the page and the API to search an index with, until interrupted."""
    if index and images:
        raise InputError("--index and --images exclude each other")
    from regionlab.util.extras import import_extra

    for package in ("fastapi", "uvicorn", "httptools", "multipart"):
        import_extra(package, "serve")
    from regionlab.service.server import serve as run

    run(
        index=index, images=images, encoder=encoder, segmenter=segmenter, device=device,
        host=host, port=port, names=name or [], seconds=seconds, batch=batch,
    )  # fmt: skip


@app.command(epilog="Example: regionlab run toybox --only 01_build_index --set seed=1")
def run(
    profile: Annotated[str, typer.Argument(help="A YAML file, or its bare name in notebooks/.")],
    only: Annotated[list[str] | None, option("This notebook alone; repeatable.")] = None,
    changes: Annotated[
        list[str] | None,
        option(
            "NAME=VALUE, a parameter unlike the profile's; repeatable, and a name given twice is a "
            "sweep. Results then stay in data/runs/.",
            "--set",
        ),
    ] = None,  # fmt: skip
    resume: Annotated[bool, option("Keep what succeeded unchanged.", "--resume")] = False,
    ray: Ray = False,
    address: Address = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    dry_run: Annotated[bool, option("Check and list, run nothing.", "--dry-run")] = False,
) -> None:
    """Run the notebooks of a profile, each with a record, and draw reports and figures."""
    from functools import partial

    from regionlab.runs.runner import run_and_report, run_profile

    way = partial(run_profile, resume=resume)
    if ray or address:
        from regionlab.runs.parallel import run_profile_with_ray

        kinds = {"cpus_per_run": cpus, "gpus_per_run": gpus}
        way = partial(run_profile_with_ray, resume=resume, address=address, **kinds)
    code = run_and_report(profile, only=only or [], changes=changes or [], run=way, dry_run=dry_run)
    raise typer.Exit(code)


@app.command(epilog="Example: regionlab bench search cold_start")
def bench(
    entries: Annotated[list[str] | None, typer.Argument(help="All if none is named.")] = None,
) -> None:
    """Measure speed, as ratios within one run, and write figures/bench.json."""
    from regionlab.bench import run as benchmarks

    content = benchmarks.run_bench(entries or [], file=benchmarks.FILE)
    print(benchmarks.describe_ratios(content["results"]))


@app.command(epilog="Example: regionlab models vit-b sam")
def models(
    words: Annotated[list[str] | None, typer.Argument(help="Of their names; any of them.")] = None,
) -> None:
    """List the models that go by a name, where their weights go, and whether they are there.

    Without words, those that are there and the segmenters.
    """
    found = [(kind, name, file) for kind, name, file in _list_models()
             if any(word.lower() in f"{kind} {name}".lower() for word in words or [])
             or not words and (file.is_file() or kind == "segmenter")]  # fmt: skip
    width = max((len(name) for _, name, _ in found), default=0)
    for kind, name, file in found:
        there = "there " if file.is_file() else "absent"
        print(f"{kind:9}  {name:{width}}  {there}  {file}")
    if not words:
        print("and all that open_clip and timm publish: regionlab models WORD")


def _list_models() -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and file of weights of what `load_...` knows by name."""
    from regionlab.models.registry import (
        available_baselines,
        available_encoders,
        available_segmenters,
        place_of_weights,
    )
    from regionlab.models.weights import WeightsError

    for kind, names in (
        ("encoder", available_encoders()),
        ("segmenter", available_segmenters()),
        ("baseline", available_baselines()),
    ):
        for name in names:
            with suppress(WeightsError):  # timm names some that nobody publishes weights of
                yield kind, name, place_of_weights(name)


@app.command(epilog="Example: regionlab train --model toyclip --fresh")
def train(
    model: Annotated[list[str] | None, option("One of them; all if not given.")] = None,
    fresh: Annotated[bool, option("Start over from random weights.", "--fresh")] = False,
    scenes: Annotated[int | None, option("To render; makes it a trial.", min=1)] = None,
    steps: Annotated[int | None, option("Of training; makes it a trial.", min=1)] = None,
) -> None:
    """Train the models of Toybox, or go on; trials go to data/toybox/cache/trial."""
    from toybox.train import FOLDER, TRAINERS, train_model

    given = {"scenes": scenes, "steps": steps}
    changes = {key: value for key, value in given.items() if value is not None}
    for name in model or TRAINERS:
        record = train_model(name, folder=FOLDER, fresh=fresh, **changes)
        print(f"{record['file']}: {record['bytes'] / 1e6:.1f} MB, SHA-256 {record['sha256']}")
