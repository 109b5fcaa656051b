"""The command line of composed retrieval: train, evaluate, and write CIRR's test server files."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from regionlab.compose.composers import COMPOSERS, create_composer
from regionlab.util.paths import DATA, expand
from regionlab.util.progress import run_command

STAGES = ("text", "combiner", "fine_tuned_combiner")
KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 2 if refused, 130 if interrupted."""
    return run_command(_read_arguments(arguments), "from the last epoch")


def _train(options: argparse.Namespace) -> None:
    from regionlab.compose.stages import Stages
    from regionlab.compose.tuning import CombinerRecipe, TextRecipe

    stages = Stages(
        options.encoder, options.data, options.root, folder=_folder(options),
        padding=options.padding, split=options.validate_on,
    )  # fmt: skip
    text = _change(TextRecipe(), options.text)
    combiner = _change(CombinerRecipe(), options.combiner)
    for stage in options.stage or STAGES:
        found = stages.train(stage, text if stage == "text" else combiner)
        print(f"{stage}: best of {found['epochs']} epochs is {found['best_epoch']}, "
              f"score {found['best_score']:.4f}")  # fmt: skip


def _evaluate(options: argparse.Namespace) -> None:
    import pandas as pd

    from regionlab.compose.benchmark import fit_weight, study_ladder

    encoder, benchmark = _open(options, options.split)
    names, folder = options.composer or list(COMPOSERS), _folder(options)
    weights = {name: options.weight for name in names if COMPOSERS[name].weighted}
    if weights and options.weight is None:
        _, known = _open(options, options.validate_on)
        weights = {name: fit_weight(name, encoder, known)[0] for name in weights}
    study = study_ladder(encoder, benchmark, weights=weights, folder=folder, names=names)
    table = pd.DataFrame(
        {name: {metric: f"{m['value']:.4f} [{m['ci95'][0]:.4f}, {m['ci95'][1]:.4f}]"
                for metric, m in found.items()}
         for name, found in study.summarise(seed=0).items()}
    ).T  # fmt: skip
    print(f"{benchmark}, weights of the words {weights}")
    print(table.to_string())


def _submit(options: argparse.Namespace) -> None:
    from regionlab.compose.protocols import write_cirr_submission

    if options.data == "fashioniq":
        raise ValueError("there is a test server, and files for it, of CIRR only, not of fashioniq")
    encoder, benchmark = _open(options, options.split)
    if benchmark.failures:
        raise ValueError("the server wants an answer to each pair: every image must be there")
    composer = create_composer(
        options.composer, encoder, weight=options.weight, folder=_folder(options),
        image_length=benchmark.image_length,
    )  # fmt: skip
    part = benchmark.sets[""]
    composed = composer.compose(part.references, part.triplets.texts())
    for file in write_cirr_submission(options.out, composed, part.gallery, part.triplets):
        print(file)


def _open(options: argparse.Namespace, split: str):
    from regionlab.compose.benchmark import load_benchmark
    from regionlab.models.registry import load_encoder

    encoder = load_encoder(options.encoder, padding=options.padding)
    benchmark = load_benchmark(
        encoder, options.data, options.root, split=split,
        gallery=getattr(options, "gallery", "split"), folder=_folder(options) / "features",
    )  # fmt: skip
    for name, reason in benchmark.failures[:20]:
        print(f"left out {name}: {reason}", file=sys.stderr)
    if benchmark.failures:
        print(f"{len(benchmark.failures)} images of {split} left out", file=sys.stderr)
    return encoder, benchmark


def _folder(options: argparse.Namespace) -> Path:
    name = options.encoder.replace("/", "-").strip("-")
    return options.folder or DATA / "composed" / f"{options.data}-{name}"


# Arguments


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "regionlab.compose.composers", description="Composed retrieval: train, evaluate, submit."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = _add_command(commands, "train", _train, "tune the text encoder, train the Combiners")
    train.add_argument("--stage", action="append", choices=STAGES, help="one of them; all else")
    for part in ("text", "combiner"):
        train.add_argument(
            f"--{part}", action="append", default=[], metavar="KEY=VALUE",
            help=f"change the recipe, see {part.title()}Recipe: epochs=30, batch=256, ...",
        )  # fmt: skip
    evaluate = _add_command(commands, "evaluate", _evaluate, "measure the ladder of composers")
    evaluate.add_argument("--composer", action="append", choices=COMPOSERS, help="all if not given")
    evaluate.add_argument("--split", default="val", help="what is measured (default: val)")
    evaluate.add_argument(
        "--gallery", default="split", choices=("split", "union"),
        help="what FashionIQ's queries search: all images, or those that queries name",
    )  # fmt: skip
    submit = _add_command(commands, "submit", _submit, "write the files for CIRR's test server")
    submit.add_argument("--composer", default="fine_tuned_combiner", choices=COMPOSERS)
    submit.add_argument("--split", default="test1", help="default: test1")
    submit.add_argument("--out", type=expand, default=Path("submission"), help="folder to write to")
    for command in (evaluate, submit):
        command.add_argument("--weight", type=float, help="of the words, for weighted and slerp")
    return parser.parse_args(arguments)


def _add_command(commands, name: str, run: Callable, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    command.add_argument("--data", required=True, choices=("cirr", "fashioniq", "toybox"))
    command.add_argument("--root", type=expand, help="folder of the data set; not for Toybox")
    command.add_argument("--encoder", default="toyclip", help="such as RN50x4/openai")
    command.add_argument("--padding", default="target", choices=("none", "target", "square"))
    command.add_argument("--folder", type=expand, help="of trained parts; data/composed/... if not")
    command.add_argument("--validate-on", default="val", metavar="SPLIT", help="default: val")
    return command


def _change(recipe: Any, changes: Sequence[str]) -> Any:
    """Return a recipe with some values replaced, given as KEY=VALUE."""
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    values = {}
    for change in changes:
        key, sign, value = change.partition("=")
        if key not in kinds or not sign:
            known = ", ".join(kinds)
            raise ValueError(f"a setting is KEY=VALUE, got {change!r}; known keys: {known}")
        values[key] = _parse(key, value, kinds[key])
    return replace(recipe, **values)


def _parse(key: str, value: str, kind: type) -> Any:
    try:
        return BOOLS[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError) as e:
        raise ValueError(f"{key} must be {KINDS[kind]}, got {value!r}") from e
