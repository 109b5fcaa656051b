"""`regionlab serve`, `run`, `bench`, `models`, `train`, `compose`: services, runs and training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regionlab.cli.app import STYLE, Address, Cpus, Device, Gpus, Ray, app, option, path_option
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.compose.stages import Setup


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
    from regionlab.util.errors import import_extra

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
    from regionlab.models.registry import list_models

    found = [(kind, name, file) for kind, name, file in list_models()
             if any(word.lower() in f"{kind} {name}".lower() for word in words or [])
             or not words and (file.is_file() or kind == "segmenter")]  # fmt: skip
    width = max((len(name) for _, name, _ in found), default=0)
    for kind, name, file in found:
        there = "there " if file.is_file() else "absent"
        print(f"{kind:9}  {name:{width}}  {there}  {file}")
    if not words:
        print("and all that open_clip and timm publish: regionlab models WORD")


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


# Composed retrieval

commands = typer.Typer(**STYLE)
app.add_typer(commands, name="compose", help="Composed retrieval: train, evaluate, submit.")

Data = Annotated[Literal["cirr", "fashioniq", "toybox"], option("Which data set.")]
Root = Annotated[Path | None, path_option("Of the data set; not for Toybox.")]
Encoder = Annotated[str, option("Such as RN50x4/openai.")]
Padding = Annotated[Literal["none", "target", "square"], option("Of long images.")]
Folder = Annotated[Path | None, path_option("Of trained parts; data/composed/... if not given.")]
ValidateOn = Annotated[str, option("Split that is chosen by.", metavar="SPLIT")]
Weight = Annotated[float | None, option("Of the words, for weighted and slerp.")]


@commands.command("train", epilog="Example: regionlab compose train --data cirr --root data/cirr")
def train_composed(
    data: Data,
    root: Root = None,
    encoder: Encoder = "toyclip",
    padding: Padding = "target",
    folder: Folder = None,
    validate_on: ValidateOn = "val",
    stage: Annotated[
        list[str] | None,
        option("text, combiner or fine_tuned_combiner; all if not given."),
    ] = None,
    text: Annotated[
        list[str] | None, option("KEY=VALUE, a change to TextRecipe: epochs=30, batch=256, ...")
    ] = None,
    combiner: Annotated[list[str] | None, option("KEY=VALUE, a change to CombinerRecipe.")] = None,
) -> None:
    """Tune the text encoder and train the Combiners, or go on where it was cut off."""
    from regionlab.compose.stages import STAGES, train_stages

    changes = {"text": _read_settings(text), "combiner": _read_settings(combiner)}
    setup = _set_up(data, root, encoder, padding, folder, validate_on)
    train_stages(setup, stage or STAGES, **changes)


@commands.command(epilog="Example: regionlab compose evaluate --data toybox --composer sum")
def evaluate(
    data: Data,
    root: Root = None,
    encoder: Encoder = "toyclip",
    padding: Padding = "target",
    folder: Folder = None,
    validate_on: ValidateOn = "val",
    composer: Annotated[list[str] | None, option("One of them; all if not given.")] = None,
    split: Annotated[str, option("What is measured.")] = "val",
    gallery: Annotated[
        Literal["split", "union"], option("FashionIQ's: all images, or those that queries name.")
    ] = "split",
    weight: Weight = None,
) -> None:
    """Measure composers, from the image alone to the Combiner on a tuned text encoder."""
    from regionlab.compose.composers import COMPOSERS
    from regionlab.compose.stages import evaluate_composers

    setup = _set_up(data, root, encoder, padding, folder, validate_on)
    names = composer or list(COMPOSERS)
    evaluate_composers(setup, names, split=split, gallery=gallery, weight=weight)


@commands.command(epilog="Example: regionlab compose submit --data cirr --root data/cirr")
def submit(
    data: Data,
    root: Root = None,
    encoder: Encoder = "toyclip",
    padding: Padding = "target",
    folder: Folder = None,
    composer: Annotated[str, option("Which one answers.")] = "fine_tuned_combiner",
    split: Annotated[str, option("What is answered.")] = "test1",
    out: Annotated[Path, path_option("To write to.")] = Path("submission"),
    weight: Weight = None,
) -> None:
    """Write the files for CIRR's test server."""
    from regionlab.compose.stages import write_submission

    setup = _set_up(data, root, encoder, padding, folder, "val")
    write_submission(setup, out, composer=composer, split=split, weight=weight)


def _set_up(data, root, encoder, padding, folder, split) -> "Setup":
    from regionlab.compose.stages import Setup

    return Setup(encoder, data, root, folder=folder, padding=padding, split=split)


def _read_settings(items: list[str] | None) -> dict[str, str]:
    wrong = [item for item in items or [] if "=" not in item]
    if wrong:
        raise InputError(f"a setting is KEY=VALUE, got {wrong[0]!r}")
    return dict(item.split("=", 1) for item in items or [])
