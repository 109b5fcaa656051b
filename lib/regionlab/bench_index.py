"""How fast a folder becomes an index: against the model alone, and against the way of S3."""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from regionlab.datasets import load_folder
from regionlab.embedding import Encoder
from regionlab.encoders import load_encoder
from regionlab.index import build_index
from regionlab.provenance import describe_device
from regionlab.timing import summarise_measure, time_in_turn
from regionlab.toybox.render import render_scene
from regionlab.toybox.world import sample_scene, scene_rng

PICTURE_SIZE = (640, 480)  # width and height in pixels of most pictures in COCO
S3_BATCH = 16


def measure_indexing(
    encoder: str = "ViT-B-32/untrained",
    *,
    count: int = 192,
    rounds: int = 5,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure images per second from JPEG files to a finished index.

    All sides are measured in turn, round by round, after a run that does not count. A ratio
    is one of rates, taken within a round: above 1 means that indexing is the faster side.

    Parameters
    ----------
    encoder
        As for `load_encoder`; precision "auto".
    count
        Pictures: Toybox scenes at COCO's usual size, as JPEG of quality 90.
    rounds
        How often each side is measured.
    batch_size
        Of indexing and of the model alone.
    seed
        Of the scenes.

    Returns
    -------
    dict
        `ratio_vs_forward` (the model's forward pass on tensors that are ready, same batches
        and precision), `ratio_vs_s3` (batches of 16 in fp32, one file read after another),
        `images_per_second` of the three, `min_cosine_to_fp32` of the vectors, and the setting.
        A measured value is the median, with its range over the rounds.
    """
    ours, in_fp32 = load_encoder(encoder), load_encoder(encoder, precision="fp32")
    with tempfile.TemporaryDirectory() as temporary:
        collection = load_folder(write_pictures(Path(temporary) / "pictures", count, seed))
        paths = [collection.root / path for path in collection.images["path"]]
        pixels = torch.stack([_read_pixels(ours, path) for path in paths])
        target = Path(temporary) / "index"
        sides = {
            "index": lambda: (
                build_index(collection, ours, target, batch_size=batch_size, fresh=True).vectors
            ),
            "forward": lambda: [ours.encode_pixels(part) for part in pixels.split(batch_size)],
            "s3": lambda: embed_as_s3(in_fp32, paths),
        }
        vectors = {name: np.array(sides[name]()) for name in ("index", "s3")}  # warms up too
        times = time_in_turn(sides, rounds)
        file_bytes = statistics.mean(path.stat().st_size for path in paths)
    return {
        "ratio_vs_forward": summarise_measure(np.divide(times["forward"], times["index"])),
        "ratio_vs_s3": summarise_measure(np.divide(times["s3"], times["index"])),
        "images_per_second": {
            name: summarise_measure(count / np.array(seconds)) for name, seconds in times.items()
        },
        "min_cosine_to_fp32": round(float((vectors["index"] * vectors["s3"]).sum(1).min()), 5),
        "encoder": encoder,
        "precision": ours.precision,
        "batch_size": batch_size,
        "images": count,
        "image_size": list(PICTURE_SIZE),
        "mean_file_bytes": round(file_bytes),
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }


def write_pictures(folder: Path, count: int, seed: int) -> Path:
    """Write Toybox scenes, enlarged to COCO's usual size, as JPEG; return the folder."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = scene_rng(seed, "test", number)
        image, _ = render_scene(sample_scene(rng), rng)
        picture = Image.fromarray(image).resize(PICTURE_SIZE, Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06d}.jpg", quality=90)
    return folder


def embed_as_s3(encoder: Encoder, paths: Sequence[Path]) -> np.ndarray:
    """Embed pictures as S3's `index_images.py` is described to: read 16, embed them, go on."""
    vectors = []
    for start in range(0, len(paths), S3_BATCH):
        batch = [_read_pixels(encoder, path) for path in paths[start : start + S3_BATCH]]
        with torch.no_grad():
            features = encoder.model.encode_image(torch.stack(batch).to(encoder.device))
        vectors.append((features / features.norm(dim=-1, keepdim=True)).cpu().numpy())
    return np.vstack(vectors)


def _read_pixels(encoder: Encoder, path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return encoder.preprocess(picture.convert("RGB"))
