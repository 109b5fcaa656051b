"""Train toysam: segment_anything's Sam from random weights, on simulated prompts.

As in SAM's own training (Kirillov et al. 2023, appendix A): focal and dice loss 20 to 1, a
squared loss on the predicted IoU, the best of three masks for a single click, the single mask
for a box or several clicks, and a second round with a click where the first went wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from regionlab.data.masks import mask_to_box
from regionlab.models.sam import SIDE, create_toysam
from regionlab.models.training import descend, run_steps
from regionlab.models.weights import TOYBOX
from regionlab.studies.sampling import jitter_box, sample_inside_point
from toybox.pool import CACHE, Pool, ToyRecipe, open_pools, sample_rows
from toybox.world import SIDE as SCENE_SIDE

SCALE = SIDE / SCENE_SIDE  # from pixels of the scene to pixels of the encoder's input
KINDS = {"point": 0.5, "box": 0.35, "points": 0.15}  # and how often each is drawn


def focal_loss(logits: torch.Tensor, target: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Focal loss (Lin et al. 2017), (n, m): the mean over each mask's cells.

    Of (n, m, g, g) logits and (n, 1, g, g) targets in [0, 1]: soft ones, which torchvision's
    `sigmoid_focal_loss` does not know.
    """
    target = target.expand_as(logits)
    missed = (target - logits.sigmoid()).abs().pow(gamma)
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (missed * entropy).mean((2, 3))


def dice_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Dice loss with squares (Milletari et al. 2016), (n, m): zero where the cover is exact."""
    found = logits.sigmoid()
    both = (found * target).sum((2, 3))
    return 1 - 2 * both / (found.square().sum((2, 3)) + target.square().sum((2, 3)) + 1e-6)


def iou_of_logits(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """IoU of thresholded masks with thresholded targets, (n, m)."""
    found, meant = logits > 0, target > 0.5
    both, either = (found & meant).sum((2, 3)), (found | meant).sum((2, 3))
    return both / either.clamp(min=1)


def sample_targets(owners: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sample what is meant, (count, H, W) bool: mostly a thing; at times all things, or the ground.

    `owners` is (H, W) uint8, which thing each pixel shows, from 1 on; 0 is the ground.
    """
    seen = [n for n in range(1, int(owners.max()) + 1) if (owners == n).any()]
    targets = []
    for _ in range(count):
        what = rng.random()
        if what < 0.08:
            targets.append(owners == 0)
        elif what < 0.12:
            targets.append(owners > 0)
        else:
            targets.append(owners == seen[int(rng.integers(len(seen)))])
    return np.stack(targets)


def sample_prompts(masks: np.ndarray, kind: str, rng: np.random.Generator, device) -> dict:
    """Return prompts of one kind, one a mask, in coordinates of the encoder's input.

    They are points, ((n, p, 2) float32, (n, p) labels) or None; boxes, (n, 4) float32 or None; and
    logits, None: the low-resolution mask that a second round starts from.
    """
    boxes = points = None
    if kind == "box":
        size = masks.shape[1:]
        drawn = [jitter_box(mask_to_box(mask), size, rng) for mask in masks]
        boxes = torch.tensor(np.stack(drawn) * SCALE, dtype=torch.float32, device=device)
    else:
        labels = [1] if kind == "point" else [1, 1, 0]
        drawn = [
            [sample_inside_point(mask if label else ~mask, rng) for label in labels]
            for mask in masks
        ]
        xy = torch.tensor(np.array(drawn) * SCALE, dtype=torch.float32, device=device)
        points = xy, torch.tensor([labels] * len(masks), device=device)
    return {"points": points, "boxes": boxes, "logits": None}


