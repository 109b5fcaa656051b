"""Pictures that do not fit into memory: each is told by its name, and the work goes on."""

import asyncio
import gc
import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from regionlab.data.collection import load_folder
from regionlab.data.images import ImageError, read_image
from regionlab.data.masks import remove_small_components
from regionlab.data.prompts import Box
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.models.segmenter import MaskGeneratorConfig, Segmenter
from regionlab.regions import encodings as regions_module
from regionlab.regions.encodings import encode_regions
from regionlab.regions.grounding import find_words
from regionlab.regions.patch_tokens import mask_to_grid
from regionlab.service.app import _tell_memory, create_app
from regionlab.util.errors import is_out_of_memory, named_memory_error

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=2
)
TORCH = (
    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 288000000 bytes. Error code 12 (Cannot allocate memory)\nframe #0"
)
ERRORS = [
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(float)),
    RuntimeError(TORCH),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("std::bad_alloc"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
]
LARGE = 40  # wide: what the tests take for too large


@pytest.fixture
def folder(tmp_path):
    for number, width in enumerate([30, LARGE, 31]):
        pixels = np.random.default_rng(number).integers(0, 256, (24, width, 3), dtype=np.uint8)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path


def fail_at_large(monkeypatch, where, name, error):
    """Let a function raise an error where it is given a picture that is `LARGE`."""
    original = getattr(where, name)

    def fail(*arguments, **options):
        for one in arguments:
            size = getattr(one, "size", 0) if isinstance(one, Image.Image) else np.shape(one)
            if LARGE in np.atleast_1d(size):
                raise error
        return original(*arguments, **options)

    monkeypatch.setattr(where, name, fail)


# What counts


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:20])
def test_every_way_to_say_out_of_memory_is_understood(error):
    assert is_out_of_memory(error)
    with pytest.raises(MemoryError, match=r"^out of memory: a picture \(.+\)$") as told:
        with named_memory_error("a picture"):
            raise error
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not agree"), ValueError("out of memory")]
)
def test_other_errors_stay_what_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, named_memory_error("a picture"):
        raise error
    assert raised.value is error


def test_the_innermost_name_is_told():
    with pytest.raises(MemoryError, match=r"^out of memory: the inner \(MemoryError\)$"):
        with named_memory_error("the outer"), named_memory_error("the inner"):
            raise MemoryError


def test_the_error_does_not_keep_what_did_not_fit():
    kept = []

    def work():
        large = np.zeros(10)
        kept.append(weakref.ref(large))
        raise RuntimeError(TORCH)

    with pytest.raises(MemoryError) as told, named_memory_error("a picture"):
        work()
    gc.collect()
    assert kept[0]() is None, told


# The way of a picture


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error)[:20])
def test_a_picture_too_large_to_segment_goes_to_the_failures(
    folder, encoder, segmenter, monkeypatch, error
):
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    fail_at_large(monkeypatch, segmenter.predictor, "set_image", error)
    with pytest.warns(UserWarning, match="1 images have no regions, the first: 1.png: out of mem"):
        index = add_regions(index, segmenter, encoder, everything=FEW)
    assert index.region_failures["path"].tolist() == ["1.png"]
    reason = index.region_failures["reason"][0]
    assert reason.startswith("out of memory: a picture of 40 x 24 pixels, 0.00096 megapixels (")
    assert set(index.regions["row"]) == {0, 2}


def test_a_picture_whose_regions_are_too_large_to_encode_has_none(
    folder, encoder, segmenter, monkeypatch
):
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    fail_at_large(monkeypatch, regions_module, "erase_background", MemoryError())
    with pytest.warns(UserWarning, match="1.png: out of memory"):
        index = add_regions(index, segmenter, encoder, encoding="erase", everything=FEW)
    assert set(index.regions["row"]) == {0, 2}
    assert len(index.region_vectors) == len(index.regions)


def test_another_fault_of_the_segmenter_still_stops_the_work(
    folder, encoder, segmenter, monkeypatch
):
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    fail_at_large(monkeypatch, segmenter.predictor, "set_image", RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="^a bug$"):
        add_regions(index, segmenter, encoder, everything=FEW)


