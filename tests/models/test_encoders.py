"""Weights, encoders by name, and what they make of images and texts."""

import copy
import hashlib
import json
import logging
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from regionlab.compose.files import TEXT, TrainedParts
from regionlab.data.images import ImageError, read_image
from regionlab.models import clip as toyclip
from regionlab.models import weights as weights_module
from regionlab.models.registry import available_encoders, load_encoder
from regionlab.models.weights import WeightsError
from regionlab.util.files import hash_file

import open_clip  # isort: skip

CLIP_MEAN, CLIP_STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SIGLIP = {
    "url": "",
    "hf_hub": "somebody/siglip/",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "resize_mode": "squash",
}


def load(name, **options):
    return load_encoder(name, device="cpu", **({"precision": "fp32"} | options))


def make_images(count, seed=0, low=20, high=160):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(low, high, (count, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def write_images(folder, images):
    paths = [folder / f"{i:03d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture
def publish(monkeypatch):
    """Add a tag for toyclip's architecture to open_clip's table of published weights."""

    def add(tag, **entry):
        entry = {"url": "", "hf_hub": "", "mean": CLIP_MEAN, "std": CLIP_STD} | entry
        entry = {"interpolation": "bicubic", "resize_mode": "shortest"} | entry
        table = open_clip.pretrained._PRETRAINED
        monkeypatch.setitem(table, "toyclip", table.get("toyclip", {}) | {tag: entry})

    return add


@pytest.fixture
def weights_folder(monkeypatch, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(weights_module, "WEIGHTS", folder)
    return folder


def openai_url(digest):
    return f"https://openaipublic.example/clip/models/{digest}/toyclip.pt"


# Names


def test_an_unknown_architecture_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown encoder 'ViT-B/32'.*did you mean ViT-B-32"):
        load_encoder("ViT-B/32")
    with pytest.raises(ValueError, match="did you mean toyclip"):
        load_encoder("toy-clip")
    with pytest.raises(ValueError, match="did you mean ViT-L-14"):
        load_encoder("vit-l-14/openai")


def test_a_name_like_nothing_suggests_nothing_and_stays_short():
    with pytest.raises(ValueError, match="unknown encoder '@@@@'; known: toyclip, or") as caught:
        load_encoder("@@@@")
    assert len(str(caught.value)) < 300


def test_an_architecture_without_weights_lists_its_tags():
    with pytest.raises(
        ValueError, match="names no weights; say ViT-B-32/<one of: openai, .*a file"
    ):
        load_encoder("ViT-B-32")


def test_an_unknown_tag_lists_the_known_ones():
    with pytest.raises(WeightsError, match="no weights 'opnai' for ViT-B-32.*known tags: openai"):
        load_encoder("ViT-B-32/opnai")


@pytest.mark.parametrize("option", [{"device": "abacus"}, {"device": "cuda:99"}])
def test_an_unusable_device_is_named(encoder_file, option):
    with pytest.raises(ValueError, match=f"cannot use device '{option['device']}'"):
        load_encoder(f"toyclip/{encoder_file}", **option)


def test_an_unknown_precision_is_named(encoder_file):
    with pytest.raises(ValueError, match="unknown precision 'fp8'; known: auto, fp32, bf16"):
        load_encoder(f"toyclip/{encoder_file}", precision="fp8")


def test_available_encoders_are_named_as_they_are_loaded():
    names = available_encoders()
    assert names[0] == "toyclip"
    assert "ViT-B-32/openai" in names


def test_untrained_weights_are_the_same_each_time_and_leave_the_callers_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = load("toyclip/untrained"), load("toyclip/untrained")
    torch.testing.assert_close(torch.rand(2), expected)
    image = make_images(1)
    np.testing.assert_array_equal(first.encode_images(image), second.encode_images(image))
    assert first.space == second.space


@pytest.fixture
def many_heads(tmp_path, monkeypatch):
    """An architecture that takes toyclip's weights: its text tower has twice as many heads."""
    config = json.loads(toyclip.CONFIG.read_text())
    config["text_cfg"]["heads"] *= 2
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "toyclip-heads", config)
    monkeypatch.setitem(
        open_clip.factory._MODEL_CONFIGS, "toyclip-heads-quickgelu", config | {"quick_gelu": True}
    )
    return "toyclip-heads"


def test_random_weights_of_two_architectures_are_two_spaces(many_heads):
    spaces = {load(f"{name}/untrained").space for name in ("toyclip", many_heads)}
    assert len(spaces) == 2


def test_a_file_that_fits_two_architectures_is_of_two_spaces(encoder, encoder_file, many_heads):
    other = load(f"{many_heads}/{encoder_file}")
    assert other.space != encoder.space
    assert other.fingerprint["architecture"] == "toyclip-heads"
    assert load(f"{many_heads}/{encoder_file}").space == other.space
    quick = load(f"{many_heads}-quickgelu/{encoder_file}")
    assert quick.space != other.space
    assert quick.fingerprint["architecture"] == "toyclip-heads"  # the activation is apart


def test_spaces_of_published_weights_stay_what_they_were(encoder, encoder_file):
    # Indexes and trained composers that lie about hold these.
    told = [encoder.fingerprint[key] for key in ("weights_sha256", "quick_gelu", "preprocess")]
    assert encoder.space == hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    if (weights_module.TOYBOX / "toyclip.safetensors").exists():
        assert load("toyclip").space == TrainedParts(load("toyclip"))._read(TEXT)[1]["clip"]


# Files of one's own


def test_a_file_named_with_its_architecture_is_what_is_loaded(encoder, encoder_file):
    ours = open_clip.create_model("toyclip", pretrained=str(encoder_file)).eval()
    image = make_images(1)[0]
    with torch.inference_mode():
        expected = ours.encode_image(encoder.preprocess(Image.fromarray(image))[None])[0].numpy()
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(encoder.encode_images([image])[0], expected, atol=1e-6)


def test_the_fingerprint_says_what_decides_the_vectors(encoder, encoder_file):
    assert encoder.fingerprint == {
        "model": "toyclip/random.safetensors",
        "weights_sha256": hashlib.sha256(encoder_file.read_bytes()).hexdigest(),
        "quick_gelu": False,
        "preprocess": encoder.fingerprint["preprocess"],
        "precision": "fp32",
        "decode": "JPEG reduced to 4 times the size or more",
    }
    assert "Normalize(mean=(0.48145466" in encoder.fingerprint["preprocess"]
    assert " at 0x" not in encoder.fingerprint["preprocess"]  # no address: the same in each run
    assert repr(encoder).startswith("<Encoder toyclip/")


def test_weights_in_half_precision_and_pickled_ones_load_too(encoder, encoder_file, tmp_path):
    state = load_file(encoder_file)
    half = {name: tensor.half() for name, tensor in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "full.pt")
    images = make_images(4)
    expected = encoder.encode_images(images)
    half = load(f"toyclip/{tmp_path / 'half.safetensors'}").encode_images(images)
    full = load(f"toyclip/{tmp_path / 'full.pt'}").encode_images(images)
    assert (half * expected).sum(1).min() > 0.9999
    np.testing.assert_array_equal(full, expected)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    torch.save(Payload(), tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="cannot be loaded as toyclip"):
        load(f"toyclip/{tmp_path / 'evil.pt'}")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("size", [0, 1000, -1000])
def test_a_truncated_file_is_named_with_its_sum(encoder_file, tmp_path, suffix, size):
    whole = tmp_path / f"whole{suffix}"
    state = load_file(encoder_file)
    save_file(state, whole) if suffix == ".safetensors" else torch.save(state, whole)
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(WeightsError, match="cannot be loaded as toyclip: it may be cut") as caught:
        load(f"toyclip/{cut}")
    assert str(cut) in str(caught.value)
    assert hash_file(cut) in str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file({"visual.proj": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="or of another architecture"):
        load(f"toyclip/{tmp_path / 'other.safetensors'}")


def test_weights_that_give_no_numbers_are_refused(encoder_file, tmp_path):
    state = load_file(encoder_file)
    for name in state:
        if name.startswith("visual") and name.endswith(".weight"):
            state[name].fill_(torch.nan)
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(
        WeightsError, match="are damaged: the model gave a vector that is not finite"
    ):
        load(f"toyclip/{tmp_path / 'nan.safetensors'}")


def test_the_missing_weights_of_toyclip_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(weights_module, "TOYBOX", tmp_path)
    with pytest.raises(WeightsError, match=r"not at .*toyclip.safetensors.*`make train`"):
        load_encoder("toyclip")


# Published weights


def test_a_file_put_in_place_for_a_tag_brings_the_tags_settings(
    encoder_file, weights_folder, publish
):
    publish("openai", url=openai_url("0" * 64), quick_gelu=True)
    (weights_folder / "toyclip-openai.safetensors").write_bytes(encoder_file.read_bytes())
    encoder = load("toyclip/openai")
    activation = encoder.model.transformer.resblocks[0].mlp.gelu
    assert isinstance(activation, open_clip.transformer.QuickGELU)
    assert encoder.fingerprint["quick_gelu"] is True
    assert encoder.fingerprint["model"] == "toyclip/openai"


def test_quick_gelu_makes_another_space_of_the_same_weights(
    encoder, encoder_file, weights_folder, publish
):
    publish("openai", quick_gelu=True)
    (weights_folder / "toyclip-openai.safetensors").write_bytes(encoder_file.read_bytes())
    quick = load("toyclip/openai")
    assert not np.allclose(quick.encode_texts("cat"), encoder.encode_texts("cat"), atol=1e-4)
    assert quick.space != encoder.space


def test_preprocessing_travels_with_the_tag(encoder, encoder_file, weights_folder, publish):
    publish("siglip", **SIGLIP)
    (weights_folder / "toyclip-siglip.safetensors").write_bytes(encoder_file.read_bytes())
    siglip = load("toyclip/siglip")
    white = np.full((30, 90, 3), 255, np.uint8)
    white[:, :20] = 0  # squashed, the picture keeps its left side; cut square, it loses it
    pixels = siglip.preprocess(Image.fromarray(white))
    assert pixels.shape[1] == pixels.shape[2]
    assert (pixels.min().item(), pixels.max().item()) == (-1, 1)
    assert encoder.preprocess(Image.fromarray(white)).min() > 1
    assert siglip.space != encoder.space


def test_ones_own_file_gets_the_preprocessing_that_its_architecture_always_has(
    encoder_file, publish
):
    publish("siglip", **SIGLIP)
    assert load(f"toyclip/{encoder_file}").preprocess.transforms[-1].mean == (0.5, 0.5, 0.5)
    publish("openai")  # now there are two kinds, so nothing is known
    assert load(f"toyclip/{encoder_file}").preprocess.transforms[-1].mean == CLIP_MEAN


@pytest.fixture(scope="module")
def openai_archive(encoder, tmp_path_factory):
    """The same weights as a TorchScript archive, the format in which OpenAI published CLIP."""
    path = tmp_path_factory.mktemp("openai") / "toyclip.pt"
    model = copy.deepcopy(encoder.model)
    for key in ("input_resolution", "context_length", "vocab_size"):
        vars(model).pop(key, None)
        model.register_buffer(key, torch.tensor(1))
    model.attn_mask = None  # in OpenAI's archives it is no buffer
    pixels = encoder.preprocess(Image.new("RGB", (9, 9)))[None]
    example = pixels, encoder.tokenizer(["any"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, example, check_trace=False), path)
    return path


def test_openais_own_archive_is_known_by_its_sum(
    encoder, encoder_file, openai_archive, weights_folder, publish
):
    publish("openai", url=openai_url(hash_file(openai_archive)), quick_gelu=True)
    (weights_folder / "toyclip-openai.safetensors").write_bytes(encoder_file.read_bytes())
    expected = load("toyclip/openai").encode_texts(["cat", "dog"])
    archive = load(f"toyclip/{openai_archive}")
    assert archive.fingerprint["quick_gelu"] is True
    np.testing.assert_array_equal(archive.encode_texts(["cat", "dog"]), expected)


def test_an_archive_of_unknown_sum_is_not_run(openai_archive):
    with pytest.raises(WeightsError, match="TorchScript"):
        load(f"toyclip/{openai_archive}")


@pytest.mark.parametrize("known", ["sum", "its first 8 digits"])
def test_a_wrong_file_is_told_from_its_sum(encoder_file, weights_folder, publish, known):
    url = openai_url("ab" * 32) if known == "sum" else "https://x.example/toyclip-abababab.pt"
    publish("tag", url=url)
    path = weights_folder / "toyclip-tag.pt"
    torch.save(load_file(encoder_file), path)
    with pytest.raises(WeightsError, match="is not the published file: its SHA-256 is") as caught:
        load("toyclip/tag")
    assert hash_file(path) in str(caught.value)
    assert "abababab" in str(caught.value)


def test_the_right_file_passes_by_its_sum(encoder_file, weights_folder, publish):
    path = weights_folder / "toyclip-tag.pt"
    torch.save(load_file(encoder_file), path)
    publish("tag", url=f"https://x.example/toyclip-{hash_file(path)[:8]}.pt")
    found = toyclip.find_weights("toyclip", "tag")
    assert (found.path, found.sha256) == (path, hash_file(path))
    assert not found.trusted  # 8 digits can be forged


@pytest.fixture
def hub_cache(weights_folder, encoder_file):
    """A download of earlier, laid out as the hub's own library does."""

    def add(name, content=None):
        content = encoder_file.read_bytes() if content is None else content
        folder = weights_folder / "models--somebody--clip"
        blob = folder / "blobs" / hash_file(encoder_file)
        link = folder / "snapshots" / ("0" * 40) / name
        for path in (blob, link, folder / "refs" / "main"):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(blob)
        (folder / "refs" / "main").write_text("0" * 40)
        return link

    return add


def test_a_download_of_earlier_is_found_without_the_network(hub_cache, publish):
    publish("tag", hf_hub="somebody/clip/")
    link = hub_cache("open_clip_model.safetensors")
    assert toyclip.find_weights("toyclip", "tag").path == link
    publish("named", hf_hub="somebody/clip/weights.pt")
    link = hub_cache("weights.pt")
    assert toyclip.find_weights("toyclip", "named").path == link


def test_a_download_that_was_damaged_is_told_from_the_hubs_sum(hub_cache, publish):
    publish("tag", hf_hub="somebody/clip/")
    hub_cache("open_clip_model.safetensors", content=b"half of it")
    with pytest.raises(WeightsError, match="is not the published file"):
        load("toyclip/tag")


@pytest.mark.parametrize("offline", [True, False])
def test_without_the_network_the_error_says_what_to_do_at_once(
    monkeypatch, weights_folder, caplog, offline
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    # A port that nothing listens on, so that no test reaches out.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError) as caught:
        load("ViT-B-32/openai")
    assert time.perf_counter() - started < 20  # the hub's own retries take twice as long
    message = str(caught.value)
    assert message.startswith("cannot download ViT-B-32/openai")
    assert "open_clip_model.safetensors" in message
    assert "repository timm/vit_base_patch32_clip_224.openai or https://" in message
    assert "/ViT-B-32.pt" in message
    assert f"put the file at {weights_folder / 'ViT-B-32-openai'}.safetensors" in message
    assert not caplog.records  # no chatter about retries before it


def test_a_tokenizer_that_cannot_be_had_is_named(monkeypatch):
    def fail(*args, **kwargs):
        raise ImportError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "get_tokenizer", fail)
    with pytest.raises(WeightsError, match="tokenizer of ViT-B-16-SigLIP.*timm/.*transformers"):
        load("ViT-B-16-SigLIP/untrained")


def test_a_checkpoint_of_the_shape_of_vit_b_32_loads_by_the_same_call(tmp_path):
    with torch.device("meta"):
        shapes = open_clip.create_model("ViT-B-32", device="meta").state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator).mul_(0.02).half()
        for name, tensor in shapes.items()
    }
    save_file(state, tmp_path / "random.safetensors")
    encoder = load(f"ViT-B-32-quickgelu/{tmp_path / 'random.safetensors'}")
    images, texts = encoder.encode_images(make_images(2)), encoder.encode_texts(["a", "b", "c"])
    assert (images.shape, texts.shape) == ((2, 512), (3, 512))
    for vectors in (images, texts):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert encoder.fingerprint["quick_gelu"] is True


# Images


def test_bf16_gives_nearly_the_vectors_of_fp32_in_the_same_space(encoder, encoder_file):
    low = load(f"toyclip/{encoder_file}", precision="bf16")
    assert low.precision == low.fingerprint["precision"] == "bf16"
    assert low.space == encoder.space
    images, texts = make_images(8), ["red circle", "two blue squares"]
    for a, b in (
        (encoder.encode_images(images), low.encode_images(images)),
        (encoder.encode_texts(texts), low.encode_texts(texts)),
    ):
        assert b.dtype == np.float32
        assert (a * b).sum(1).min() >= 0.999


def test_paths_and_arrays_give_the_same_vectors_of_unit_length(encoder, tmp_path):
    images = make_images(5)
    vectors = encoder.encode_images(images)
    paths = write_images(tmp_path, images)
    np.testing.assert_array_equal(encoder.encode_images(paths), vectors)
    np.testing.assert_array_equal(encoder.encode_images(map(str, paths)), vectors)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert (vectors.shape, vectors.dtype) == ((5, encoder.dim), np.float32)


def test_one_image_may_stand_alone(encoder, tmp_path):
    images = make_images(1)
    expected = encoder.encode_images(images)
    path = write_images(tmp_path, images)[0]
    for alone in (images[0], path, str(path), np.stack(images)):
        np.testing.assert_array_equal(encoder.encode_images(alone), expected)


def test_no_images_give_no_vectors(encoder):
    assert encoder.encode_images([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_the_batch_changes_no_vector(encoder, batch_size):
    images = make_images(11)
    expected = np.concatenate([encoder.encode_images([image]) for image in images])
    vectors = encoder.encode_images(images, batch_size=batch_size, workers=3)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_encode_images_names_the_first_that_cannot_be_read(encoder, tmp_path):
    with pytest.raises(ImageError, match="nowhere.png: file not found"):
        encoder.encode_images([*make_images(3), tmp_path / "nowhere.png"], batch_size=2)
    with pytest.raises(ImageError, match=r"image 1: expected \(H, W, 3\) uint8 RGB, got \(9, 9\)"):
        encoder.encode_images([*make_images(1), np.zeros((9, 9), np.uint8)])


def test_progress_counts_batches(encoder, monkeypatch, capsys):
    monkeypatch.setenv("REGIONLAB_RUN", "1")
    vectors = encoder.encode_images(make_images(5), batch_size=2, progress=True)
    assert len(vectors) == 5
    assert "encode images: 3/3" in capsys.readouterr().out


def test_a_stream_keeps_order_and_reports_failures_by_position(encoder, tmp_path):
    images = make_images(10)
    stream = list(images)
    stream[0] = tmp_path / "gone.png"
    stream[4] = stream[5] = np.zeros((4, 4, 4), np.uint8)
    batches = list(encoder.encode_stream(iter(stream), batch_size=2, workers=3))
    assert [len(batch.rows) + len(batch.failures) for batch in batches] == [2] * 5
    assert np.concatenate([batch.rows for batch in batches]).tolist() == [1, 2, 3, 6, 7, 8, 9]
    failures = [failure for batch in batches for failure in batch.failures]
    assert [row for row, _ in failures] == [0, 4, 5]
    assert "file not found" in failures[0][1].reason
    expected = encoder.encode_images([images[i] for i in (1, 2, 3, 6, 7, 8, 9)])
    vectors = np.concatenate([batch.vectors for batch in batches])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert batches[2].vectors.shape == (0, encoder.dim)  # a batch in which nothing could be read


def test_a_stream_tells_sizes_and_sums_of_files(encoder, tmp_path):
    paths = write_images(tmp_path, make_images(2))
    array = np.zeros((30, 40, 3), np.uint8)
    [batch] = encoder.encode_stream([*paths, array])
    heights_widths = [read_image(path).shape[:2] for path in paths]
    assert batch.sizes.tolist() == [[w, h] for h, w in heights_widths] + [[40, 30]]
    assert batch.digests == [*map(hash_file, paths), ""]


def test_a_stream_looks_only_a_few_batches_ahead(encoder):
    pulled = []

    def source():
        for i, image in enumerate(make_images(1) * 100):
            pulled.append(i)
            yield image

    stream = encoder.encode_stream(source(), batch_size=4)
    assert pulled == []
    for done in range(1, 4):
        next(stream)
        assert len(pulled) <= 4 * (done + 3)
    stream.close()


def test_a_stream_that_is_closed_early_leaves_no_threads_and_no_work(encoder, monkeypatch):
    original = encoder.preprocess
    seen = []

    def slowly(image):
        seen.append(image)
        if len(seen) > 16:
            time.sleep(0.3)
        return original(image)

    monkeypatch.setattr(encoder, "preprocess", slowly)
    before = threading.active_count()
    stream = encoder.encode_stream(make_images(1) * 100, batch_size=16, workers=1)
    next(stream)
    stream.close()
    assert threading.active_count() == before
    assert len(seen) < 3 * 16  # as many were waiting


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"workers": 0}])
def test_a_stream_refuses_sizes_below_one_when_it_is_asked_for(encoder, option):
    with pytest.raises(ValueError, match="batch_size and workers must be at least 1"):
        encoder.encode_stream([], **option)
    with pytest.raises(ValueError, match="batch_size and workers must be at least 1"):
        encoder.encode_images([], progress=True, **option)


def test_a_line_of_pixels_is_refused_before_it_fills_the_memory(encoder):
    with pytest.raises(ImageError, match="too narrow: 1 x 60000, over 200 to 1"):
        encoder.encode_images([np.zeros((60_000, 1, 3), np.uint8)])
    assert encoder.encode_images([np.zeros((200, 1, 3), np.uint8)]).shape == (1, encoder.dim)


# Texts


def test_templates_are_averaged_then_normalised(encoder):
    templates = ["{}", "a photo of a {}", "{} on {}"]
    parts = [
        encoder.encode_texts([t.replace("{}", text) for t in templates]) for text in ("cat", "dog")
    ]
    expected = np.stack([part.mean(0) for part in parts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.encode_texts(["cat", "dog"], templates=templates)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_texts_are_the_models_own(encoder):
    tokens = encoder.tokenizer(["a red circle"])
    with torch.inference_mode():
        expected = encoder.model.encode_text(tokens, normalize=True)[0].numpy()
    np.testing.assert_allclose(encoder.encode_texts("a red circle")[0], expected, atol=1e-6)


def test_one_text_or_template_may_stand_alone_and_texts_may_be_generated(encoder):
    expected = encoder.encode_texts(["a photo of a cat"])
    np.testing.assert_array_equal(encoder.encode_texts("a photo of a cat"), expected)
    alone = encoder.encode_texts(iter(["cat"]), templates="a photo of a {}")
    np.testing.assert_array_equal(alone, expected)


def test_batches_change_no_text(encoder):
    texts = [f"{i} red circles" for i in range(7)]
    np.testing.assert_allclose(
        encoder.encode_texts(texts, batch_size=2), encoder.encode_texts(texts), atol=1e-5
    )


def test_no_texts_give_no_vectors(encoder):
    assert encoder.encode_texts([]).shape == (0, encoder.dim)
    assert encoder.encode_texts([], templates=["a {}", "the {}"]).shape == (0, encoder.dim)


@pytest.mark.parametrize("text", ["", "  \n", None, 3])
def test_a_text_without_words_is_refused(encoder, text):
    with pytest.raises(ValueError, match="text 1 is .*: a query needs at least one word"):
        encoder.encode_texts(["cat", text])


@pytest.mark.parametrize("templates", [[], ["a photo"], "a photo"])
def test_a_template_without_a_place_for_the_text_is_refused(encoder, templates):
    with pytest.raises(ValueError, match="each template needs a {} for the text"):
        encoder.encode_texts(["cat"], templates=templates)


def test_a_text_too_long_is_cut_with_a_warning(encoder):
    with pytest.warns(UserWarning, match=r"1 text.* fill all \d+ tokens .*'circle circle"):
        vectors = encoder.encode_texts(["cat", "circle " * 100])
    assert vectors.shape == (2, encoder.dim)


def test_a_tokenizer_with_its_own_padding_raises_no_alarm(encoder, monkeypatch):
    class Padded:
        tokenizer = type("Inner", (), {"pad_token_id": 1})

        def __call__(self, texts):
            tokens = encoder_tokenizer(texts)
            return torch.where(tokens == 0, 1, tokens)

    encoder_tokenizer = encoder.tokenizer
    monkeypatch.setattr(encoder, "tokenizer", Padded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode_texts(["cat"])
