"""Train the Toybox models and the parts of composed search; write weights, records and the card."""

import importlib.metadata
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from regionlab.runs.record import describe_device, versions
from regionlab.util.errors import InputError
from regionlab.util.files import hash_file, write_json, write_text
from regionlab.util.paths import DATA
from toybox.disk import GROUPS
from toybox.world import VERSION

FOLDER = DATA / "toybox"
CARD = Path(__file__).with_name("card.md.jinja")
CURVE_STEP = 20  # every how many steps the record keeps the losses
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # kept by batch norm, not trained
PACKING = (".scale", ".rows")  # of weights in 8 bits, and of changes to some rows only
IMAGE_PARTS = ("visual.", "image_encoder.", "backbone.", "encoder.")
LIBRARIES = {  # whose classes they are, where not our own
    "toyclip": "open_clip_torch",
    "toysam": "segment-anything",
    "toyvit": "timm",
    "toydir": "timm",
}
STAGES = {  # of composed search, in this order
    "composed_text": "text",
    "composed_combiner": "combiner",
    "composed_tuned_combiner": "fine_tuned_combiner",
}
# Larger steps than S4's, whose towers have learnt from 400 million images; and parts that fit
# into the repository: the last block and the tokens stay as they are, weights have 8 bits.
TEXT = {
    "epochs": 14, "batch": 256, "learning_rate": 3e-4, "weight_decay": 0.0,
    "freeze": "resblocks.3", "amp": "bf16", "patience": 4, "dtype": "int8",
}  # fmt: skip
COMBINER = {
    "epochs": 60, "batch": 256, "learning_rate": 1e-3, "projection": 1, "hidden": 1,
    "dropout": 0.2, "validate_every": 1, "patience": 12, "dtype": "int8",
}  # fmt: skip

Result = dict[str, Any]


# Trainers: changes to the recipe, folder for what can be made again, weights file -> result.
# What they import needs torch, which --help does not.


def _train_toyclip(changes: Result, cache: Path, weights: Path) -> Result:
    from toybox.toyclip import Recipe, train

    return train(Recipe(**changes), cache=cache, weights=weights)


def _train_toysam(changes: Result, cache: Path, weights: Path) -> Result:
    from toybox.toysam import Recipe, train

    return train(Recipe(**changes), cache=cache, weights=weights)


def _train_baseline(name: str, changes: Result, cache: Path, weights: Path) -> Result:
    from toybox.baselines import RECIPES, train

    return train(name, replace(RECIPES[name], **changes), cache=cache, weights=weights)


def train_composed(name: str, changes: Mapping[str, int], cache: Path, weights: Path) -> Result:
    """Train one part of composed search, a name in `STAGES`, or go on where it was cut off.

    `changes` are `scenes`, six a group, by default 18,000; and `steps`, epochs at most. The
    triplets' images, their features, checkpoints and curves go to `cache`. Of the result, step is
    the number of epochs.
    """
    from regionlab.compose.stages import Setup
    from regionlab.compose.training import CombinerRecipe, TextRecipe

    scenes, steps = changes.get("scenes"), changes.get("steps")
    groups = GROUPS["train"] if scenes is None else max(1, scenes // 6)
    recipe = TextRecipe(**TEXT) if name == "composed_text" else CombinerRecipe(**COMBINER)
    recipe = replace(recipe, epochs=steps or recipe.epochs, batch=min(recipe.batch, 6 * groups))
    options = {} if scenes is None else {"groups": groups}
    setup = Setup("toyclip", "toybox", folder=weights.parent, cache=cache, layout="cirr",
                  padding="none", **options)  # fmt: skip
    found = setup.train(STAGES[name], recipe)
    return {**found, "recipe": {"groups": groups, **asdict(recipe)}, "step": found["epoch"]}


TRAINERS: dict[str, Callable[[Result, Path, Path], Result]] = {
    "toyclip": _train_toyclip,
    "toysam": _train_toysam,
    **{name: partial(_train_baseline, name) for name in ("toyvit", "toydir", "toysegnet")},
    **{name: partial(train_composed, name) for name in STAGES},
}


def train_model(name: str, *, folder: Path = FOLDER, fresh: bool = False, **changes: Any) -> Result:
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
        The record, from `make_record`.

    Raises
    ------
    InputError
        If the model is unknown.
    """
    if name not in TRAINERS:
        raise InputError(f"unknown Toybox model {name!r}; known: {', '.join(TRAINERS)}")
    cache = folder / "cache"
    if changes:
        cache = folder = cache / "trial"
    if fresh:
        (cache / "checkpoints" / f"{name}.pt").unlink(missing_ok=True)
    weights = folder / f"{name}.safetensors"
    record = make_record(TRAINERS[name](changes, cache, weights), weights)
    write_json(folder / f"{name}.json", record)
    files = [file for known in TRAINERS if (file := folder / f"{known}.json").exists()]
    write_card(folder, [json.loads(file.read_text(encoding="utf-8")) for file in files])
    return record


# Record and card


def make_record(result: Mapping[str, Any], weights: Path) -> Result:
    """Return what is to be known of trained weights, as JSON values.

    Parameters
    ----------
    result
        What training returned: recipe, device, step, seconds, curve, validation.
    weights
        The safetensors file; its name without ending is the model's.
    """
    curve, name = list(result["curve"]), weights.stem
    every = CURVE_STEP if curve and "step" in curve[0] else 1  # epochs are few: all are kept
    own = (
        {LIBRARIES[name]: importlib.metadata.version(LIBRARIES[name])} if name in LIBRARIES else {}
    )
    named = describe_device()  # that of this process, which may be another than the one used
    used = result["device"]
    return {
        "model": name,
        "file": weights.name,
        "sha256": hash_file(weights),
        "bytes": weights.stat().st_size,
        "parameters": _count_parameters(weights),
        "world_version": VERSION,
        "recipe": dict(result["recipe"]),
        "steps": result["step"],
        "seconds": round(result["seconds"], 1),
        "device": named if named.split()[0] == used.split(":")[0] else used,
        "versions": versions() | own,
        "validation": list(result["validation"]),
        "curve": curve[::every] + curve[-1:] * ((len(curve) - 1) % every != 0),
    }


def _count_parameters(weights: Path) -> dict[str, int]:
    from safetensors import safe_open

    with safe_open(weights, framework="np") as file:
        trained = [name for name in file.keys() if not name.endswith((*BUFFERS, *PACKING))]
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in trained}
    image = sum(n for name, n in sizes.items() if name.startswith(IMAGE_PARTS))
    return {"total": sum(sizes.values()), "image_encoder": image}


def write_card(folder: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write the model card, `README.md`, from the records of the weights in a folder."""
    from jinja2 import Environment, StrictUndefined

    page = Environment(trim_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined)
    page.filters["setting"] = _describe_setting
    template = page.from_string(CARD.read_text(encoding="utf-8"))
    card = folder / "README.md"
    write_text(card, template.render(records=list(records), libraries=LIBRARIES))
    return card


def _describe_setting(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,}" if number else repr(value)
