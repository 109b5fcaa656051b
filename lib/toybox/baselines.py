"""Train the papers' baselines from random weights on Toybox's training scenes.

toyvit learns to tell what a scene holds (shapes, colors and textures, each yes or no), toydir to
rank the scenes that share a kind of object first, toysegnet to tell what each pixel shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, normalize

from regionlab.metrics.ranking import average_precision, judge_ranking
from regionlab.models.baselines import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TOY_SIDE,
    DeepImageRetrieval,
    ImageModel,
    SegNet,
    ViT,
    create_toydir,
    create_toysegnet,
    create_toyvit,
)
from regionlab.models.training import descend, run_steps
from regionlab.util.paths import DATA
from toybox.pool import CACHE, Scenes, ToyRecipe, class_pixels, open_scenes, sample_rows
from toybox.world import COLORS, COMBINATIONS, SHAPES, TEXTURES

BINS = 25  # of similarities, in the loss of average precision
ATTRIBUTES = (*SHAPES, *COLORS, *TEXTURES)
HAS = np.array([[attribute in kind for attribute in ATTRIBUTES] for kind in COMBINATIONS])
CROP = 64  # pixels of a side of what toysegnet sees at a time in training
GROUND_WEIGHT = 0.2  # of a pixel of the ground, most of which tell nothing
WHITENING_SCENES = 2_000  # of the training split


def ap_loss(vectors: torch.Tensor, relevant: torch.Tensor, *, bins: int = BINS) -> torch.Tensor:
    """Return 1 - mAP of the images of a batch, each a query against all others.

    Similarities are shared out between bins (Revaud et al. 2019, equations 6 to 9), so that
    ranks change smoothly. An image that no other is relevant for asks nothing; where none asks,
    the loss is 1 and teaches nothing.

    `vectors` are (b, d) float32, unit length; `relevant` is (b, b) bool, what it says of an image
    and itself is ignored; `bins` are over the similarities from 1 down to -1.
    """
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    relevant = (relevant & others).float()
    centres = torch.linspace(1, -1, bins, device=vectors.device)
    distance = (vectors @ vectors.T)[:, None] - centres[:, None]  # (b, bins, b)
    shares = (1 - distance.abs() * (bins - 1) / 2).clamp(min=0) * others[:, None]
    hits, ranked = (shares * relevant[:, None]).sum(2), shares.sum(2)
    precision = hits.cumsum(1) / ranked.cumsum(1).clamp(min=1e-6)
    wanted = relevant.sum(1)
    average = (precision * hits).sum(1) / wanted.clamp(min=1)
    return 1 - average.sum() / (wanted > 0).sum().clamp(min=1)


@dataclass(frozen=True)
class Recipe(ToyRecipe):
    """Everything that decides what the weights become."""

    batch: int = 96
    jitter: float = 0.12
    save_every: int = 200


RECIPES = {
    "toyvit": Recipe(),
    "toydir": Recipe(steps=1_200, batch=128),
    "toysegnet": Recipe(steps=3_000, batch=64, learning_rate=3e-3),
}


def train(
    name: str, recipe: Recipe | None = None, *, cache: Path = CACHE, weights: Path | None = None
) -> dict:
    """Train a baseline, or go on where an earlier run was cut off, and write its weights.

    By default with the recipe of its `name` in `RECIPES`, and to where weights are published.
    Rendered scenes and the checkpoint go to `cache`. Returns as `run_steps`, measured by
    `validate` on up to 500 scenes.
    """
    recipe = recipe or RECIPES[name]
    weights = weights or DATA / "toybox" / f"{name}.safetensors"
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    create, loss_of = TASKS[name]
    model = create().to(device, memory_format=torch.channels_last)
    known, unknown = (
        open_scenes(cache / f"pool-{split}", split, count, seed=recipe.seed, side=TOY_SIDE)
        for split, count in (("train", recipe.scenes), ("val", min(500, recipe.scenes)))
    )

    return run_steps(
        model, recipe, checkpoint=cache / "checkpoints" / f"{name}.pt", weights=weights,
        take_step=lambda optimizer, step: _train_step(
            model, optimizer, loss_of, known, recipe, step
        ),
        validate=lambda: validate(model, known, unknown),
    )  # fmt: skip


# One step


def _train_step(model, optimizer, loss_of, scenes: Scenes, recipe: Recipe, step: int):
    model.train()
    rng = np.random.default_rng([recipe.seed, step])
    rows = sample_rows(rng, len(scenes.kinds), recipe.batch)
    pixels = sample_light(scenes.pool.scenes[rows], rng, recipe.jitter)
    pixels = _to_input(pixels).to(next(model.parameters()).device)
    loss = loss_of(model, pixels, scenes, rows, rng)
    descend(model, optimizer, loss)
    return {"loss": round(loss.item(), 4)}


def sample_light(images: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """Return (b, side, side, 3) float32 in [0, 1], in varied brightness and tint."""
    gain = 1 + jitter * rng.uniform(-1, 1, (len(images), 1, 1, 3)).astype(np.float32)
    return (images / np.float32(255) * gain).clip(0, 1)


def _to_input(images: np.ndarray) -> torch.Tensor:
    """Turn (b, side, side, 3) float32 in [0, 1] into what the models take, as bfloat16."""
    mean, std = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return torch.from_numpy((images - mean) / std).permute(0, 3, 1, 2).bfloat16()


# What each model learns from: images as its input, and the rows of their scenes


def attribute_loss(model: ViT, pixels, scenes: Scenes, rows, rng) -> torch.Tensor:
    """Binary cross-entropy of each attribute: whether a thing of the scene has it."""
    held = torch.from_numpy(scenes.kinds[rows] @ HAS).to(pixels.device)
    return binary_cross_entropy_with_logits(model.classifier(model(pixels)), held.float())


def ranking_loss(model: DeepImageRetrieval, pixels, scenes: Scenes, rows, rng) -> torch.Tensor:
    """Loss of average precision; relevant is what shares a kind of object."""
    kinds = torch.from_numpy(scenes.kinds[rows]).to(pixels.device).float()
    return ap_loss(model.describe(model.compute(pixels)), kinds @ kinds.T > 0)


def pixel_loss(model: SegNet, pixels, scenes: Scenes, rows, rng) -> torch.Tensor:
    """Cross-entropy of the class of each pixel near a thing, that of the ground weighing less."""
    classes = class_pixels(scenes, rows)
    windows = sample_windows(classes, rng)
    target = torch.stack([torch.from_numpy(of[w]) for of, w in zip(classes, windows, strict=True)])
    pixels = torch.stack([of[:, *w] for of, w in zip(pixels, windows, strict=True)])
    logits = model.segment(pixels.contiguous(memory_format=torch.channels_last))
    balance = torch.ones(logits.shape[1], device=logits.device)
    balance[0] = GROUND_WEIGHT
    return cross_entropy(logits, target.to(logits.device), weight=balance)


def sample_windows(classes: np.ndarray, rng: np.random.Generator) -> list[tuple[slice, slice]]:
    """Draw a square of `CROP` pixels around any pixel of a thing in each map of classes.

    Four times as many images in the time of whole ones, and half as much ground.
    """
    windows = []
    for shown in classes:
        spot = rng.choice(np.argwhere(shown))
        corner = np.clip(spot - rng.integers(CROP, size=2), 0, np.array(shown.shape) - CROP)
        windows.append(tuple(slice(start, start + CROP) for start in corner))
    return windows


def _create_classifier() -> ViT:
    model = create_toyvit()
    model.classifier = torch.nn.Linear(model.backbone.num_features, len(ATTRIBUTES))
    return model


TASKS: dict[str, tuple[Callable[[], ImageModel], Callable[..., torch.Tensor]]] = {
    "toyvit": (_create_classifier, attribute_loss),
    "toydir": (create_toydir, ranking_loss),
    "toysegnet": (create_toysegnet, pixel_loss),
}


# Validation


@torch.inference_mode()
def validate(model: ImageModel, known: Scenes, unknown: Scenes) -> dict[str, float]:
    """Return the mAP of unknown scenes, each asking for those that share a kind of object.

    Before, a model with whitening learns it anew from some of the known scenes. Of a SegNet,
    also the mean IoU over the classes of pixels.
    """
    model.eval()
    if isinstance(model, DeepImageRetrieval):
        model.whitening.fit(_encode(model, known.pool.scenes[:WHITENING_SCENES], model.describe))
    vectors = _encode(model, unknown.pool.scenes, model.pool)
    found = {"map_kinds": measure_map(normalize(vectors, dim=1).cpu().numpy(), unknown.kinds)}
    if isinstance(model, SegNet):
        found["iou_classes"] = measure_iou(model, unknown)
    return found


def _encode(model: ImageModel, images: np.ndarray, pool) -> torch.Tensor:
    device = next(model.parameters()).device
    parts = (images[i : i + 100] / np.float32(255) for i in range(0, len(images), 100))
    return torch.cat([pool(model.compute(_to_input(part).to(device))) for part in parts])


def measure_map(vectors: np.ndarray, kinds: np.ndarray) -> float:
    """Return the mAP of scenes, each against all others, by what `kinds` of thing they share.

    Of (n, d) unit vectors and (n, combinations) bool.
    """
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -np.inf)
    ranked = np.argsort(-similarities, axis=1, kind="stable")[:, :-1]
    shared = kinds.astype(np.float32) @ kinds.T.astype(np.float32)
    judged = judge_ranking(ranked, shared > 0, exclude=np.arange(len(vectors)))
    return round(float(np.nanmean(average_precision(judged, divisor="relevant"))), 4)


def measure_iou(model: SegNet, scenes: Scenes, *, batch: int = 50) -> float:
    """Return the mean IoU over the classes of pixels, each over all scenes together."""
    classes = model.classifier.out_channels
    counts = np.zeros((classes, classes), np.int64)
    for i in range(0, len(scenes.kinds), batch):
        rows = np.arange(i, min(i + batch, len(scenes.kinds)))
        pixels = _to_input(scenes.pool.scenes[rows] / np.float32(255))
        found = model.segment(pixels.to(next(model.parameters()).device)).argmax(1).cpu().numpy()
        pairs = classes * class_pixels(scenes, rows) + found
        counts += np.bincount(pairs.ravel(), minlength=classes**2).reshape(counts.shape)
    both = counts.diagonal()
    return round(float(np.mean(both / (counts.sum(0) + counts.sum(1) - both).clip(min=1))), 4)
