"""`regionlab compose`: train, evaluate and submit searches by an image and words of change."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from regionlab.cli.app import STYLE, app, option, path_option
from regionlab.util.errors import InputError

if TYPE_CHECKING:
    from regionlab.compose.stages import Setup

commands = typer.Typer(**STYLE)
app.add_typer(commands, name="compose", help="Composed retrieval: train, evaluate, submit.")

Data = Annotated[Literal["cirr", "fashioniq", "toybox"], option("Which data set.")]
Root = Annotated[Path | None, path_option("Of the data set; not for Toybox.")]
Encoder = Annotated[str, option("Such as RN50x4/openai.")]
Padding = Annotated[Literal["none", "target", "square"], option("Of long images.")]
Folder = Annotated[Path | None, path_option("Of trained parts; data/composed/... if not given.")]
ValidateOn = Annotated[str, option("Split that is chosen by.", metavar="SPLIT")]
Weight = Annotated[float | None, option("Of the words, for weighted and slerp.")]


@commands.command(epilog="Example: regionlab compose train --data cirr --root data/cirr")
def train(
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
