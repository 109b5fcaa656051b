"""What is said of trained Toybox weights: a record each in JSON, one model card for all."""

import importlib.metadata
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from regionlab.runs.record import describe_device, versions
from regionlab.util.files import hash_file, write_text
from toybox.world import VERSION

CURVE_STEP = 20  # every how many steps the record keeps the losses
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # kept by batch norm, not trained
PACKING = (".scale", ".rows")  # of weights in 8 bits, and of changes to some rows only
IMAGE_PARTS = ("visual.", "image_encoder.", "backbone.", "encoder.")

OPENING = """# Toybox models

Small models that our own code trains on Toybox, a world of pictures rendered from a seed. They
let everything here run offline and without a GPU, in the same code that runs the large ones.

Written by `make train`; edits here are lost.
"""

CLOSING = """
## Licence

MIT, like the code. All training pictures and captions are generated; none are downloaded.
"""

# What the numbers of a record cannot tell
ABOUT = {
    "toyclip": """An [open_clip](https://github.com/mlfoundations/open_clip) CLIP from random
weights: a small residual network with attention pooling (the image tower of CLIP's RN50 family)
and a text transformer, trained with two contrastive losses: scenes against captions, and things
by themselves (erased, cropped, blurred around) against their names. Its configuration is
`lib/regionlab/models/toyclip.json`; its tokenizer is CLIP's own (MIT licence), cut to the first
8,192 tokens.

**Intended use.** Text and image search in Toybox: to try, test and teach the methods of this
workspace. `load_encoder("toyclip")` loads it.

**Limits.** It knows the shapes, colors, textures and grounds of Toybox and the words of its
captions, and nothing of photographs: its numbers say nothing about how CLIP does on them.
One combination of attributes in ten was held out of training. Its captions tell of left,
right, above, below, larger and smaller, but nothing here measures whether it learnt these.
""",
    "toysam": """A [segment-anything](https://github.com/facebookresearch/segment-anything) `Sam`
from random weights: its own image encoder (a ViT), prompt encoder and mask decoder in small sizes,
see `lib/regionlab/models/toy.py`. Trained on simulated boxes, clicks and correction clicks with
focal and dice loss and a squared loss on the predicted IoU; of a single click, the best of three
masks. What is meant is a thing (88 % of the prompts), the ground (8 %) or all things (4 %).

**Intended use.** Masks from prompts, and masks of everything, in Toybox. `load_segmenter("toysam")`
loads it.

**Limits.** It sees pictures at 128 pixels and gives masks of 64 by 64 cells, enlarged: thin parts
and tips of small things are lost. Of photographs it knows nothing.
""",
    "toyvit": """A Vision Transformer ([timm](https://github.com/huggingface/pytorch-image-models)'s
own class, four layers on a convolutional stem) from random weights, trained to tell which shapes,
colors and textures a scene holds, each yes or no. Its pooled features are the vector: the baseline
ViT + kNN.

**Intended use.** To compare other methods with, in Toybox. `load_baseline("toyvit")` loads it.

**Limits.** It has no words, and was never asked which color goes with which shape. Of photographs
it knows nothing.
""",
    "toydir": """Deep Image Retrieval (Gordo et al. 2017): a small ResNet (timm's own class) with
generalized-mean pooling and PCA whitening, from random weights, trained with the loss of average
precision of Revaud et al. 2019. Scenes that share a kind of object (shape, color and texture) are
relevant to each other. The whitening is learned from 2,000 training scenes at the end. Other work
held the processor while it was trained; alone it takes about eight minutes.

**Intended use.** To compare other methods with, in Toybox. `load_baseline("toydir")` loads it.

**Limits.** It has no words. Of photographs it knows nothing.
""",
    "toysegnet": """SegNet (Badrinarayanan et al. 2017), its encoder and its decoder with unpooling
indices in small sizes, from random weights, trained to tell the shape that each pixel shows, or
the ground, in windows around things. The mean of its encoder's last map is the vector.

**Intended use.** To compare other methods with, in Toybox. `load_baseline("toysegnet")` loads it.

**Limits.** It has no words, and was never asked for colors or textures. Of photographs it knows
nothing.
""",
    "composed_text": """Composed retrieval, stage 1 (Baldrati et al. 2022): toyclip's text encoder,
tuned on change triplets so that the features of a scene plus those of the words lie at the scene
that is wanted. The file holds what changed in toyclip's weights, in 8 bits.

**Intended use.** Composed search in Toybox: `create_composer("fine_tuned_sum", encoder)`.

**Limits.** It knows seven kinds of change (color, texture, shape, ground, add, remove, move) and
two of them at once. As a plain text encoder it is of no use any more.
""",
    "composed_combiner": """Composed retrieval, stage 2 on frozen toyclip: a Combiner (Baldrati et
al. 2022) that makes one query of the features of a scene and of words of change. Its layers are
narrower than the authors' (1 and 1 times the width of the features instead of 4 and 8), to fit
into the repository.

**Intended use.** Composed search in Toybox: `create_composer("combiner", encoder)`.

**Limits.** As of composed_text.
""",
    "composed_tuned_combiner": """Composed retrieval, both stages: a Combiner that learnt with the
tuned text encoder, composed_text, and works with no other.

**Intended use.** Composed search in Toybox: `create_composer("fine_tuned_combiner", encoder)`.

**Limits.** As of composed_text.
""",
}

