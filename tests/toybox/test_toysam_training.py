"""Training toysam: what it is asked, how it is scored, and that it resumes exactly."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from regionlab.models import training
from regionlab.models.registry import load_segmenter
from regionlab.models.sam import SIDE, create_toysam
from toybox import toysam as train_sam
from toybox.pool import open_pool
from toybox.render import render_scene
from toybox.toysam import (
    Recipe,
    add_correction,
    decode,
    dice_loss,
    focal_loss,
    iou_of_logits,
    sample_prompts,
    sample_targets,
    shrink_masks,
    train,
)
from toybox.world import sample_scene, scene_rng

TINY = Recipe(scenes=12, steps=4, restart=0, batch=3, prompts=2, warmup=1, save_every=2)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("toysam")


@pytest.fixture(scope="module")
def result(folder):
    return train(TINY, cache=folder, weights=folder / "toysam.safetensors")


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    return create_toysam()


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def owners():
    owners = np.zeros((256, 256), np.uint8)
    owners[40:90, 30:70] = 1
    owners[100:200, 90:240] = 3  # the second thing is hidden
    return owners


# --- what is asked ------------------------------------------------------------------------


def test_pool_says_which_thing_each_pixel_shows(folder, result):
    pool = open_pool(folder / "pool-train", seed=0, split="train", count=12, side=SIDE)
    for number in range(12):
        rng = scene_rng(0, "train", number)
        _, masks = render_scene(sample_scene(rng), rng)
        for thing, mask in enumerate(masks, 1):
            np.testing.assert_array_equal(pool.owners[number] == thing, mask)


def test_targets_are_mostly_things_at_times_the_ground_or_all_things(owners, rng):
    targets = sample_targets(owners, 4000, rng)
    kinds = {"ground": owners == 0, "all": owners > 0, "one": owners == 1, "three": owners == 3}
    share = {name: float((targets == mask).all((1, 2)).mean()) for name, mask in kinds.items()}
    assert sum(share.values()) == 1
    assert share == pytest.approx(
        {"ground": 0.08, "all": 0.04, "one": 0.44, "three": 0.44}, abs=0.02
    )


def test_box_prompts_are_scaled_to_the_encoders_input(owners, rng):
    masks = np.stack([owners == 1] * 300)
    prompt = sample_prompts(masks, "box", rng, "cpu")
    assert prompt["points"] is None
    middle = prompt["boxes"].mean(0).numpy()
    np.testing.assert_allclose(middle, np.array([30, 40, 70, 90]) / 2, atol=0.5)


@pytest.mark.parametrize(("kind", "labels"), [("point", [1]), ("points", [1, 1, 0])])
def test_clicks_are_inside_where_positive_and_outside_where_negative(owners, rng, kind, labels):
    masks = np.stack([owners == 3] * 50)
    prompt = sample_prompts(masks, kind, rng, "cpu")
    xy, drawn = prompt["points"]
    assert drawn.tolist() == [labels] * 50
    spots = (xy.numpy() * 2).astype(int)
    hits = masks[0][spots[..., 1], spots[..., 0]]
    np.testing.assert_array_equal(hits, drawn.numpy() == 1)


def test_correction_clicks_where_the_mask_is_wrong(rng):
    target = torch.zeros(40, 1, 8, 8)
    target[:, :, 2:6, 2:6] = 1
    found = torch.full((40, 1, 8, 8), -5.0)
    found[:20, :, 2:6, 2:7] = 5.0  # too wide
    found[20:, :, 2:6, 2:5] = 5.0  # too narrow
    prompt = sample_prompts(np.ones((40, 256, 256), bool), "point", rng, "cpu")
    corrected = add_correction(prompt, found, target)
    xy, labels = corrected["points"]
    cells = (xy[:, 1] / (SIDE / 8)).floor()
    assert labels[:, 1].tolist() == [0] * 20 + [1] * 20
    assert set(cells[:20, 0].tolist()) == {6.0} and set(cells[20:, 0].tolist()) == {5.0}
    assert cells[:, 1].min() >= 2 and cells[:, 1].max() <= 5
    assert corrected["logits"] is found


def test_correction_of_a_right_mask_clicks_inside_it(owners, rng):
    target = torch.zeros(30, 1, 8, 8)
    target[:, :, 4:, 4:] = 1
    prompt = sample_prompts(np.stack([owners == 1] * 30), "box", rng, "cpu")
    xy, labels = add_correction(prompt, target * 10 - 5, target)["points"]
    assert labels.min() == 1 and xy.min() >= SIDE / 2


def test_shrunk_masks_hold_the_cover_of_each_cell():
    mask = np.zeros((1, 8, 8), bool)
    mask[0, :3, :4] = True
    expected = [[1, 0], [0, 0]]
    shrunk = shrink_masks(mask, 2)
    assert shrunk.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(shrunk[0, 0], np.array(expected) * 12 / 16)


# --- how it is scored ---------------------------------------------------------------------


def test_dice_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])[None, None]  # one half everywhere
    target = torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None, None]
    expected = 1 - 2 * (2 * 0.5) / (4 * 0.25 + 2)
    assert dice_loss(logits, target).item() == pytest.approx(expected)


def test_dice_loss_of_the_exact_cover_is_zero():
    cover = torch.tensor([0.25, 0.5, 0.9, 0.1]).view(1, 1, 2, 2)
    assert dice_loss(cover.logit(), cover).item() == pytest.approx(0, abs=1e-5)


def test_focal_loss_by_hand():
    logits = torch.tensor([0.8, -1.3]).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    p = 1 / (1 + np.exp(-np.array([0.8, -1.3])))
    expected = ((1 - p[0]) ** 2 * -np.log(p[0]) + p[1] ** 2 * -np.log(1 - p[1])) / 2
    assert focal_loss(logits, target).item() == pytest.approx(expected)


def test_iou_of_each_of_several_masks_with_one_target():
    target = torch.tensor([[1.0, 1.0, 0.4, 0.0]]).view(1, 1, 1, 4)
    logits = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [-1, -1, -1, -1]]).view(1, 3, 1, 4)
    np.testing.assert_allclose(iou_of_logits(logits, target), [[1, 1 / 3, 0]])


def test_decode_equals_sams_own_decoder_on_each_image(sam):
    torch.manual_seed(1)
    images = torch.randn(3, *sam.image_encoder(torch.zeros(1, 3, SIDE, SIDE)).shape[1:])
    boxes = torch.rand(3, 4) * SIDE
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder(None, boxes, None)
        masks, quality = decode(sam, images, sparse, dense)
        for n in range(3):
            alone = sam.mask_decoder.predict_masks(
                images[n : n + 1], sam.prompt_encoder.get_dense_pe(),
                sparse[n : n + 1], dense[n : n + 1],
            )  # fmt: skip
            torch.testing.assert_close(masks[n], alone[0][0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(quality[n], alone[1][0], rtol=1e-4, atol=1e-5)


def test_a_single_click_learns_by_the_best_of_three_masks_and_a_box_by_the_single_one(
    sam, owners, rng
):
    images = sam.image_encoder(torch.zeros(1, 3, SIDE, SIDE)).expand(2, -1, -1, -1)
    masks = np.stack([owners == 1, owners == 3])
    target = shrink_masks(masks, 64)
    for kind, used in (("point", slice(1, 4)), ("box", slice(0, 1))):
        prompt = sample_prompts(masks, kind, rng, "cpu")
        logits, _ = decode(
            sam, images, *sam.prompt_encoder(prompt["points"], prompt["boxes"], None)
        )
        each = 20 * focal_loss(logits, target) + dice_loss(logits, target)
        losses, _ = train_sam._prompt_loss(sam, images, prompt, target, TINY)
        torch.testing.assert_close(losses["mask"], each[:, used].amin(1))


def test_learning_rate_falls_to_zero_twice_the_second_time_from_half_the_height():
    recipe = Recipe(steps=50, restart=30, warmup=10, learning_rate=1.0)
    rates = [training.learning_rate(recipe, step) for step in range(50)]
    assert rates[9:11] == [1, 1] and rates[30] == 1 / 2
    assert rates[20] == pytest.approx(1 / 2) and rates[40] == pytest.approx(1 / 4)
    assert rates[29] < 0.01 and rates[49] < 0.01


# --- the run ------------------------------------------------------------------------------


def test_training_changes_every_part_of_the_model(folder, result, sam):
    torch.manual_seed(TINY.seed)
    before, after = create_toysam().state_dict(), load_file(folder / "toysam.safetensors")
    for part in ("image_encoder.", "prompt_encoder.point", "mask_decoder.transformer"):
        names = [name for name in before if name.startswith(part)]
        assert any((before[n] - after[n].float()).abs().max() > 1e-4 for n in names)


def test_interrupted_training_goes_on_to_the_same_weights(folder, result, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "cache", ignore=shutil.ignore_patterns("toysam*"))
    step = train_sam._train_step

    def stop_at_two(*arguments):
        if arguments[-1] == 2:
            raise KeyboardInterrupt
        return step(*arguments)

    weights = tmp_path / "again.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(train_sam, "_train_step", stop_at_two)
        with pytest.raises(KeyboardInterrupt):
            train(TINY, cache=tmp_path / "cache", weights=weights)
    torch.manual_seed(99)  # what a fresh process would have is not what the first one had
    resumed = train(TINY, cache=tmp_path / "cache", weights=weights)
    assert resumed["curve"] == result["curve"]
    assert weights.read_bytes() == (folder / "toysam.safetensors").read_bytes()


def test_validation_measures_boxes_and_clicks(result):
    last = result["validation"][-1]
    assert last["step"] == 4
    assert 0 <= last["iou_box"] <= 1 and 0 <= last["iou_point"] <= 1


def test_weights_load_into_toysam(folder, result):
    saved = load_file(folder / "toysam.safetensors")
    name = f"toysam/{folder / 'toysam.safetensors'}"
    sam = load_segmenter(name, device="cpu", precision="fp32").predictor.model
    assert not sam.training
    for name, tensor in sam.state_dict().items():
        torch.testing.assert_close(tensor, saved[name].float(), rtol=0, atol=0)
