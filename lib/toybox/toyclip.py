"""Train toyclip: open_clip's CLIP from random weights on Toybox's training scenes.

Two contrastive losses share one batch. Scenes against their captions (CLIP, Radford et al.
2021, symmetric cross-entropy); and things by themselves (erased, cropped, blurred around)
against the names of all combinations, as a region would be shown to CLIP and asked for.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from regionlab.models.clip import create_toyclip, encode_tokens, fast_attention
from regionlab.models.training import descend, run_steps
from regionlab.models.weights import TOYBOX
from toybox.pool import CACHE, Pool, ToyRecipe, open_pools, sample_rows
from toybox.world import COMBINATIONS, SEEN, Thing, phrase_thing

PHRASES = 12  # wordings kept of each combination's name


class Batches:
    """Random batches of a pool; which ones depends on the seed and the step alone."""

    def __init__(self, pool: Pool, tokenizer, preprocess, recipe, device):
        self.pool, self.recipe, self.device = pool, recipe, device
        normalize = preprocess.transforms[-1]
        self.mean, self.std = (
            torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (normalize.mean, normalize.std)
        )
        self.captions = tokenizer([c for five in pool.captions for c in five]).to(torch.int16)
        self.captions = self.captions.view(len(pool.captions), 5, -1)
        self.phrases = _tokenize_names(tokenizer, recipe.seed)
        self.row_of = {COMBINATIONS.index(c): row for row, c in enumerate(SEEN)}  # names' rows

    def draw(self, step: int) -> dict[str, torch.Tensor]:
        """Return the batch of one step, as tensors on the device."""
        pool, recipe = self.pool, self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        rows = sample_rows(rng, len(pool.scenes), recipe.batch)
        objects = sample_rows(rng, len(pool.objects), recipe.object_batch)
        wordings = rng.integers(PHRASES, size=len(SEEN))
        captions = rng.integers(5, size=len(rows))
        batch = {
            "scenes": self.normalize(pool.scenes[rows], rng),
            "objects": self.normalize(pool.objects[objects], rng),
            "captions": self.captions[rows, captions].long(),
            "names": self.phrases[np.arange(len(SEEN)), wordings].long(),
            "object_names": torch.tensor(
                [self.row_of[int(number)] for number in pool.object_names[objects]]
            ),
        }
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def normalize(self, images: np.ndarray, rng=None) -> torch.Tensor:
        """Turn (b, side, side, 3) uint8 into model input; with `rng`, in varied brightness."""
        x = torch.from_numpy(np.array(images)).to(self.device)
        x = x.permute(0, 3, 1, 2).float() / 255
        if rng is not None:
            gain = 1 + self.recipe.jitter * rng.uniform(-1, 1, (len(x), 3, 1, 1)).astype(np.float32)
            x = (x * torch.from_numpy(gain).to(self.device)).clamp(0, 1)
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _tokenize_names(tokenizer, seed: int) -> torch.Tensor:
    """Tokens of some wordings of each seen combination, (combinations, wordings, context)."""
    rng = np.random.default_rng(seed)
    texts = [
        phrase_thing(Thing(*combination, "medium", 0, 0, 1, 0), rng, article=bool(rng.integers(2)))
        for combination in SEEN
        for _ in range(PHRASES)
    ]
    return tokenizer(texts).to(torch.int16).view(len(SEEN), PHRASES, -1)


@dataclass(frozen=True)
class Recipe(ToyRecipe):
    """Everything that decides what the weights become."""

    batch: int = 160
    object_batch: int = 96
    name_weight: float = 1.0
    jitter: float = 0.12


def train(
    recipe: Recipe, *, cache: Path = CACHE, weights: Path = TOYBOX / "toyclip.safetensors"
) -> dict:
    """Train toyclip, or go on where an earlier run was cut off, and write its weights.

    Rendered images and the checkpoint go to `cache`. Returns as `run_steps`; validation is
    text-to-image hit@1 on up to 500 scenes.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, preprocess, tokenizer = create_toyclip()
    model.to(device, memory_format=torch.channels_last)  # convolutions in bf16 are 10 times faster
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    known, unknown = open_pools(cache, recipe, side)
    batches = Batches(known, tokenizer, preprocess, recipe, device)

    return run_steps(
        model, recipe, checkpoint=cache / "checkpoints" / "toyclip.pt", weights=weights,
        take_step=lambda optimizer, step: _train_step(model, optimizer, batches.draw(step), recipe),
        validate=lambda: {"hit@1": validate(model, unknown, tokenizer, batches)},
    )  # fmt: skip


# One step


def _train_step(model, optimizer, batch: dict, recipe: Recipe) -> dict[str, float]:
    model.train()
    pixels = torch.cat([batch["scenes"], batch["objects"]])  # one batch, so one batch norm
    with fast_attention(), torch.autocast(pixels.device.type, dtype=torch.bfloat16):
        scenes, objects = model.visual(pixels).split([len(batch["scenes"]), len(batch["objects"])])
        captions = encode_tokens(model, batch["captions"])
        names = encode_tokens(model, batch["names"])
    scale = model.logit_scale.exp()
    losses = {
        "captions": _clip_loss(scenes, captions, scale),
        "objects": cross_entropy(scale * _unit(objects) @ _unit(names).T, batch["object_names"]),
    }
    total = losses["captions"] + recipe.name_weight * losses["objects"]
    descend(model, optimizer, total)
    with torch.no_grad():
        model.logit_scale.clamp_(0, math.log(100))
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return normalize(vectors.float(), dim=-1)


def _clip_loss(images, texts, scale) -> torch.Tensor:
    logits = scale * _unit(images) @ _unit(texts).T
    target = torch.arange(len(logits), device=logits.device)
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2


# Validation


@torch.inference_mode()
def validate(model, pool: Pool, tokenizer, batches: Batches) -> float:
    """Return text-to-image hit@1 on a pool: one caption each, all its scenes as gallery."""
    model.eval()
    parts = (pool.scenes[i : i + 100] for i in range(0, len(pool.scenes), 100))
    images = torch.cat([_unit(model.encode_image(batches.normalize(part))) for part in parts])
    rng = np.random.default_rng(0)
    texts = [five[int(rng.integers(5))] for five in pool.captions]
    texts = _unit(encode_tokens(model, tokenizer(texts).to(images.device)))
    best = (texts @ images.T).argmax(1).cpu()
    return float((best == torch.arange(len(best))).float().mean())
