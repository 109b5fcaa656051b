"""All regions of an image: SAM asked on a grid of points, and its answers sifted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from regionlab import torchvision_cpu  # noqa: F401 - makes segment_anything importable on a CPU

from segment_anything import SamAutomaticMaskGenerator, SamPredictor  # isort: skip


@dataclass(frozen=True)
class Everything:
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


def find_everything(predictor: SamPredictor, image: np.ndarray, settings: Everything) -> list[dict]:
    """Return the records of `SamAutomaticMaskGenerator` that the settings leave, best first."""
    options = asdict(settings)
    smallest, most = options.pop("min_area"), options.pop("max_regions")
    generator = SamAutomaticMaskGenerator(predictor.model, **options)
    generator.predictor = predictor  # which may know the image already
    records = [record for record in generator.generate(image) if record["area"] >= smallest]
    return rank_records(records)[:most]


def rank_records(records: Sequence[dict]) -> list[dict]:
    """Return SAM's records with the best predicted IoU first, and each mask once.

    Parameters
    ----------
    records
        Of `SamAutomaticMaskGenerator`; `segmentation` is (H, W) bool.
    """
    ranked = sorted(records, key=lambda record: record["predicted_iou"], reverse=True)
    chosen: dict[bytes, dict] = {}
    for record in ranked:
        chosen.setdefault(np.packbits(record["segmentation"]).tobytes(), record)
    return list(chosen.values())
