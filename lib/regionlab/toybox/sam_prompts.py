"""Prompts for training toysam: what is meant in a scene, and how a user would say it."""

import numpy as np
import torch
from torch.nn.functional import avg_pool2d

from regionlab.simulation import draw_inside_point, jitter_box, mask_to_box
from regionlab.toybox.toysam import SIDE
from regionlab.toybox.world import SIDE as SCENE_SIDE

SCALE = SIDE / SCENE_SIDE  # from pixels of the scene to pixels of the encoder's input


def draw_targets(owners: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw what is meant: mostly a thing; at times all of the things, or the ground.

    Parameters
    ----------
    owners
        (H, W) uint8, which thing each pixel shows, from 1 on; 0 is the ground.

    Returns
    -------
    np.ndarray
        (count, H, W) bool, none of them empty.
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


def draw_prompts(masks: np.ndarray, kind: str, rng: np.random.Generator, device) -> dict:
    """Return prompts of one kind, one a mask, in coordinates of the encoder's input.

    Returns
    -------
    dict
        points, ((n, p, 2) float32, (n, p) labels) or None; boxes, (n, 4) float32 or None;
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
            [draw_inside_point(mask if label else ~mask, rng) for label in labels] for mask in masks
        ]
        xy = torch.tensor(np.array(drawn) * SCALE, dtype=torch.float32, device=device)
        points = xy, torch.tensor([labels] * len(masks), device=device)
    return {"points": points, "boxes": boxes, "logits": None}


def add_correction(prompt: dict, chosen: torch.Tensor, target: torch.Tensor) -> dict:
    """Add a click where the chosen masks are wrong, and feed their logits back.

    Parameters
    ----------
    chosen
        (n, 1, g, g) logits of the masks found so far.
    target
        (n, 1, g, g) cover of what was meant, in [0, 1].
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