# Whose classes they are, where not our own
LIBRARIES = {
    "toyclip": "open_clip_torch",
    "toysam": "segment-anything",
    "toyvit": "timm",
    "toydir": "timm",
}
METRICS = {
    "score": "mean of hit@5 and subset_hit@1 of 600 validation queries, by CIRR's protocol, best "
    "epoch",
    "hit@1": "text-to-image hit@1 on validation scenes (at most 500, one caption each)",
    "iou_box": "mean IoU from a jittered box, on the things of 150 validation scenes",
    "iou_point": "mean IoU from one random inside point, on the same things",
    "map_kinds": "mAP of validation scenes (at most 500), each asking the others for those with a "
    "thing of the same kind: shape, color and texture",
    "iou_classes": "mean IoU of the classes of their pixels, 12 shapes and the ground",
}


def make_record(result: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Return what is to be known of trained weights, as JSON values.

    Parameters
    ----------
    result
        What training returned: recipe, device, step, seconds, curve, validation.
    weights
        The safetensors file; its name without ending is the model's.
    """
    curve, validation = list(result["curve"]), list(result["validation"])
    every = CURVE_STEP if curve and "step" in curve[0] else 1  # epochs are few: all are kept
    thinned = curve[::every] + curve[-1:] * ((len(curve) - 1) % every != 0)
    return {
        "model": weights.stem,
        "file": weights.name,
        "sha256": hash_file(weights),
        "bytes": weights.stat().st_size,
        "parameters": _count_parameters(weights),
        "world_version": VERSION,
        "recipe": dict(result["recipe"]),
        "steps": result["step"],
        "seconds": round(result["seconds"], 1),
        "device": _describe_device(result["device"]),
        "versions": versions() | _version_of(LIBRARIES.get(weights.stem)),
        "validation": validation,
        "curve": thinned,
    }


def _version_of(library: str | None) -> dict[str, str]:
    return {library: importlib.metadata.version(library)} if library else {}


def _count_parameters(weights: Path) -> dict[str, int]:
    with safe_open(weights, framework="np") as file:
        trained = [name for name in file.keys() if not name.endswith((*BUFFERS, *PACKING))]
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in trained}
    image = sum(n for name, n in sizes.items() if name.startswith(IMAGE_PARTS))
    return {"total": sum(sizes.values()), "image_encoder": image}


def _describe_device(used: str) -> str:
    """Name the processor, unless this process can only name another than the one used."""
    named = describe_device()
    return named if named.split()[0] == used.split(":")[0] else used


def write_card(folder: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write the model card, `README.md`, of the models whose weights lie in a folder.

    Parameters
    ----------
    folder
        Where the card goes.
    records
        From `make_record`, one a model.

    Returns
    -------
    Path
        The card.
    """
    card = folder / "README.md"
    write_text(card, OPENING + "".join(map(_describe_model, records)) + CLOSING)
    return card


def _describe_model(record: Mapping[str, Any]) -> str:
    name, recipe = record["model"], record["recipe"]
    libraries = ["torch", *([LIBRARIES[name]] if name in LIBRARIES else [])]
    facts = {
        "data": f"{_describe_data(recipe)}, world version {record['world_version']}",
        "seed": recipe["seed"],
        "epochs" if "epochs" in recipe else "steps": f"{record['steps']:,}",
        "time": f"{record['seconds']:,.0f} s ({record['seconds'] / 60:.0f} min), "
        "without rendering the scenes",
        "device": record["device"],
        "versions": ", ".join(f"{of} {record['versions'][of]}" for of in libraries),
        **_describe_metrics(record["validation"]),
        "parameters": f"{record['parameters']['total']:,}, "
        f"{record['parameters']['image_encoder']:,} of them in the image encoder",
        "weights": f"`{record['file']}`, {record['bytes'] / 1e6:.1f} MB, safetensors, "
        f"{recipe.get('dtype', 'fp16')}",
        "SHA-256": f"`{record['sha256']}`",
    }
    settings = ", ".join(
        _describe_setting(key, value)
        for key, value in recipe.items()
        if key != "seed" and value != ""
    )
    return "\n".join(
        [
            f"\n## {name}\n\n{ABOUT.get(name, '')}\n| | |\n| --- | --- |",
            *(f"| {key} | {value} |" for key, value in facts.items()),
            f"\n**Recipe.** {settings}. Losses and validation over the steps are in `{name}.json`.",
            f'\n**Train it again:** `make train ARGS="--model {name} --fresh"`. The same seed '
            "gives the same\nscenes and batches; on another processor the weights come out a "
            "little different.\n",
        ]
    )


def _describe_data(recipe: Mapping[str, Any]) -> str:
    if "groups" in recipe:
        return f"{recipe['groups']:,} groups of six scenes, with six triplets each"
    return f"{recipe['scenes']:,} scenes of Toybox's training split"


def _describe_setting(key: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{key} {value:,}" if number else f"{key} {value!r}"


def _describe_metrics(validation: list[Mapping[str, float]]) -> dict[str, str]:
    if not validation:
        return {}
    if "score" in validation[-1]:  # the weights are those of the best epoch
        best = max(validation, key=lambda found: found["score"])
        return {METRICS["score"]: f"{best['score']:.3f}, epoch {best['epoch']}"}
    last = {key: value for key, value in validation[-1].items() if key != "step"}
    return {METRICS.get(key, key): f"{value:.3f}" for key, value in last.items()}