def add_correction(prompt: dict, chosen: torch.Tensor, target: torch.Tensor) -> dict:
    """Add a click where the chosen masks, (n, 1, g, g) logits, are wrong, and feed these back.

    `target` is the cover of what was meant, (n, 1, g, g) in [0, 1].
    """
    inside = target > 0.5
    wrong = ((chosen > 0) != inside).flatten(1).float()
    wrong = torch.where(wrong.any(1, keepdim=True), wrong, inside.flatten(1).float() + 1e-6)
    spots = torch.multinomial(wrong, 1)
    grid = target.shape[-1]
    xy = torch.stack([spots % grid, spots // grid], dim=-1) + torch.rand(len(spots), 1, 2)
    labels = inside.flatten(1).gather(1, spots).long()
    points = xy.float() * (SIDE / grid), labels
    if prompt["points"] is not None:
        points = tuple(torch.cat(pair, 1) for pair in zip(prompt["points"], points, strict=True))
    return {**prompt, "points": points, "logits": chosen}


def shrink_masks(masks: np.ndarray, grid: int) -> torch.Tensor:
    """Return the cover of each cell, (n, 1, grid, grid) float32 in [0, 1]."""
    x = torch.from_numpy(masks)[:, None].float()
    return avg_pool2d(x, masks.shape[-1] // grid)


@dataclass(frozen=True)
class Recipe(ToyRecipe):
    """Everything that decides what the weights become."""

    steps: int = 5_000
    restart: int = 3_000
    batch: int = 24
    prompts: int = 4
    warmup: int = 200
    focal_weight: float = 20.0
    dice_weight: float = 1.0
    iou_weight: float = 1.0
    save_every: int = 250


def train(
    recipe: Recipe, *, cache: Path = CACHE, weights: Path = TOYBOX / "toysam.safetensors"
) -> dict:
    """Train toysam, or go on where an earlier run was cut off, and write its weights.

    Rendered scenes and the checkpoint go to `cache`. Returns as `run_steps`; validation is the
    mean IoU of boxes and of single clicks, on up to 150 scenes.
    """
    torch.manual_seed(recipe.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sam = create_toysam().to(device)
    known, unknown = open_pools(cache, recipe, SIDE)
    return run_steps(
        sam, recipe, checkpoint=cache / "checkpoints" / "toysam.pt", weights=weights,
        take_step=lambda optimizer, step: _train_step(sam, optimizer, known, recipe, step),
        validate=lambda: validate(sam, unknown),
    )  # fmt: skip


# One step: every scene gets prompts of one kind, then a click where the first masks went wrong


def _train_step(sam, optimizer, pool: Pool, recipe: Recipe, step: int) -> dict[str, float]:
    sam.train()
    rng = np.random.default_rng([recipe.seed, step])
    rows = sample_rows(rng, len(pool.scenes), recipe.batch)
    scenes = _sample_light(pool.scenes[rows], rng).to(sam.device)
    with torch.autocast(sam.device.type, dtype=torch.bfloat16):
        embeddings = sam.image_encoder(sam.preprocess(scenes)).float()
    kinds = rng.choice(list(KINDS), size=len(rows), p=list(KINDS.values()))
    totals: dict[str, list[torch.Tensor]] = {"mask": [], "iou": [], "second": []}
    for kind in sorted(set(kinds)):
        chosen = np.flatnonzero(kinds == kind)
        owners = [np.array(pool.owners[row]) for row in rows[chosen]]
        masks = np.concatenate([sample_targets(o, recipe.prompts, rng) for o in owners])
        images = embeddings[chosen].repeat_interleave(recipe.prompts, dim=0)
        prompt = sample_prompts(masks, kind, rng, sam.device)
        for name, values in _two_rounds(sam, images, masks, prompt, recipe).items():
            totals[name].append(values)
    losses = {name: torch.cat(parts).mean() for name, parts in totals.items()}
    total = losses["mask"] + losses["second"] + recipe.iou_weight * losses["iou"]
    descend(sam, optimizer, total)
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


def _sample_light(scenes: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Return scenes in varied brightness and tint, (b, 3, side, side) float32 in 0 to 255."""
    gain = 1 + 0.12 * rng.uniform(-1, 1, (len(scenes), 3, 1, 1)).astype(np.float32)
    pixels = torch.from_numpy(np.array(scenes)).permute(0, 3, 1, 2)
    return (pixels * torch.from_numpy(gain)).clamp(0, 255)


def _two_rounds(sam, images, masks, prompt: dict, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Return the losses of each prompt, and of its second round with a correction click."""
    target = shrink_masks(masks, 4 * images.shape[-1]).to(sam.device)
    first, chosen = _prompt_loss(sam, images, prompt, target, recipe)
    prompt = add_correction(prompt, chosen, target)
    second, _ = _prompt_loss(sam, images, prompt, target, recipe)
    return {"mask": first["mask"], "second": second["mask"], "iou": first["iou"] + second["iou"]}


def _prompt_loss(sam, images, prompt: dict, target, recipe: Recipe):
    """Return the losses (n,) of prompts, and the logits of the masks that SAM would choose."""
    sparse, dense = sam.prompt_encoder(prompt["points"], prompt["boxes"], prompt["logits"])
    masks, quality = decode(sam, images, sparse, dense)
    clicks = 0 if prompt["points"] is None else prompt["points"][0].shape[1]
    ambiguous = clicks == 1 and prompt["boxes"] is None
    masks, quality = (x[:, 1:] if ambiguous else x[:, :1] for x in (masks, quality))
    losses = recipe.focal_weight * focal_loss(masks, target)
    losses = losses + recipe.dice_weight * dice_loss(masks, target)
    with torch.no_grad():
        actual = iou_of_logits(masks, target)
        best = quality.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
        chosen = masks.gather(1, best)
    errors = (quality - actual).square().mean(1)
    return {"mask": losses.min(1).values, "iou": errors}, chosen


def decode(sam, images: torch.Tensor, sparse: torch.Tensor, dense: torch.Tensor):
    """Run SAM's mask decoder with an image embedding of its own for each prompt.

    `MaskDecoder.predict_masks` takes the prompts of one image; this is the same for many. Of image
    embeddings (n, c, g, g), and sparse (n, p, c) and dense (n, c, g, g) from the prompt encoder,
    it returns masks as (n, 4, 4g, 4g) logits and their predicted IoU, (n, 4).
    """
    decoder, n = sam.mask_decoder, len(images)
    tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([tokens.expand(n, -1, -1), sparse], dim=1)
    positions = sam.prompt_encoder.get_dense_pe().expand(n, -1, -1, -1)
    hidden, cells = decoder.transformer(images + dense, positions, tokens)
    fine = decoder.output_upscaling(cells.transpose(1, 2).reshape(images.shape))
    heads = decoder.output_hypernetworks_mlps
    kernels = torch.stack([head(hidden[:, 1 + i]) for i, head in enumerate(heads)], dim=1)
    masks = (kernels @ fine.flatten(2)).view(n, -1, *fine.shape[2:])
    return masks, decoder.iou_prediction_head(hidden[:, 0])


# Validation


@torch.inference_mode()
def validate(sam, pool: Pool) -> dict[str, float]:
    """Return the mean IoU of one prompt a thing of a pool's scenes, at the scene's own size."""
    sam.eval()
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"box": [], "point": []}
    for image, owners in list(zip(pool.scenes, pool.owners, strict=True))[:150]:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(sam.device)
        embedding = sam.image_encoder(sam.preprocess(pixels.float())[None])
        masks = np.stack([owners == n for n in range(1, owners.max() + 1) if (owners == n).any()])
        for kind, scores in found.items():
            prompt = sample_prompts(masks, kind, rng, sam.device)
            sparse, dense = sam.prompt_encoder(prompt["points"], prompt["boxes"], None)
            low, quality = sam.mask_decoder(
                embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense, kind == "point"
            )
            low = low[torch.arange(len(low)), quality.argmax(1)][:, None]
            full = sam.postprocess_masks(low, (SIDE, SIDE), masks.shape[1:])
            target = torch.from_numpy(masks)[:, None].float().to(sam.device)
            scores += iou_of_logits(full, target)[:, 0].tolist()
    return {f"iou_{kind}": round(float(np.mean(scores)), 4) for kind, scores in found.items()}
