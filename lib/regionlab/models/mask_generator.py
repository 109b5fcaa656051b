"""All regions of an image: SAM asked on a grid of points, and its answers sifted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from regionlab.data.masks import MaskBits
from regionlab.models import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU

from segment_anything import SamPredictor  # isort: skip
from segment_anything.utils.amg import (  # isort: skip
    batched_mask_to_box,
    build_point_grid,
    calculate_stability_score,
)
from torchvision.ops.boxes import batched_nms  # isort: skip


PIXELS = 2**26  # of logits that are in memory at a time; three masks of a picture at the least


@dataclass(frozen=True)
class MaskGeneratorConfig:
    """How to find all regions of an image: SAM asked on a grid of points.

    The defaults are SAM's own, which are made for photographs. Its further runs on crops of
    the image are left out: they encode the image many times over.

    Attributes
    ----------
    points_per_side
        The grid has the square of it.
    points_per_batch
        How many are asked at once: memory against speed.
    pred_iou_thresh, stability_score_thresh
        Masks of lower predicted quality or stability go; both in [0, 1].
    stability_score_offset
        How far the threshold is moved, in logits, to measure stability.
    box_nms_thresh
        Of two masks whose boxes overlap more than this (IoU) the better one stays.
    min_area
        Smaller masks go, in pixels.
    max_regions
        How many stay at most, those of the best predicted quality; None keeps all.

    Raises
    ------
    ValueError
        If a value is out of its range; names it.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    min_area: int = 1
    max_regions: int | None = None

    def __post_init__(self):
        counts = ["points_per_side", "points_per_batch", "min_area"]
        for name in counts if self.max_regions is None else [*counts, "max_regions"]:
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 < self.stability_score_offset < float("inf"):
            raise ValueError(
                f"stability_score_offset must be above 0, not {self.stability_score_offset}"
            )


@torch.no_grad()
def generate_masks(
    predictor: SamPredictor, image: np.ndarray, settings: MaskGeneratorConfig
) -> list[dict]:
    """Return the records of `SamAutomaticMaskGenerator` that the settings leave, best first.

    The very same masks and numbers, in about two thirds of the time: masks of low predicted
    quality go before they are enlarged and not after. Memory holds `PIXELS` of logits, and the
    bits of the masks found so far.

    Returns
    -------
    list of dict
        `segmentation` as `MaskBits`, `area` in pixels, `predicted_iou`, `stability_score` and
        `point_coords`, [[x, y]] of the point of the grid.
    """
    predictor.set_image(image)
    height, width = image.shape[:2]
    points = build_point_grid(settings.points_per_side) * (width, height)
    parts = [
        _ask(predictor, points[start : start + settings.points_per_batch], settings)
        for start in range(0, len(points), settings.points_per_batch)
    ]
    masks = [mask for part in parts for mask in part.pop("masks")]
    found = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    one_class = torch.zeros(len(masks))
    kept = batched_nms(found["box"], found["quality"], one_class, settings.box_nms_thresh)
    quality, stability, xy = (found[key].cpu().numpy() for key in ("quality", "stability", "xy"))
    records = []
    for i in kept.tolist():
        record = {"segmentation": masks[i], "area": masks[i].area}
        record |= {"predicted_iou": quality[i].item(), "stability_score": stability[i].item()}
        records.append(record | {"point_coords": [xy[i].tolist()]})
    large = [record for record in records if record["area"] >= settings.min_area]
    return rank_records(large)[: settings.max_regions]


def _ask(predictor: SamPredictor, points: np.ndarray, settings: MaskGeneratorConfig) -> dict:
    """Return three masks of each point, those that pass the thresholds."""
    low, quality = _decode(predictor, points)
    xy = torch.as_tensor(points).repeat_interleave(low.shape[1], 0)
    low, quality = low.flatten(0, 1), quality.flatten(0, 1)
    good = quality > settings.pred_iou_thresh if settings.pred_iou_thresh else quality == quality
    threes = max(1, PIXELS // (3 * math.prod(predictor.original_size)))
    sifted = [_sift(predictor, part, settings) for part in low[good].split(3 * threes)]
    masks, box, stability = (list(part) for part in zip(*sifted, strict=True))
    stability = torch.cat(stability)
    stable = stability >= settings.stability_score_thresh
    return {
        "masks": [mask for part in masks for mask in part],
        "box": torch.cat(box).float(),
        "quality": quality[good][stable],
        "stability": stability[stable],
        "xy": xy[good.cpu()][stable.cpu()],
    }


def _sift(
    predictor: SamPredictor, low: torch.Tensor, settings: MaskGeneratorConfig
) -> tuple[list[MaskBits], torch.Tensor, torch.Tensor]:
    """Return the stable masks of logits (k, g, g), their boxes, and the stability of all k."""
    threshold, logits = predictor.model.mask_threshold, _enlarge(predictor, low)
    found, boxes, stability = [], [], []
    # What is made of the logits may take as much as these again.
    for part in logits.split(max(1, PIXELS // (4 * math.prod(predictor.original_size)))):
        score = calculate_stability_score(part, threshold, settings.stability_score_offset)
        masks = (part > threshold)[score >= settings.stability_score_thresh]
        found += map(MaskBits, masks.cpu().numpy())
        boxes.append(batched_mask_to_box(masks))
        stability.append(score)
    return found, torch.cat(boxes), torch.cat(stability)


def _decode(predictor: SamPredictor, points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (n, 3, g, g) and predicted qualities (n, 3) of points, each asked alone."""
    model = predictor.model
    coordinates = predictor.transform.apply_coords(points, predictor.original_size)
    coordinates = torch.as_tensor(coordinates, device=predictor.device)[:, None]
    inside = torch.ones(coordinates.shape[:2], dtype=torch.int, device=predictor.device)
    sparse, dense = model.prompt_encoder(points=(coordinates, inside), boxes=None, masks=None)
    return model.mask_decoder(
        image_embeddings=predictor.features,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )


def _enlarge(predictor: SamPredictor, low: torch.Tensor) -> torch.Tensor:
    """Enlarge logits (k, g, g) to the image's size.

    In threes, as SAM's generator does: for another number of channels torch takes another way,
    with other last digits.
    """
    padded = functional.pad(low, (0, 0, 0, 0, 0, -len(low) % 3))
    threes = padded.reshape(len(padded) // 3, 3, *low.shape[1:])
    sizes = predictor.input_size, predictor.original_size
    return predictor.model.postprocess_masks(threes, *sizes).flatten(0, 1)[: len(low)]


def rank_records(records: Sequence[dict]) -> list[dict]:
    """Return SAM's records with the best predicted IoU first, and each mask once.

    Parameters
    ----------
    records
        Of `SamAutomaticMaskGenerator`; `segmentation` is (H, W) bool, or its `MaskBits`.
    """
    ranked = sorted(records, key=lambda record: record["predicted_iou"], reverse=True)
    chosen: dict[MaskBits, dict] = {}
    for record in ranked:
        mask = record["segmentation"]
        chosen.setdefault(mask if isinstance(mask, MaskBits) else MaskBits(mask), record)
    return list(chosen.values())
