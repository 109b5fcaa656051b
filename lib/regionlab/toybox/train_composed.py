"""Train composed retrieval on Toybox's change triplets: the text encoder and both Combiners."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from regionlab.composed_stages import Stages
from regionlab.paths import DATA
from regionlab.toybox.triplets_on_disk import GROUPS
from regionlab.train_combiner import CombinerRecipe
from regionlab.tune_text import TextRecipe

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
