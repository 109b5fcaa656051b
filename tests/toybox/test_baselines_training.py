"""Training the baselines: what they learn from, how they are measured, and that they resume."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from regionlab.models import training
from regionlab.models.registry import load_baseline
from toybox import baselines as train_baselines
from toybox import train as train_cli
from toybox.baselines import (  # fmt: skip
    ATTRIBUTES,
    RECIPES,
    TASKS,
    Recipe,
    ap_loss,
    measure_iou,
    measure_map,
    sample_light,
    sample_windows,
    train,
    validate,
)
from toybox.pool import class_pixels, open_scenes
from toybox.render import render_scene
from toybox.world import COMBINATIONS, HELD_OUT, SHAPES, sample_scene, scene_rng  # fmt: skip

NAMES = list(TASKS)
TINY = Recipe(scenes=48, steps=4, batch=6, warmup=1, save_every=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="module")
def scenes(folder):
    return open_scenes(folder / "pool-train", "train", TINY.scenes, seed=0, side=128)


@pytest.fixture(scope="module")
def results(folder, scenes):
    return {
        name: train(name, TINY, cache=folder, weights=folder / f"{name}.safetensors")
        for name in NAMES
    }


def create(name):
    torch.manual_seed(0)
    return TASKS[name][0]()


# --- what the scenes hold -----------------------------------------------------------------


def test_scenes_say_what_their_pictures_show(scenes):
    for number in range(12):
        rng = scene_rng(0, "train", number)
        scene = sample_scene(rng)
        _, masks = render_scene(scene, rng)
        held = {COMBINATIONS[row] for row in np.flatnonzero(scenes.kinds[number])}
        assert held == {thing.combination for thing in scene.things}
        expected = np.zeros((256, 256), int)
        for thing, mask in zip(scene.things, masks, strict=True):
            expected[mask] = 1 + SHAPES.index(thing.shape)
        np.testing.assert_array_equal(class_pixels(scenes, [number])[0], expected[::2, ::2])


def test_training_scenes_hold_no_held_out_combination(scenes):
    assert not scenes.kinds[:, [COMBINATIONS.index(c) for c in HELD_OUT]].any()


def test_light_is_drawn_for_each_picture_and_channel():
    pictures = np.full((40, 2, 3, 3), 128, np.uint8)
    drawn = sample_light(pictures, np.random.default_rng(0), 0.12)
    gains = drawn / (128 / 255)
    assert (gains == gains[:, :1, :1]).all() and gains.dtype == np.float32
    assert gains.min() < 0.9 and gains.max() > 1.1 and np.abs(gains - 1).max() <= 0.1201
    assert len(np.unique(gains)) == 120
    np.testing.assert_allclose(sample_light(pictures, np.random.default_rng(0), 0), 128 / 255)


# --- losses -------------------------------------------------------------------------------


def soft_average_precision(scores, relevant, bins):
    """Equations 6 to 9 of Revaud et al. 2019 for one query, loop by loop."""
    width = 2 / (bins - 1)
    hits, ranked, total = 0.0, 0.0, 0.0
    for number in range(bins):
        centre = 1 - number * width
        shares = [max(1 - abs(score - centre) / width, 0) for score in scores]
        gained = sum(share for share, is_hit in zip(shares, relevant, strict=True) if is_hit)
        hits, ranked = hits + gained, ranked + sum(shares)
        total += hits / ranked * gained / sum(relevant) if ranked else 0
    return total


@pytest.mark.parametrize("bins", [5, 25])
def test_ap_loss_equals_the_slow_formula(bins):
    torch.manual_seed(3)
    vectors = torch.nn.functional.normalize(torch.randn(9, 4), dim=1)
    relevant = torch.rand(9, 9) < 0.4
    relevant[2] = False
    relevant[2, 2] = True  # only itself: it asks nothing
    found = []
    for query in (0, 1, 3, 4, 5, 6, 7, 8):
        others = [n for n in range(9) if n != query]
        scores = [float(vectors[query] @ vectors[n]) for n in others]
        hits = [bool(relevant[query, n]) for n in others]
        found.append(soft_average_precision(scores, hits, bins))
    loss = ap_loss(vectors, relevant, bins=bins)
    assert loss.item() == pytest.approx(1 - np.mean(found), abs=1e-5)


def test_ap_loss_is_zero_for_the_perfect_ranking():
    vectors = torch.eye(3).repeat_interleave(4, dim=0)
    assert ap_loss(vectors, vectors @ vectors.T > 0).item() == pytest.approx(0, abs=1e-6)


def test_ap_loss_of_a_batch_without_relevant_pairs_teaches_nothing():
    vectors = torch.eye(4).requires_grad_()
    loss = ap_loss(vectors, torch.eye(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 1 and not vectors.grad.any()


def test_ap_loss_of_vectors_all_alike_is_the_share_of_the_others():
    relevant = torch.zeros(6, 6, dtype=torch.bool)
    relevant[0, 1:3] = True
    vectors = torch.eye(1, 4).expand(6, -1)
    assert ap_loss(vectors, relevant).item() == pytest.approx(1 - 2 / 5, abs=1e-5)


def test_attribute_loss_asks_for_the_attributes_of_the_scene(scenes):
    model = create("toyvit").eval()
    pixels = torch.randn(3, 3, 128, 128)
    rows = np.array([0, 4, 9])
    with torch.inference_mode():
        logits = model.classifier(model(pixels)).double().numpy()
        found = train_baselines.attribute_loss(model, pixels, scenes, rows, None).item()
    held = np.array([
        [any(a in t.combination for t in sample_scene(scene_rng(0, "train", row)).things)
         for a in ATTRIBUTES] for row in rows.tolist()
    ])  # fmt: skip
    expected = np.log1p(np.exp(np.where(held, -logits, logits))).mean()
    assert found == pytest.approx(expected, rel=1e-4)


def test_pixel_loss_is_of_windows_and_weighs_the_ground_less(scenes):
    model = create("toysegnet").eval()
    pixels, rows = torch.randn(2, 3, 128, 128), np.array([3, 5])
    target = class_pixels(scenes, rows)
    windows = sample_windows(target, np.random.default_rng(4))
    total, weights = 0.0, 0.0
    for picture, shown, (y, x) in zip(pixels, target, windows, strict=True):
        with torch.inference_mode():
            logits = model.segment(picture[None, :, y, x])[0].double().numpy()
        logs = logits - np.log(np.exp(logits).sum(0))
        weight = np.where(shown[y, x] == 0, train_baselines.GROUND_WEIGHT, 1)
        total -= (np.take_along_axis(logs, shown[None, y, x], axis=0)[0] * weight).sum()
        weights += weight.sum()
    with torch.inference_mode():
        found = train_baselines.pixel_loss(model, pixels, scenes, rows, np.random.default_rng(4))
    assert found.item() == pytest.approx(total / weights, rel=1e-4)


def test_windows_show_a_thing_anywhere_in_them_and_stay_in_the_picture():
    classes = np.zeros((400, 128, 128), np.int64)
    classes[:200, 0, 127] = classes[200:, 60:62, 70] = 1
    corners = []
    for shown, (y, x) in zip(
        classes, sample_windows(classes, np.random.default_rng(0)), strict=True
    ):
        assert shown[y, x].shape == (64, 64) and shown[y, x].any()
        corners.append((y.start, x.start))
    assert set(corners[:200]) == {(0, 64)}
    assert min(y for y, _ in corners[200:]) <= 2 and max(y for y, _ in corners[200:]) > 55
    assert min(x for _, x in corners[200:]) < 12 and max(x for _, x in corners[200:]) == 64


# --- validation ---------------------------------------------------------------------------


def test_map_by_hand():
    vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32)
    kinds = np.zeros((4, len(COMBINATIONS)), bool)
    kinds[[0, 2], 0] = True
    kinds[[2, 3], 1] = True
    # 0 ranks 1, 2, 3 and wants 2; 2 ranks 1, 3, 0 and wants 0 and 3; 3 ranks 2 first, wants it;
    # 1 shares nothing and does not count.
    expected = (1 / 2 + (1 / 2 + 2 / 3) / 2 + 1) / 3
    assert measure_map(vectors, kinds) == pytest.approx(expected, abs=1e-4)


def test_iou_counts_each_class_over_all_scenes(scenes):
    model = create("toysegnet").eval()
    inputs = train_baselines._to_input(scenes.pool.scenes / np.float32(255))
    with torch.inference_mode():
        logits = model.segment(inputs)
        model.classifier.bias[0] += (logits.amax(1) - logits[:, 0]).median()  # half is ground
        measured = measure_iou(model, scenes, batch=20)
        found = model.segment(inputs).argmax(1).numpy()
    target = class_pixels(scenes, np.arange(TINY.scenes))
    ious = [((found == c) & (target == c)).sum() / max(((found == c) | (target == c)).sum(), 1)
            for c in range(13)]  # fmt: skip
    assert 0.3 < ious[0] < 0.7
    assert measured == pytest.approx(np.mean(ious), abs=1e-4)


def test_validation_learns_whitening_from_the_training_scenes(scenes):
    model = create("toydir")
    validate(model, scenes, scenes)
    with torch.inference_mode():
        vectors = train_baselines._encode(model, scenes.pool.scenes, model.pool)
    np.testing.assert_allclose(np.cov(vectors.numpy().T), np.eye(vectors.shape[1]), atol=1e-2)


# --- the run ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_training_goes_on_to_the_same_weights(
    name, folder, results, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path / "cache", ignore=shutil.ignore_patterns("toy*"))
    step = train_baselines._train_step

    def stop_at_three(*arguments):
        if arguments[-1] == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    weights = tmp_path / "again.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(train_baselines, "_train_step", stop_at_three)
        with pytest.raises(KeyboardInterrupt):
            train(name, TINY, cache=tmp_path / "cache", weights=weights)
    torch.manual_seed(99)  # what a fresh process would have is not what the first one had
    resumed = train(name, TINY, cache=tmp_path / "cache", weights=weights)
    assert resumed["curve"] == results[name]["curve"]
    assert weights.read_bytes() == (folder / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_training_brings_down_the_loss_of_a_batch(name, scenes):
    batch = {"toyvit": 8, "toydir": 48, "toysegnet": 4}[name]
    few = {field: getattr(scenes, field)[:batch] for field in ("kinds", "classes")}
    model, loss_of = create(name), TASKS[name][1]
    optimizer = training.make_optimizer(model, TINY)
    still = replace(TINY, batch=batch, jitter=0.0)
    losses = [
        train_baselines._train_step(
            model, optimizer, loss_of, replace(scenes, **few), still, step
        )["loss"] for step in range(8)
    ]  # fmt: skip
    assert max(losses[-2:]) < losses[0] - 0.015, losses


@pytest.mark.parametrize("name", NAMES)
def test_trained_weights_load_as_a_baseline(name, folder, results):
    path = folder / f"{name}.safetensors"
    encoder = load_baseline(f"{name}/{path}", device="cpu", precision="fp32")
    saved = load_file(path)
    for part, tensor in encoder.model.state_dict().items():
        torch.testing.assert_close(tensor, saved[part].to(tensor.dtype), rtol=0, atol=0)
    assert {part for part in saved if part not in encoder.model.state_dict()} <= {
        "classifier.weight", "classifier.bias",
    }  # fmt: skip


def test_validation_is_of_the_kinds_and_for_segnet_of_the_pixels(results):
    for name, result in results.items():
        assert [point["step"] for point in result["validation"]] == [2, 4]
        measured = set(result["validation"][-1]) - {"step"}
        assert measured == {"map_kinds"} | ({"iou_classes"} if name == "toysegnet" else set())
        assert all(0 < result["validation"][-1][key] < 1 for key in measured)


@pytest.mark.parametrize("name", NAMES)
def test_registered_trainer_trains_the_model(name, folder, results, tmp_path):
    for split in ("train", "val"):
        shutil.copytree(folder / f"pool-{split}", tmp_path / "cache/trial" / f"pool-{split}")
    record = train_cli.train_model(name, folder=tmp_path, scenes=48, steps=1)
    assert record["recipe"]["batch"] == RECIPES[name].batch
    parameters = record["parameters"]
    assert parameters["total"] >= parameters["image_encoder"] > 0.4 * parameters["total"]
    card = (tmp_path / "cache/trial/README.md").read_text(encoding="utf-8")
    assert f"## {name}" in card and "Intended use" in card and "same kind" in card
    assert ("timm 1." in card) == (name != "toysegnet")
