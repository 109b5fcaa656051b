"""Train composed retrieval on Toybox's change triplets: the text encoder and both Combiners."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from regionlab.compose.stages import Stages
from regionlab.compose.tuning import CombinerRecipe, TextRecipe
from regionlab.util.files import write_json
from regionlab.util.paths import DATA
from toybox.card import make_record, write_card
from toybox.triplets import GROUPS

FOLDER = DATA / "toybox"
COMPOSED = ("composed_text", "composed_combiner", "composed_tuned_combiner")


def _train_toyclip(changes: dict[str, Any], cache: Path, weights: Path) -> dict[str, Any]:
    from toybox.train_clip import Recipe, train  # late: --help needs no torch

    return train(Recipe(**changes), cache=cache, weights=weights)


def _train_toysam(changes: dict[str, Any], cache: Path, weights: Path) -> dict[str, Any]:
    from toybox.train_sam import Recipe, train

    return train(Recipe(**changes), cache=cache, weights=weights)


def _train_baseline(
    name: str, changes: dict[str, Any], cache: Path, weights: Path
) -> dict[str, Any]:
    from toybox.train_baselines import RECIPES, train

    return train(name, replace(RECIPES[name], **changes), cache=cache, weights=weights)


def _train_composed(
    name: str, changes: dict[str, Any], cache: Path, weights: Path
) -> dict[str, Any]:

    return train(name, cache=cache, folder=weights.parent, **changes)


# (changes to the recipe, folder for what can be made again, weights file) -> result
TRAINERS: dict[str, Callable[[dict[str, Any], Path, Path], dict[str, Any]]] = {
    "toyclip": _train_toyclip,
    "toysam": _train_toysam,
    **{name: partial(_train_baseline, name) for name in ("toyvit", "toydir", "toysegnet")},
    **{name: partial(_train_composed, name) for name in COMPOSED},  # in this order
}


def train_model(
    name: str, *, folder: Path = FOLDER, fresh: bool = False, **changes: Any
) -> dict[str, Any]:
    """Train a model, or go on where an earlier run was cut off, and write all it leaves.

    With another recipe than the usual one everything goes to `cache/trial` inside `folder`, so
    that no trial replaces the weights that are published, nor cuts into their training.

    Parameters
    ----------
    name
        A name in `TRAINERS`.
    folder
        Gets `<name>.safetensors`, its record `<name>.json` and the card `README.md`.
    fresh
        Start over, whatever checkpoint there is.
    changes
        Settings that differ from the usual recipe.

    Returns
    -------
    dict
        The record, from `card.make_record`.

    Raises
    ------
    ValueError
        If the model is unknown.
    """
    if name not in TRAINERS:
        raise ValueError(f"unknown Toybox model {name!r}; known: {', '.join(TRAINERS)}")
    cache = folder / "cache"
    if changes:
        cache = folder = cache / "trial"
    if fresh:
        (cache / name / "checkpoint.pt").unlink(missing_ok=True)
        (cache / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
    weights = folder / f"{name}.safetensors"
    record = make_record(TRAINERS[name](changes, cache, weights), weights)
    write_json(folder / f"{name}.json", record)
    write_card(folder, _read_records(folder))
    return record


def _read_records(folder: Path) -> list[dict[str, Any]]:
    files = [folder / f"{name}.json" for name in TRAINERS]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "toybox.train",
        description="Train the Toybox models, or go on where training was cut off.",
        epilog="With --scenes or --steps it is a trial, and goes to data/toybox/cache/trial.",
    )
    parser.add_argument("--model", choices=TRAINERS, help="one of them; all, if not given")
    parser.add_argument("--fresh", action="store_true", help="start over from random weights")
    parser.add_argument("--scenes", type=_positive, help="training scenes to render")
    parser.add_argument("--steps", type=_positive, help="training steps, of composed ones epochs")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; return 0, or 130 if interrupted."""
    options = _read_arguments(arguments)
    given = {"scenes": options.scenes, "steps": options.steps}
    changes = {key: value for key, value in given.items() if value is not None}
    try:
        for name in [options.model] if options.model else TRAINERS:
            record = train_model(name, folder=FOLDER, fresh=options.fresh, **changes)
            print(f"{record['file']}: {record['bytes'] / 1e6:.1f} MB, SHA-256 {record['sha256']}")
    except KeyboardInterrupt:
        print("\ninterrupted; without --fresh it goes on from its last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())


CACHE = DATA / "toybox" / "cache"
# Larger steps than S4's, whose towers have learnt from 400 million pictures; and parts that fit
# into the repository: the last block and the tokens stay as they are, weights have 8 bits.
TEXT = TextRecipe(
    epochs=14,
    batch=256,
    learning_rate=3e-4,
    weight_decay=0.0,
    freeze="resblocks.3",
    amp="bf16",
    patience=4,
    dtype="int8",
)
COMBINER = CombinerRecipe(
    epochs=60,
    batch=256,
    learning_rate=1e-3,
    projection=1,
    hidden=1,
    dropout=0.2,
    validate_every=1,
    patience=12,
    dtype="int8",
)
PARTS: dict[str, tuple[str, TextRecipe | CombinerRecipe]] = {
    "composed_text": ("text", TEXT),
    "composed_combiner": ("combiner", COMBINER),
    "composed_tuned_combiner": ("fine_tuned_combiner", COMBINER),
}


def train(
    name: str, *, cache: Path, folder: Path, scenes: int | None = None, steps: int | None = None
) -> dict[str, Any]:
    """Train one part, or go on where an earlier run was cut off, and write its weights.

    Parameters
    ----------
    name
        A name in `PARTS`; "composed_tuned_combiner" needs "composed_text" in the folder.
    cache
        For the triplets' pictures, their features, checkpoints and curves.
    folder
        Gets `<name>.safetensors`.
    scenes
        Training scenes, six a group; by default 18,000.
    steps
        Epochs, at most.

    Returns
    -------
    dict
        recipe, device, step (epochs), seconds, curve and validation.
    """
    stage, recipe = PARTS[name]
    groups = GROUPS["train"] if scenes is None else max(1, scenes // 6)
    if steps is not None:
        recipe = replace(recipe, epochs=steps)
    recipe = replace(recipe, batch=min(recipe.batch, 6 * groups))
    options = {} if scenes is None else {"groups": groups}
    stages = Stages("toyclip", "toybox", folder=folder, cache=cache, layout="cirr",
                    padding="none", **options)  # fmt: skip
    found = stages.train(stage, recipe)
    recipe_of_all = {"groups": groups, **asdict(recipe)}
    return {**found, "recipe": recipe_of_all, "step": found["epochs"]}
