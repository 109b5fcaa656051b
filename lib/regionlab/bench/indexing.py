"""How fast a folder becomes an index, and how fast the Combiner trains on features kept."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from regionlab.compose.training import CombinerRecipe, EncodedTriplets, create_combiner, take_epoch
from regionlab.data.collection import load_folder
from regionlab.data.images import read_pil_image
from regionlab.index.build import build_index
from regionlab.models.encoder import Encoder
from regionlab.models.pipeline import Preprocessing, SideBySide
from regionlab.models.registry import load_encoder
from regionlab.runs.record import describe_device
from regionlab.util.progress import summarise_measure, time_interleaved

# As most images in COCO: width and height in pixels, and detail for files of 165 kB on average.
IMAGE_SIZE = (640, 480)
DETAIL = 32  # standard deviation, in levels of 256
S3_BATCH = 16
TRIPLETS = 18_000  # FashionIQ's training set
ENCODER = "ViT-B-32/untrained"  # 512 wide


def measure_indexing(
    encoder: str = "ViT-B-32/untrained",
    *,
    count: int = 1000,
    rounds: int = 3,
    batch_size: int = 64,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure images per second from JPEG files to a finished index.

    `count` images of `write_images`; all sides in turn, round by round, after one that does
    not count.

    Returns
    -------
    dict
        Ratios of rates within a round, above 1 where indexing is faster: `ratio_vs_forward` (the
        forward pass, same batches and precision, pixels ready on its device),
        `ratio_vs_split_forward` (the same in parts side by side, as indexing computes it),
        `ratio_vs_s3` (batches of 16 in fp32, one file after another); `images_per_second` of
        the four, `cosine_worst` of the vectors to those of S3's way, and the setting.
    """
    ours, in_fp32 = load_encoder(encoder), load_encoder(encoder, precision="fp32")
    with tempfile.TemporaryDirectory() as temporary:
        collection = load_folder(write_images(Path(temporary) / "pictures", count, seed))
        paths = [collection.root / path for path in collection.images["path"]]
        pixels = _prepare(ours, paths).split(batch_size)
        target = Path(temporary) / "index"
        sides = {
            "index": lambda: (
                build_index(collection, ours, target, batch_size=batch_size, fresh=True).vectors
            ),
            "forward": lambda: [ours.encode_pixels(batch) for batch in pixels],
            "split_forward": lambda: _encode_split(ours, pixels),
            "s3": lambda: embed_as_s3(in_fp32, paths),
        }
        vectors = {name: np.array(sides[name]()) for name in ("index", "s3")}  # warms up too
        times = time_interleaved(sides, rounds)
        file_bytes = statistics.mean(path.stat().st_size for path in paths)
    others = ("forward", "split_forward", "s3")
    ratios = {f"ratio_vs_{name}": np.divide(times[name], times["index"]) for name in others}
    return {name: summarise_measure(ratio) for name, ratio in ratios.items()} | {
        "images_per_second": {
            name: summarise_measure(count / np.array(seconds)) for name, seconds in times.items()
        },
        "cosine_worst": round(float((vectors["index"] * vectors["s3"]).sum(1).min()), 5),
        "encoder": encoder,
        "precision": ours.precision,
        "batch_size": batch_size,
        "images": count,
        "image_size": list(IMAGE_SIZE),
        "mean_file_bytes": round(file_bytes),
        "device": describe_device(),
        "threads": torch.get_num_threads(),
    }


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Write JPEGs of quality 90 with the size and the detail of photographs; return the folder.

    Toybox scenes of COCO's usual size, under noise whose amplitude falls with the frequency
    (Field 1987); colours are not subsampled.
    """
    from toybox.render import render_scene
    from toybox.world import sample_scene, scene_rng

    folder.mkdir(parents=True)
    for number in range(count):
        rng = scene_rng(seed, "test", number)
        image, _ = render_scene(sample_scene(rng), rng)
        scene = Image.fromarray(image).resize(IMAGE_SIZE, Image.Resampling.BICUBIC)
        pixels = np.asarray(scene) + _make_detail(rng)[..., None]
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{number:06d}.jpg", quality=90, subsampling=0)
    return folder


def _make_detail(rng: np.random.Generator) -> np.ndarray:
    width, height = IMAGE_SIZE
    noise = np.fft.rfft2(rng.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    detail = np.fft.irfft2(noise / frequency, (height, width))
    return detail * (DETAIL / detail.std())


def embed_as_s3(encoder: Encoder, paths: Sequence[Path]) -> np.ndarray:
    """Embed images as S3's `index_images.py` is described to: read 16, embed them, go on."""
    vectors = []
    for start in range(0, len(paths), S3_BATCH):
        batch = [_read_pixels(encoder, path) for path in paths[start : start + S3_BATCH]]
        with torch.no_grad():
            features = encoder.model.encode_image(torch.stack(batch).to(encoder.device))
        vectors.append((features / features.norm(dim=-1, keepdim=True)).cpu().numpy())
    return np.vstack(vectors)


def _prepare(encoder: Encoder, paths: Sequence[Path]) -> torch.Tensor:
    """Return all images as the model takes them, on its device."""
    steps = Preprocessing(encoder.preprocess, encoder.device, encoder.dtype)
    shaped = [steps.shape(read_pil_image(path)[0]) for path in paths]
    return steps.stack(shaped).to(encoder.device, encoder.dtype)


def _encode_split(encoder: Encoder, batches: Sequence[torch.Tensor]) -> None:
    with closing(SideBySide(encoder.device)) as model:
        for batch in batches:
            model.map(encoder.encode_pixels, batch)


def _read_pixels(encoder: Encoder, path: Path) -> torch.Tensor:
    with Image.open(path) as picture:
        return encoder.preprocess(picture.convert("RGB"))


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
    """Measure training the Combiner of S4's size on random features of an encoder's width.

    The encoder is timed on `pictures` images and as many texts in each round.

    Returns
    -------
    dict
        `seconds_per_epoch`, and `ratio_features_once`: how many times as long an epoch would
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
