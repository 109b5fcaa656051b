"""What it costs to encode the regions of an image: one forward pass for all, or one for each."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from regionlab.embedding import Encoder
from regionlab.encoders import load_encoder
from regionlab.paths import FIGURES
from regionlab.provenance import describe_device
from regionlab.regions import DEFAULT_ENCODING, encode_regions
from regionlab.timing import summarise_measure, time_in_turn

POOLED = "tokens"
QUALITY = FIGURES / "05_compare_region_encodings.json"
IMAGE_SIZE = (480, 640)  # height and width in pixels of most pictures in COCO


def measure_region_encoding(
    encoders: Sequence[str] = ("toyclip", "ViT-B-32/untrained"),
    *,
    count: int = 32,
    rounds: int = 7,
    encoding: str = DEFAULT_ENCODING,
    quality: Path = QUALITY,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the regions of one image by pooled tokens against a forward pass for each.

    The passes are a single batch. Both sides include everything from image and masks to
    vectors, and are measured in turn, round by round, after a run that does not count.

    Parameters
    ----------
    encoders
        As for `load_encoder`; precision "auto".
    count
        Regions: ellipses of many sizes, on an image of noise.
    rounds
        How often each side is measured.
    encoding
        The side with a pass for each region, a name in `regions.REGION_ENCODINGS`.
    quality
        Results of notebook 05, which has measured how well both retrieve.
    seed
        Of image and regions.

    Returns
    -------
    dict
        `ratio_vs_passes_<architecture>` of rates, taken within a round: above 1 means that
        pooled tokens are the faster side. `milliseconds` of both sides for all regions, by
        encoder. A measured value is the median, with its range over the rounds. `map` of both
        sides as the notebook has measured it, and `map_from`: the file, or a word where the
        file is missing and so the values are None. And the setting.
    """
    image, masks = draw_regions(count, seed)
    ratios, milliseconds, precisions = {}, {}, {}
    for name in encoders:
        encoder = load_encoder(name)
        times = _time_encodings(encoder, image, masks, (POOLED, encoding), rounds)
        ratio = np.divide(times[encoding], times[POOLED])
        ratios[f"ratio_vs_passes_{name.partition('/')[0]}"] = summarise_measure(ratio)
        milliseconds[name] = {
            side: summarise_measure(1000 * np.array(seconds)) for side, seconds in times.items()
        }
        precisions[name] = encoder.precision
    return ratios | {
        "milliseconds": milliseconds,
        **read_quality(quality, (POOLED, encoding)),
        "encoding": encoding,
        "regions": count,
        "image_size": [IMAGE_SIZE[1], IMAGE_SIZE[0]],
        "precision": precisions,
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }


def _time_encodings(
    encoder: Encoder,
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    encodings: Sequence[str],
    rounds: int,
) -> dict[str, list[float]]:
    def encode(name: str) -> None:
        encode_regions(encoder, image, masks, encoding=name, batch_size=len(masks))

    sides = {name: partial(encode, name) for name in encodings}
    time_in_turn(sides, 1)  # warms up
    return time_in_turn(sides, rounds)


def draw_regions(count: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw an image of noise, (H, W, 3) uint8, and ellipses on it, (H, W) bool each.

    Their half axes are 3 to 30 percent of the image's sides, as everything-masks have them.
    """
    rng = np.random.default_rng(seed)
    sides = np.array(IMAGE_SIZE)
    y, x = np.indices(IMAGE_SIZE)
    masks = []
    for _ in range(count):
        (cy, cx), (ry, rx) = rng.uniform(0, 1, 2) * sides, rng.uniform(0.03, 0.3, 2) * sides
        masks.append(((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1)
    return rng.integers(0, 256, (*IMAGE_SIZE, 3), dtype=np.uint8), masks


def read_quality(file: Path, encodings: Sequence[str]) -> dict[str, Any]:
    """Return `map` by encoding from the results of notebook 05, and `map_from`.

    The values are None, and a word says so, where there is no such file.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"map": dict.fromkeys(encodings), "map_from": f"missing: no {file.name}"}
    measured = content["results"]["encodings"]
    return {
        "map": {name: measured.get(name, {}).get("mAP") for name in encodings},
        "map_from": file.name,
    }
