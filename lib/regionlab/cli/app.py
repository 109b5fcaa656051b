"""The command `regionlab` itself: how errors are told, and the options that commands share."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from regionlab.util.errors import InputError, RegionlabError

if TYPE_CHECKING:
    from regionlab.index.index import Index
    from regionlab.models.encoder import Encoder

GOES_ON = {  # how the same command takes up what was interrupted
    "index": " goes on with the images left",
    "update": " goes on with the images left",
    "copy": " goes on with the files left",
    "compose": " goes on from the last epoch",
    "train": " goes on from its last checkpoint, without --fresh",
    "run": " with --resume keeps what succeeded",
}


class Commands(TyperGroup):
    """Tells errors of ours in a sentence (exit code 2), and interrupts (130)."""

    def invoke(self, ctx) -> Any:
        """Run the command; what is no error of ours goes through with its traceback."""
        try:
            return super().invoke(ctx)
        except RegionlabError as e:
            print(f"error: {e}", file=sys.stderr)
            raise typer.Exit(2) from e
        except KeyboardInterrupt as e:
            how = GOES_ON.get(ctx.invoked_subcommand)
            print("\ninterrupted" + (f"; the same command{how}" if how else ""), file=sys.stderr)
            raise typer.Exit(130) from e


STYLE: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
app = typer.Typer(help="Region-based image retrieval with CLIP and SAM.", cls=Commands, **STYLE)


@app.callback()
def _start(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from regionlab import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: Sequence[object] | None = None) -> int:
    """Run a command line and return its exit code.

    0; 1 if something is amiss, such as a damaged index or a failed notebook; 2 if the command
    was refused; 130 if it was interrupted.
    """
    try:
        app([*map(str, sys.argv[1:] if arguments is None else arguments)], prog_name="regionlab")
    except SystemExit as ended:
        return ended.code or 0
    return 0


# Options


def to_path(text: str) -> Path:
    """Return a path that was typed, `~` being the home folder wherever it stands."""
    from regionlab.util.paths import expand

    return expand(text)


def option(text: str, *names: str, **settings: Any) -> Any:
    """Return an option with a help text."""
    return typer.Option(*names, help=text, **settings)


def path_option(text: str, metavar: str = "FOLDER") -> Any:
    """Return an option that takes a path."""
    return typer.Option(help=text, parser=to_path, metavar=metavar)


IndexFolder = Annotated[Path, typer.Argument(parser=to_path, metavar="INDEX", help="Its folder.")]
ImageFolder = Annotated[
    Path | None, typer.Argument(parser=to_path, metavar="FOLDER", help="Of images or a data set.")
]
EncoderName = Annotated[
    str | None, option("Model, such as ViT-B-32/openai; that of the index if not given.")
]
SegmenterName = Annotated[str | None, option("Such as vit_b; that of the index if not given.")]
Dataset = Annotated[str, option("Kind of data set: folder, coco, toybox, ...")]
Split = Annotated[str | None, option("Such as val2017; the data set's own choice if not given.")]
Device = Annotated[str, option("auto, cpu, cuda, ...")]
Precision = Annotated[Literal["auto", "bf16", "fp32"], option("Of the model.")]
Padding = Annotated[Literal["none", "target", "square"], option("Of long images.")]
Ray = Annotated[bool, option("Side by side, by workers of Ray.", "--ray")]
Address = Annotated[
    str | None, option("Of the Ray cluster's head, host:port; this machine if not given.")
]
Cpus = Annotated[int, option("With --ray: processors of each worker.")]
Gpus = Annotated[float, option("With --ray: GPUs of each worker; 0.5 for two on one.")]


def load_encoder_of(index: "Index", name: str | None, **options: Any) -> "Encoder":
    """Load the model that an index was made by, or another that is named."""
    from regionlab.models.registry import load_encoder

    made = index.manifest["model"]
    words = made["preprocess"]
    padding = "target" if "TargetPad" in words else "square" if "SquarePad" in words else "none"
    try:
        return load_encoder(name or made["model"], padding=padding, **options)
    except (RegionlabError, ValueError) as e:
        if name:
            raise
        raise InputError(f"{e}\n(so the index names its model; name it by --encoder)") from e