@pytest.mark.parametrize("error", ERRORS[:3], ids=lambda error: str(error)[:20])
def test_a_picture_too_large_to_embed_goes_to_the_failures(folder, encoder, monkeypatch, error):
    from regionlab.models.pipeline import Preprocessing

    original = Preprocessing.shape

    def shape(self, picture):
        if picture.width == LARGE:
            raise error
        return original(self, picture)

    monkeypatch.setattr(Preprocessing, "shape", shape)
    with pytest.warns(UserWarning, match="1 files are not in the index, the first: .*1.png: out"):
        index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    assert index.images["path"].tolist() == ["0.png", "2.png"]
    assert open_index(folder / "index").failures["reason"].tolist() == [
        "out of memory: too large for what is left"
    ]


def test_another_fault_of_preprocessing_still_stops_the_work(folder, encoder, monkeypatch):
    from regionlab.models.pipeline import Preprocessing

    def shape(self, picture):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Preprocessing, "shape", shape)
    with pytest.raises(RuntimeError, match="^a bug$"):
        build_index(load_folder(folder / "photos"), encoder, folder / "index")


def test_a_picture_too_large_to_decode_is_not_called_damaged(folder, monkeypatch):
    def load(self):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", load)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(ImageError, match=r"1.png: out of memory: too large for what is left$"):
        read_image(folder / "photos" / "1.png")


def test_words_and_prompts_name_the_size_of_what_does_not_fit(encoder, segmenter, monkeypatch):
    image = np.zeros((24, LARGE, 3), np.uint8)
    fail_at_large(monkeypatch, segmenter.predictor, "set_image", RuntimeError(TORCH))
    for ask in (
        lambda: segmenter.set_image(image),
        lambda: segmenter.segment(image, Box(1, 2, 9, 9)),
        lambda: find_words(image, "a cup", segmenter, encoder),
    ):
        with pytest.raises(MemoryError, match="of 40 x 24 pixels, .* can't allocate memory"):
            ask()
    assert isinstance(segmenter, Segmenter)
    assert segmenter.segment(image[:, :30], Box(1, 2, 9, 9)).area > 0  # the next one is answered


def test_the_service_tells_of_too_little_memory_without_its_inside(folder, encoder, segmenter):
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    app = create_app(index, encoder, segmenter)
    assert app.exception_handlers[MemoryError] is _tell_memory
    answer = asyncio.run(_tell_memory(None, MemoryError("out of memory: at /home/me")))
    assert answer.status_code == 503
    told = json.loads(answer.body)["detail"]
    assert "send a smaller image" in told
    assert "/home" not in told
    app.state.engine.close()


# In pieces as in one


def test_masks_may_come_one_by_one(encoder):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    masks = [rng.random((20, 30)) < 0.5 for _ in range(5)]
    for encoding in ("crop_erase", "tokens"):
        expected = encode_regions(encoder, image, masks, encoding=encoding)
        found = encode_regions(encoder, image, iter(masks), encoding=encoding)
        np.testing.assert_array_equal(found, expected)
        assert encode_regions(encoder, image, iter([]), encoding=encoding).shape == (0, encoder.dim)


def test_islands_are_counted_in_blocks_as_in_one(monkeypatch):
    rng = np.random.default_rng(0)
    for share in (0.01, 0.1, 0.5):
        mask = rng.random((40, 30)) < 0.4
        expected = remove_small_components(mask, share)
        for pixels in (1, 100, 333):
            with monkeypatch.context() as patch:
                patch.setattr("regionlab.data.masks.PIXELS", pixels)
                np.testing.assert_array_equal(remove_small_components(mask, share), expected)


def test_a_mask_covers_a_grid_in_blocks_as_in_one(monkeypatch):
    mask = np.random.default_rng(0).random((40, 33)) < 0.4
    expected = mask_to_grid(mask, (7, 5))
    for pixels in (1, 100, 333):
        monkeypatch.setattr("regionlab.regions.patch_tokens.PIXELS", pixels)
        np.testing.assert_allclose(mask_to_grid(mask, (7, 5)), expected, atol=1e-12)
