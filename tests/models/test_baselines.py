"""The papers' baselines: their parts, their weights by name, and their face of an encoder."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from regionlab.data.collection import load_folder
from regionlab.index.build import build_index
from regionlab.index.tables import IndexFolderError
from regionlab.models import baselines as networks
from regionlab.models import registry as baselines
from regionlab.models import weights as files_module
from regionlab.models import weights as weights_module
from regionlab.models.baselines import (
    GeM,
    ImageEncoder,
    SegNet,
    Whitening,
    create_toydir,
    create_toysegnet,
    create_toyvit,
    learn_whitening,
)
from regionlab.models.registry import available_baselines, load_baseline
from regionlab.models.weights import WeightsError
from regionlab.regions.patch_tokens import encode_patches
from regionlab.search.images import search_image, search_indexed, search_text

import timm  # isort: skip
import torchvision  # isort: skip

TOYS = {"toyvit": create_toyvit, "toydir": create_toydir, "toysegnet": create_toysegnet}
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(name, **options):
    return load_baseline(name, device="cpu", **({"precision": "fp32"} | options))


def make_images(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(100, 160, (count, 2))
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def save_random(model, path):
    """Write a model's weights with random numbers in all of them, the running means too."""
    torch.manual_seed(11)
    state = {
        name: torch.rand_like(t) + 0.5 if name.endswith("var") else t + 0.05 * torch.randn_like(t)
        for name, t in model.state_dict().items()
        if t.is_floating_point()
    }
    state = {name: state.get(name, t).contiguous() for name, t in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def toy_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toys")
    return {name: save_random(new(), folder / f"{name}.safetensors") for name, new in TOYS.items()}


@pytest.fixture(scope="module")
def encoders(toy_files):
    return {name: load(f"{name}/{path}") for name, path in toy_files.items()}


@pytest.fixture(params=list(TOYS))
def encoder(request, encoders):
    return encoders[request.param]


# --- GeM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 3.0, 5.5])
def test_gem_equals_the_slow_formula(p):
    features = np.random.default_rng(0).uniform(-1, 3, (2, 4, 3, 5))
    pooled = GeM(p)(torch.tensor(features, dtype=torch.float32)).detach().numpy()
    for b in range(2):
        for d in range(4):
            values = [max(x, 1e-6) for x in features[b, d].ravel().tolist()]
            expected = (sum(x**p for x in values) / 15) ** (1 / p)
            assert pooled[b, d] == pytest.approx(expected, rel=1e-4)


def test_gem_goes_from_the_mean_to_the_maximum():
    features = torch.rand(3, 2, 4, 4)
    torch.testing.assert_close(GeM(1.0)(features), features.mean((2, 3)))
    torch.testing.assert_close(GeM(80.0)(features), features.amax((2, 3)), rtol=0.05, atol=0)


def test_gem_learns_its_p_and_has_a_gradient_where_all_is_zero():
    gem, features = GeM(), torch.zeros(1, 1, 2, 2, requires_grad=True)
    (gem(features).sum() + gem(torch.rand(1, 1, 2, 2)).sum()).backward()
    assert gem.p.grad.abs() > 0
    assert torch.isfinite(features.grad).all()


# --- whitening ----------------------------------------------------------------------------


def make_vectors(count, dim, seed=0):
    torch.manual_seed(seed)
    return torch.randn(count, dim) @ torch.randn(dim, dim) + torch.randn(dim)


@pytest.mark.parametrize("kept", [6, 3])
def test_whitening_gives_unit_covariance_on_its_training_vectors(kept):
    vectors = make_vectors(200, 6)
    whitening = Whitening(6, kept)
    whitening.fit(vectors)
    white = whitening(vectors).numpy()
    np.testing.assert_allclose(white.mean(0), np.zeros(kept), atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(kept), atol=1e-4)


def test_whitening_keeps_the_directions_of_most_variance_first():
    vectors = make_vectors(300, 5)
    whitening = Whitening(5, 2)
    whitening.fit(vectors)
    scales = 1 / whitening.matrix.norm(dim=0) ** 2
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.numpy().T))[::-1]
    np.testing.assert_allclose(scales, eigenvalues[:2], rtol=1e-4)


def test_whitening_changes_nothing_until_it_is_fitted():
    vectors = make_vectors(4, 5)
    assert torch.equal(Whitening(5)(vectors), vectors)


