"""Bench of the Combiner: an epoch on features computed once, and what computing them would cost."""

import time
from typing import Any

import numpy as np
import torch

from regionlab.compose.training import CombinerRecipe, EncodedTriplets, create_combiner, take_epoch
from regionlab.models.registry import load_encoder
from regionlab.util.timing import summarise_measure, time_interleaved

TRIPLETS = 18_000  # FashionIQ's training set
ENCODER = "ViT-B-32/untrained"  # 512 wide


def measure_combiner(
    *,
    triplets: int = TRIPLETS,
    batch: int = 2048,
    encoder_name: str = ENCODER,
    pictures: int = 16,
    rounds: int = 3,
    epochs: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure training the Combiner of S4's size on random features.

    Parameters
    ----------
    triplets, batch
        Of an epoch.
    encoder_name
        Whose features they would be: its width is theirs.
    pictures
        Images, and texts, that the encoder is timed on, in each of `rounds`.
    epochs
        That are timed.

    Returns
    -------
    dict
        "seconds_per_epoch", and "ratio_features_once": how many times as long an epoch would
        take that encodes reference, target and words of each triplet anew.
    """
    encoder = load_encoder(encoder_name)
    rng = np.random.default_rng(seed)
    training_set = sample_triplets(triplets, encoder.dim, rng)
    recipe = CombinerRecipe(seed=seed, batch=batch)
    combiner = create_combiner(encoder.dim, recipe).to(encoder.device)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=recipe.learning_rate)
    training_set = EncodedTriplets(*(x.to(encoder.device) for x in vars(training_set).values()))
    images = list(rng.integers(0, 256, (pictures, 224, 224, 3), dtype=np.uint8))
    texts = [f"is red and has {i} buttons" for i in range(pictures)]
    sides = {
        "images": lambda: encoder.encode_images(images),
        "texts": lambda: encoder.encode_texts(texts),
    }
    time_interleaved(sides, 1)  # warm
    seconds = []
    for _ in range(epochs):
        started = time.perf_counter()
        take_epoch(combiner, optimizer, training_set, batch, rng)
        seconds.append(time.perf_counter() - started)
    encoding = time_interleaved(sides, rounds)
    triplet = (2 * np.array(encoding["images"]) + np.array(encoding["texts"])) / pictures
    used = triplets // batch * batch
    return {
        "triplets": used,
        "width": encoder.dim,
        "batch": batch,
        "parameters": sum(p.numel() for p in combiner.parameters()),
        "encoder": encoder.name,
        "seconds_per_epoch": summarise_measure(seconds),
        "ratio_features_once": summarise_measure(1 + triplet * used / np.median(seconds)),
    }


def sample_triplets(count: int, width: int, rng: np.random.Generator) -> EncodedTriplets:
    """Draw random features of the length of CLIP's, (count, width), in four wordings."""
    shapes = ((count, width), (count, width), (count, 4, width))
    return EncodedTriplets(
        *(torch.from_numpy(rng.normal(0, 10 / width**0.5, s).astype(np.float32)) for s in shapes)
    )
