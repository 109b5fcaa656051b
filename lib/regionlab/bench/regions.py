"""How fast regions are built, beside SAM's own generator with a forward pass for each region."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from regionlab.data.registry import load_collection
from regionlab.index.build import add_regions, build_index
from regionlab.models.encoder import Encoder
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.sam import SamSegmenter, create_sams_own_generator
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.regions.encodings import encode_regions
from regionlab.runs.record import describe_device
from regionlab.util.progress import summarise_measure, time_interleaved

SIZE = (480, 640)  # height and width in pixels of most images in COCO
KEPT = 0.3  # share of an untrained SAM's masks that pass: its qualities mean nothing


def measure_regions_build(
    *, images: int = 48, rounds: int = 3, photos: int = 2, points_per_side: int = 32
) -> dict[str, Any]:
    """Measure images a second of `add_regions`, and of SAM's own way, image by image.

    Both find the same masks of the same images and encode them by `crop_erase`: on Toybox by
    toysam and toyclip, and on `photos` images of noise in the size of photographs by an untrained
    vit_b and ViT-B-32, once.

    Returns
    -------
    dict
        `images_per_second` of "toysam" and "vit_b", each "regionlab" and "sam"; and
        `ratio_vs_sam_toysam` and `ratio_vs_sam_vit_b`.
    """
    collection = load_collection("toybox", split="val")
    collection = collection.subset(list(collection.images["image_id"][:images]))
    encoder, segmenter = load_encoder("toyclip"), load_segmenter("toysam")
    found = {"toysam": _measure(collection, segmenter, encoder, segmenter.everything, rounds)}
    segmenter = load_segmenter("vit_b/untrained")
    encoder = load_encoder("ViT-B-32/untrained")
    with TemporaryDirectory() as folder:
        collection = load_collection("folder", _write_photos(Path(folder) / "photos", photos))
        image = collection.read(collection.images["image_id"][0])
        settings = _choose_settings(segmenter, image, points_per_side)
        found["vit_b"] = _measure(collection, segmenter, encoder, settings, 1)
    return {
        **{f"ratio_vs_sam_{name}": of.pop("ratio") for name, of in found.items()},
        "images_per_second": found,
        "images": {"toysam": images, "vit_b": photos},
        "points_vit_b": points_per_side**2,
        "share_of_masks_kept_vit_b": KEPT,
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }


def _measure(
    collection,
    segmenter: SamSegmenter,
    encoder: Encoder,
    settings: MaskGeneratorConfig,
    rounds: int,
) -> dict[str, Any]:
    """Return images a second of both ways, and how many times faster ours is."""
    with TemporaryDirectory() as folder:
        index = build_index(collection, encoder, Path(folder) / "indexes" / "bench")
        images = [collection.read(image_id) for image_id in collection.images["image_id"]]
        sides: dict[str, Callable[[], object]] = {
            "regionlab": lambda: add_regions(
                index, segmenter, encoder, everything=settings, fresh=True
            ),
            "sam": lambda: build_by_sam(images, segmenter, encoder, settings),
        }
        times = time_interleaved(sides, rounds)
    rates = {name: [len(images) / each for each in seconds] for name, seconds in times.items()}
    ratios = [a / b for a, b in zip(rates["regionlab"], rates["sam"], strict=True)]
    return {name: summarise_measure(each) for name, each in rates.items()} | {
        "ratio": summarise_measure(ratios)
    }


def build_by_sam(
    images: Iterable[np.ndarray],
    segmenter: SamSegmenter,
    encoder: Encoder,
    settings: MaskGeneratorConfig,
) -> list[np.ndarray]:
    """Return (r, d) vectors of each image's regions, masks by SAM's generator, crops one by one."""
    generator = create_sams_own_generator(segmenter, settings)
    found = []
    for image in images:
        masks = [record["segmentation"] for record in generator.generate(image)]
        vectors = [encode_regions(encoder, image, [mask]) for mask in masks if mask.any()]
        found.append(np.concatenate([np.empty((0, encoder.dim), np.float32), *vectors]))
    return found


def _write_photos(folder: Path, count: int) -> Path:
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        blocks = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = np.kron(blocks, np.ones((SIZE[0] // 12, SIZE[1] // 16, 1), np.uint8))
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def _choose_settings(
    segmenter: SamSegmenter, image: np.ndarray, points_per_side: int
) -> MaskGeneratorConfig:
    """Return settings by which the share `KEPT` of an untrained SAM's masks passes."""
    every = MaskGeneratorConfig(
        points_per_side=5, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1
    )
    qualities = [region.quality for region in segmenter.segment_everything(image, settings=every)]
    return MaskGeneratorConfig(
        points_per_side=points_per_side,
        pred_iou_thresh=max(float(np.quantile(qualities, 1 - KEPT)), 1e-6),
        stability_score_thresh=0.5,
        stability_score_offset=0.01,  # the logits of random weights are small
        max_regions=32,
    )