def test_whitening_refuses_vectors_that_do_not_span_what_is_kept():
    whitening = Whitening(6, 5)
    with pytest.raises(ValueError, match="4 vectors vary in 3 directions only, 5 are to be kept"):
        whitening.fit(make_vectors(4, 6))
    assert torch.equal(whitening.matrix, torch.eye(6)[:, :5])


# --- SegNet -------------------------------------------------------------------------------


def test_unpooling_puts_each_maximum_back_in_its_place():
    model = SegNet(((3,), (3,)), 3, 8)
    model.encoder = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    model.decoder, model.classifier = model.encoder, torch.nn.Identity()
    pixels = torch.rand(2, 3, 8, 8)
    restored = model.segment(pixels).numpy()
    expected = np.zeros((2, 3, 8, 8), np.float32)
    for b, c, y, x in np.ndindex(2, 3, 2, 2):  # pooled twice: one value of each 4 by 4 is left
        block = pixels[b, c, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].numpy()
        place = np.unravel_index(block.argmax(), block.shape)
        expected[b, c, 4 * y + place[0], 4 * x + place[1]] = block.max()
    np.testing.assert_array_equal(restored, expected)


def test_segnet_mirrors_its_encoder_and_has_the_sizes_of_vgg16():
    with torch.device("meta"):
        model = networks.create_segnet()
        vgg = torchvision.models.vgg16_bn().features
    shapes = [p.shape for p in model.encoder.parameters()]
    assert shapes == [p.shape for p in vgg.parameters()]
    widths = [m.out_channels for m in model.decoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert widths == [512] * 3 + [512, 512, 256] + [256, 256, 128] + [128, 64] + [64]
    assert model.classifier.in_channels == 64


def test_segnet_mirrors_blocks_of_any_widths():
    model = SegNet(((4,), (6, 8), (5,)), 2, 16)
    assert model.segment(torch.rand(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_segnet_classes_are_those_of_its_file(tmp_path):
    path = save_random(create_toysegnet(5), tmp_path / "five.safetensors")
    model = load(f"toysegnet/{path}").model
    with torch.inference_mode():
        assert model.segment(torch.rand(1, 3, 128, 128)).shape == (1, 5, 128, 128)


def test_segnet_vector_is_the_mean_of_the_encoders_last_map(encoders):
    encoder = encoders["toysegnet"]
    pixels = torch.rand(2, 3, 128, 128)
    with torch.inference_mode():
        last, places = encoder.model.encode(pixels)
    assert last.shape == (2, 128, 4, 4) and len(places) == 5
    expected = last.numpy().reshape(2, 128, 16).mean(2)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_pixels(pixels), expected, atol=1e-5)


# --- the face of an encoder ---------------------------------------------------------------


def test_vectors_are_unit_length_and_of_the_encoders_dimension(encoder):
    vectors = encoder.encode_images(make_images(5))
    assert vectors.shape == (5, encoder.dim) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors @ vectors.T)[~np.eye(5, dtype=bool)].max() < 1 - 1e-6


def test_vectors_are_the_same_single_and_batched(encoder):
    images = make_images(5)
    batched = encoder.encode_images(images)
    single = np.concatenate([encoder.encode_images(image) for image in images])
    np.testing.assert_allclose(batched, single, atol=1e-5)


def test_bfloat16_comes_close(encoder, toy_files):
    name = encoder.name.partition("/")[0]
    half = load(f"{name}/{toy_files[name]}", precision="bf16")
    images = make_images(4)
    similarities = (half.encode_images(images) * encoder.encode_images(images)).sum(1)
    assert half.space == encoder.space and half.fingerprint != encoder.fingerprint
    assert 0.99 < similarities.min() and (similarities != 1).any()


def test_preprocessing_is_that_of_the_training_pictures(encoder):
    image = make_images(1)[0][:, :100]
    shown = encoder.preprocess(Image.fromarray(image)).numpy()
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((128, int(128 * height / width)), Image.BICUBIC)
    top = round((small.height - 128) / 2)
    expected = (np.asarray(small)[top : top + 128] / 255 - MEAN) / STD
    np.testing.assert_allclose(shown.transpose(1, 2, 0), expected, atol=0.02)


def test_texts_are_refused(encoder):
    with pytest.raises(ValueError, match="encodes images only, it has no text side"):
        encoder.encode_texts(["a red star"], templates="a picture of a {}")


def test_pooled_tokens_of_regions_are_refused(encoder):
    with pytest.raises(ValueError, match=encoder.name.partition("/")[0]):
        encode_patches(encoder, make_images(1)[0])


def test_an_index_takes_a_baseline_as_it_takes_clip(encoder, encoders, tmp_path):
    for number, image in enumerate(make_images(6)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "9.png").write_bytes(b"no picture")
    with pytest.warns(UserWarning, match="9.png"):
        index = build_index(load_folder(tmp_path), encoder, tmp_path / "index", batch_size=4)
    assert len(index) == 6 and len(index.failures) == 1
    own = search_image(index, index.path(2), encoder, k=1)
    assert own.rows.tolist() == [[2]] and own.scores[0, 0] == pytest.approx(1, abs=1e-5)
    others = search_indexed(index, index.images["image_id"][2], k=5, exclude_self=True)
    assert sorted(others.rows[0].tolist()) == [0, 1, 3, 4, 5]
    with pytest.raises(ValueError, match="no text side"):
        search_text(index, "a red star", encoder)
    stranger = next(other for other in encoders.values() if other is not encoder)
    with pytest.raises(IndexFolderError, match="load the same model"):
        search_image(index, index.path(2), stranger)


def test_fingerprint_and_space_change_with_the_weights(encoder, toy_files, tmp_path):
    name = encoder.name.partition("/")[0]
    state = load_file(toy_files[name])
    key = next(key for key in state if key.endswith(".weight"))
    state[key] = state[key] + 0.01
    save_file(state, tmp_path / toy_files[name].name)
    other = load(f"{name}/{tmp_path / toy_files[name].name}")
    changed = {k for k, v in encoder.fingerprint.items() if other.fingerprint[k] != v}
    assert changed == {"weights_sha256"}
    assert other.space != encoder.space
    digest = hashlib.sha256(toy_files[name].read_bytes()).hexdigest()
    assert encoder.fingerprint["weights_sha256"] == digest
    assert encoder.fingerprint["model"] == f"{name}/{name}.safetensors"


# --- real architectures -------------------------------------------------------------------


def test_a_checkpoint_of_timms_vit_gives_timms_features(tmp_path):
    model = timm.create_model("vit_tiny_patch16_224").eval()
    path = save_random(model, tmp_path / "vit.pth")
    encoder = load(f"vit/vit_tiny_patch16_224/{path}")
    assert encoder.dim == 192 and encoder.fingerprint["model"] == "vit/vit_tiny_patch16_224/vit.pth"
    model.load_state_dict(torch.load(path))
    image = make_images(1)[0]
    settings = timm.data.resolve_data_config(model=model)
    pixels = timm.data.create_transform(**settings)(Image.fromarray(image))[None]
    with torch.inference_mode():
        token = model.forward_features(pixels)[0, 0]
    expected = torch.nn.functional.normalize(token, dim=0).numpy()
    np.testing.assert_allclose(encoder.encode_images(image)[0], expected, atol=1e-5)


def test_a_checkpoint_in_an_older_form_of_timms_loads(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    patches = "patch_embed.proj.weight"
    old = state | {patches: state[patches].flatten(1), "pre_logits.fc.bias": torch.zeros(192)}
    torch.save(old, tmp_path / "old.pth")
    loaded = load(f"vit/vit_tiny_patch16_224/{tmp_path / 'old.pth'}").model.state_dict()
    assert torch.equal(loaded[f"backbone.{patches}"], state[patches])


def test_a_checkpoint_of_torchvisions_resnet_gives_gem_of_its_last_map(tmp_path):
    model = torchvision.models.resnet50().eval()
    path = save_random(model, tmp_path / "resnet50.pth")
    encoder = load(f"dir/resnet50.tv_in1k/{path}")
    model.load_state_dict(torch.load(path))
    pixels = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        x = torch.nn.Sequential(*list(model.children())[:-2])(pixels)
        expected = torch.nn.functional.normalize(x.pow(3).mean((2, 3)).pow(1 / 3), dim=1)
    assert encoder.dim == 2048
    np.testing.assert_allclose(encoder.encode_pixels(pixels), expected, atol=1e-4)


def test_preprocessing_comes_with_the_tag_of_the_weights():
    plain = load("vit/vit_small_patch16_224.augreg_in21k/untrained").fingerprint
    dino = load("vit/vit_small_patch16_224.dino/untrained").fingerprint
    assert "mean=tensor([0.5000, 0.5000, 0.5000])" in plain["preprocess"]
    assert "mean=tensor([0.4850, 0.4560, 0.4060])" in dino["preprocess"]


def test_learned_whitening_is_loaded_with_the_network(tmp_path, encoders):
    network = load(f"dir/resnet18/{save_random(timm.create_model('resnet18'), tmp_path / 'r.pth')}")
    images = make_images(12)
    before = network.encode_images(images)
    path = learn_whitening(network, images, tmp_path / "white.safetensors", kept=6)
    whitened = load(f"dir/resnet18/{path}")
    assert (whitened.dim, network.dim) == (6, 512)
    np.testing.assert_array_equal(network.encode_images(images), before)
    with torch.inference_mode():
        white = whitened.model.whitening(torch.from_numpy(before)).numpy()
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=0.01)
    expected = white / np.linalg.norm(white, axis=1, keepdims=True)
    np.testing.assert_allclose(whitened.encode_images(images), expected, atol=1e-4)
    with pytest.raises(ValueError, match="toyvit.* is no Deep Image Retrieval"):
        learn_whitening(encoders["toyvit"], images, tmp_path / "no.safetensors")


# --- weights by name ----------------------------------------------------------------------


def test_every_listed_name_is_understood():
    names = available_baselines()
    assert names[:3] == list(TOYS) and len(names) > 100
    assert "vit/vit_base_patch16_224.augreg2_in21k_ft_in1k" in names
    assert "dir/resnet50.tv_in1k" in names
    assert [baselines._parse_baseline(name) for name in names] == [(name, "") for name in names]


@pytest.mark.parametrize("name", TOYS)
def test_loading_leaves_the_callers_random_numbers_alone(name, toy_files):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(f"{name}/{toy_files[name]}")
    assert torch.equal(torch.rand(1), expected)


def test_untrained_weights_are_the_same_each_time():
    first, second = load("toydir/untrained"), load("toydir/untrained")
    pixels = torch.rand(1, 3, 128, 128)
    np.testing.assert_array_equal(first.encode_pixels(pixels), second.encode_pixels(pixels))
    assert first.space == second.space != load("toyvit/untrained").space


def test_a_file_that_fits_two_architectures_is_of_two_spaces(tmp_path):
    names = ("resnet18", "resnetblur18")  # the blur has no weights
    save_file(timm.create_model(names[0], num_classes=0).state_dict(), tmp_path / "a.safetensors")
    encoders = [load(f"dir/{name}/{tmp_path / 'a.safetensors'}") for name in names]
    pixels = torch.rand(1, 3, 224, 224)
    assert not np.allclose(*(encoder.encode_pixels(pixels) for encoder in encoders), atol=1e-3)
    assert encoders[0].space != encoders[1].space
    assert encoders[0].fingerprint["weights_sha256"] == encoders[1].fingerprint["weights_sha256"]


def test_toybox_weights_are_found_by_name_alone(toy_files, encoders, monkeypatch):
    monkeypatch.setattr(files_module, "TOYBOX", toy_files["toydir"].parent)
    found = load("toydir")
    assert isinstance(found, ImageEncoder) and found.space == encoders["toydir"].space
    assert found.fingerprint["model"] == "toydir"


def test_missing_toybox_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "TOYBOX", tmp_path)
    with pytest.raises(WeightsError, match="toydir.safetensors: restore the file or run `make tra"):
        load("toydir")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vitt", r"unknown baseline 'vitt' \(did you mean .*vit.*\); known: toyvit, toydir"),
        ("ViT-B-32/openai", "unknown baseline 'ViT-B-32/openai'.*vit/<timm name>"),
        ("vit", "unknown model '' in 'vit'"),
        ("vit/vit_base_patch16", r"unknown model 'vit_base_patch16' .*did you mean .*_224"),
        ("vit/resnet50", "unknown model 'resnet50' in 'vit/resnet50'.*vision_transformer"),
        ("dir/vit_base_patch16_224", "unknown model .*timm's resnet"),
        ("dir/resnet50.mine", "no weights 'mine' of resnet50; known: resnet50.a1_in1k, .*tv_in1k"),
        ("segnet", "'segnet' names no weights: say segnet/<a file>"),
    ],
)
def test_an_unknown_name_is_answered_with_what_is_known(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        load("toyvit/untrained", precision="fp8")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(WeightsError, match="no weights 'nowhere.pt' for toyvit: there is no such"):
        load("toyvit/nowhere.pt")


@pytest.mark.parametrize("name", [*TOYS, "segnet", "vit/vit_tiny_patch16_224", "dir/resnet18"])
def test_weights_of_another_architecture_are_refused(name, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(WeightsError, match=f"SHA-256 .* of another architecture than {name}"):
        load(f"{name}/{path}")


def test_a_file_in_which_one_weight_is_missing_is_refused(toy_files, tmp_path):
    state = load_file(toy_files["toyvit"])
    del state["backbone.fc_norm.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match="of another architecture than toyvit"):
        load(f"toyvit/{tmp_path / 'less.safetensors'}")


def test_a_file_cut_short_is_refused(toy_files, tmp_path):
    path = tmp_path / "short.safetensors"
    path.write_bytes(toy_files["toydir"].read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cannot be loaded: it may be cut short"):
        load(f"toydir/{path}")


def test_weights_that_are_not_numbers_are_refused(toy_files, tmp_path):
    state = load_file(toy_files["toydir"])
    state["gem.p"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"gem\.p holds numbers that are not finite"):
        load(f"toydir/{tmp_path / 'nan.safetensors'}")


def test_weights_that_give_no_vector_are_refused(toy_files, tmp_path):
    state = {name: torch.zeros_like(t) for name, t in load_file(toy_files["toysegnet"]).items()}
    save_file(state, tmp_path / "zero.safetensors")
    with pytest.raises(WeightsError, match="weights of toysegnet.* are damaged: .*zero"):
        load(f"toysegnet/{tmp_path / 'zero.safetensors'}")


# --- published weights --------------------------------------------------------------------

TINY = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.mark.parametrize("name", [TINY, "vit_tiny_patch16_224"])
def test_published_weights_are_taken_from_the_weights_folder(weights_folder, name):
    path = save_random(timm.create_model("vit_tiny_patch16_224"), weights_folder / f"{TINY}.pth")
    encoder = load(f"vit/{name}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder.fingerprint["weights_sha256"] == digest
    assert encoder.fingerprint["model"] == f"vit/{name}"


def test_without_network_the_error_says_what_to_fetch_and_where_to_put_it(
    weights_folder, monkeypatch
):
    from huggingface_hub import constants

    # A port that nothing listens on, so that no test reaches out.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError) as caught:
        load("vit/vit_tiny_patch16_224")
    message = str(caught.value)
    assert message.startswith(f"cannot download {TINY}")
    assert f"model.safetensors of the Hugging Face repository timm/{TINY}" in message
    assert f"put the file at {weights_folder / TINY}.safetensors" in message


def keep_in_hub_cache(folder, digest, content):
    """Lay a file out as the hub's cache does."""
    root = folder / f"models--timm--{TINY}"
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / digest).write_bytes(content)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("c0ffee")
    (root / "snapshots" / "c0ffee").mkdir(parents=True)
    (root / "snapshots" / "c0ffee" / "model.safetensors").symlink_to(root / "blobs" / digest)


def test_an_earlier_download_is_used_without_asking_the_network(weights_folder, tmp_path):
    file = save_random(timm.create_model("vit_tiny_patch16_224"), tmp_path / "w.safetensors")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    keep_in_hub_cache(weights_folder, digest, file.read_bytes())
    assert load(f"vit/{TINY}").fingerprint["weights_sha256"] == digest


def test_a_download_that_has_changed_is_refused(weights_folder):
    keep_in_hub_cache(weights_folder, "ab" * 32, b"cut short")
    with pytest.raises(WeightsError, match="is not the published file: .* expected abab"):
        load(f"vit/{TINY}")


def test_a_model_without_published_weights_asks_for_a_file():
    with pytest.raises(WeightsError, match="timm publishes no weights of vit_small_patch16_18x2"):
        load("vit/vit_small_patch16_18x2_224")
