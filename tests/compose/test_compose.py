"""Composing a picture and words: the fusions by hand, the ladder, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open

from regionlab.compose import composers as fusions
from regionlab.compose.combiner import CombinerSize
from regionlab.compose.composers import COMPOSERS, Composer, check_texts, create_composer
from regionlab.compose.files import COMBINERS, TEXT, TrainedParts, write_combiner, write_text
from regionlab.compose.training import CombinerRecipe, create_combiner
from regionlab.models.clip import TextFeatures, text_parameters
from regionlab.models.registry import load_encoder
from regionlab.models.weights import WeightsError
from regionlab.util.files import hash_file

TEXTS = ["make the ring green", "add a star"]
LENGTH = 10.0


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# The fusions


def test_the_sum_is_of_the_features_as_they_are():
    found = fusions.add(np.array([[3.0, 0]]), np.array([[0, 4.0]]))
    np.testing.assert_array_equal(found, [[3, 4]])


def test_image_and_text_alone():
    images, texts = np.array([[3.0, 0]]), np.array([[0, 4.0]])
    assert fusions.image_only(images, texts) is images
    assert fusions.text_only(images, texts) is texts


def test_the_weighted_sum_is_of_unit_vectors():
    found = fusions.weighted_sum(np.array([[3.0, 0]]), np.array([[0, 40.0]]), weight=1 / 4)
    np.testing.assert_allclose(found, [[3 / 4, 1 / 4]])


@pytest.mark.parametrize("fusion", [fusions.weighted_sum, fusions.slerp])
def test_weight_0_is_the_image_and_weight_1_the_text(fusion):
    rng = np.random.default_rng(0)
    images, texts = rng.normal(0, 3, (2, 5, 4))
    np.testing.assert_allclose(fusion(images, texts, weight=0), unit(images), atol=1e-12)
    np.testing.assert_allclose(fusion(images, texts, weight=1), unit(texts), atol=1e-12)


def test_slerp_by_hand():
    images, texts = np.array([[2.0, 0]]), np.array([[0, 5.0]])
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(fusions.slerp(images, texts, weight=1 / 2), [[half, half]])
    third = [[np.sqrt(3) / 2, 1 / 2]]  # 30 of 90 degrees
    np.testing.assert_allclose(fusions.slerp(images, texts, weight=1 / 3), third)


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.85])
def test_slerp_goes_its_share_of_the_angle_on_the_great_circle(weight):
    rng = np.random.default_rng(0)
    images, texts = rng.normal(0, 3, (2, 20, 4))
    found = fusions.slerp(images, texts, weight=weight)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    whole = np.arccos((unit(images) * unit(texts)).sum(1))
    np.testing.assert_allclose(np.arccos((unit(images) * found).sum(1)), weight * whole)
    np.testing.assert_allclose(np.arccos((unit(texts) * found).sum(1)), (1 - weight) * whole)
    rank = [
        np.linalg.matrix_rank(rows, tol=1e-9) for rows in zip(images, texts, found, strict=True)
    ]
    assert set(rank) == {2}


def test_slerp_between_equal_directions_stays_there():
    images = np.array([[3.0, 4.0]], np.float32)
    found = fusions.slerp(images, 2 * images, weight=0.3)
    np.testing.assert_allclose(found, [[3 / 5, 4 / 5]], atol=1e-6)


def test_between_opposite_directions_there_is_no_middle():
    images = np.array([[3.0, 4.0]])
    with pytest.raises(ValueError, match="vector 0 is zero"):
        fusions.to_unit(fusions.slerp(images, -images, weight=0.5))
    with pytest.raises(ValueError, match="vector 1 is zero or not finite: it has no direction"):
        fusions.to_unit(fusions.add(np.array([[1.0, 0], [1, 2]]), np.array([[1.0, 0], [-1, -2]])))


# A composer, with features chosen by hand


def make_composer(fuse=fusions.add, features=((0.0, 4), (0, 4)), length=LENGTH):
    return Composer("sum", lambda texts: np.array(features, np.float32), fuse, length)


def test_a_sum_by_hand_has_unit_length():
    found = make_composer().compose(np.array([[3.0, 0], [0, 2]]), TEXTS)
    np.testing.assert_allclose(found, [[3 / 5, 4 / 5], [0, 1]])
    assert found.dtype == np.float32


def test_unit_vectors_are_stretched_and_raw_ones_left_alone():
    found = make_composer().compose(np.array([[1.0, 0], [3, 0]]), TEXTS)
    expected = unit(np.array([[LENGTH, 4.0], [3, 4]]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_length_that_is_nearly_1_is_1_and_no_further():
    found = make_composer().compose(np.array([[1.0005, 0], [1.01, 0]]), TEXTS)
    expected = unit(np.array([[LENGTH * 1.0005, 4.0], [1.01, 4]]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_callers_vectors_are_not_changed():
    images = np.array([[1.0, 0], [3, 0]], np.float32)
    make_composer().compose(images, TEXTS)
    np.testing.assert_array_equal(images, [[1, 0], [3, 0]])


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2, 3), (2,), (2, 2, 1)])
def test_vectors_that_do_not_fit_the_texts_are_refused(shape):
    with pytest.raises(ValueError, match=r"image_vectors must be \(2, 2\), .* got "):
        make_composer().compose(np.ones(shape), TEXTS)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_are_refused(bad):
    images = np.array([[3.0, 0], [bad, 0]])
    with pytest.raises(ValueError, match="zero or not finite"):
        make_composer().compose(images, TEXTS)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("make it red", "texts is a single string, 'make it red': give a list"),
        (["make it red", " "], "text 1 is ' ': a change needs at least one word"),
        ([None, "red"], "text 0 is None"),
        ([3, "red"], "text 0 is 3"),
    ],
)
def test_texts_without_words_are_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        make_composer().compose(np.ones((2, 2)), texts)


def test_texts_may_come_as_any_sequence():
    assert check_texts(("a", "b")) == ["a", "b"]
    assert check_texts(np.array(["a", "b"])) == ["a", "b"]


# The ladder


def draw_images(encoder, count=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.3, (count, encoder.dim)).astype(np.float32)


@pytest.fixture(scope="module")
def tuned(encoder):
    own = text_parameters(encoder.model)
    generator = torch.Generator().manual_seed(1)
    names = ["token_embedding.weight", "ln_final.bias"]
    return {
        name: own[name].detach() + 0.05 * torch.randn(own[name].shape, generator=generator)
        for name in names
    }


@pytest.fixture(scope="module")
def combiners(encoder):
    recipes = {name: CombinerRecipe(seed=i, projection=1, hidden=1)
               for i, name in enumerate(COMBINERS)}  # fmt: skip
    return {name: create_combiner(encoder.dim, recipe) for name, recipe in recipes.items()}


@pytest.fixture(scope="module")
def folder(encoder, tuned, combiners, tmp_path_factory):
    """Both stages as training leaves them, with weights that are hardly rounded."""
    folder = tmp_path_factory.mktemp("parts")
    path = TrainedParts(encoder, folder).path
    write_text(path(TEXT), tuned, text_parameters(encoder.model), encoder, image_length=LENGTH)
    for name, combiner in combiners.items():
        texts = hash_file(path(TEXT)) if name == "fine_tuned_combiner" else ""
        write_combiner(path(name), combiner, encoder, image_length=LENGTH, texts=texts)
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "parts")


def test_the_ladder_has_eight_rungs_in_order():
    assert list(COMPOSERS) == [
        "image", "text", "sum", "weighted", "slerp", "fine_tuned_sum", "combiner",
        "fine_tuned_combiner",
    ]  # fmt: skip


@pytest.mark.parametrize("name", COMPOSERS)
def test_each_rung_is_made_of_what_it_says(encoder, tuned, combiners, folder, name):
    images = draw_images(encoder)
    own, new = (TextFeatures(encoder, w).encode_texts(TEXTS) for w in (None, tuned))
    expected = {
        "image": images,
        "text": own,
        "sum": images + own,
        "weighted": 0.7 * unit(images) + 0.3 * unit(own),
        "slerp": fusions.slerp(images, own, weight=0.3),
        "fine_tuned_sum": images + new,
        "combiner": combiners["combiner"].compose(images, own),
        "fine_tuned_combiner": combiners["fine_tuned_combiner"].compose(images, new),
    }
    weight = 0.3 if COMPOSERS[name].weighted else None
    composer = create_composer(name, encoder, folder=folder, weight=weight)
    found = composer.compose(images, TEXTS)
    np.testing.assert_allclose(found, unit(expected[name]), atol=2e-3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", COMPOSERS)
def test_no_queries_compose_to_none(encoder, folder, name):
    weight = 0.3 if COMPOSERS[name].weighted else None
    composer = create_composer(name, encoder, folder=folder, weight=weight)
    assert composer.compose(np.empty((0, encoder.dim)), []).shape == (0, encoder.dim)


@pytest.mark.parametrize("name", ["sum", "fine_tuned_sum", "combiner"])
def test_unit_vectors_get_the_length_of_the_training_images(encoder, folder, name):
    images = unit(draw_images(encoder))
    composer = create_composer(name, encoder, folder=folder)
    assert composer.image_length == LENGTH
    np.testing.assert_allclose(
        composer.compose(images, TEXTS), composer.compose(LENGTH * images, TEXTS), atol=1e-5
    )


def test_a_length_that_is_given_goes_first(encoder, folder):
    assert create_composer("sum", encoder, folder=folder, image_length=3).image_length == 3


@pytest.mark.parametrize("name", ["image", "text", "weighted", "slerp"])
def test_where_lengths_do_not_matter_no_trained_part_is_needed(encoder, tmp_path, name):
    composer = create_composer(name, encoder, folder=tmp_path, weight=0.3)
    images = draw_images(encoder)
    np.testing.assert_allclose(
        composer.compose(images, TEXTS), composer.compose(unit(images), TEXTS), atol=1e-6
    )


def test_a_sum_of_unit_vectors_needs_their_length(encoder, tmp_path):
    with pytest.raises(WeightsError, match="image_length is not given, nor known"):
        create_composer("sum", encoder, folder=tmp_path)
    create_composer("sum", encoder, folder=tmp_path, image_length=LENGTH)


def test_an_unknown_name_is_refused(encoder):
    with pytest.raises(ValueError, match="unknown composer 'mean'; known: image, text, sum, "):
        create_composer("mean", encoder)


@pytest.mark.parametrize("name", ["weighted", "slerp"])
@pytest.mark.parametrize("weight", [None, -0.1, 1.1, float("nan")])
def test_a_weight_is_in_0_to_1(encoder, name, weight):
    with pytest.raises(ValueError, match=f"{name} needs the weight of the words, in .* {weight}"):
        create_composer(name, encoder, weight=weight)


@pytest.mark.parametrize("length", [0, -1.0, float("nan"), float("inf")])
def test_a_length_is_positive(encoder, length):
    with pytest.raises(ValueError, match="image_length must be positive"):
        create_composer("sum", encoder, image_length=length)


# Trained parts that do not fit


@pytest.mark.parametrize("name", ["fine_tuned_sum", "combiner", "fine_tuned_combiner"])
def test_parts_that_are_missing_say_what_to_do(encoder, tmp_path, name):
    with pytest.raises(WeightsError, match="there is no .*composed_.*regionlab compose train"):
        create_composer(name, encoder, folder=tmp_path)


def test_a_tuned_combiner_without_its_text_encoder_says_so(encoder, copied):
    (copied / "composed_text.safetensors").unlink()
    with pytest.raises(WeightsError, match="there is no .*composed_text.safetensors"):
        create_composer("fine_tuned_combiner", encoder, folder=copied)
    create_composer("combiner", encoder, folder=copied)


@pytest.mark.parametrize("name", ["sum", "fine_tuned_sum", "combiner", "fine_tuned_combiner"])
def test_parts_of_another_encoder_are_refused(encoder_file, folder, name):
    other = load_encoder(f"toyclip/{encoder_file}", device="cpu", padding="target")
    with pytest.raises(WeightsError, match="was trained on toyclip/random.safetensors, whose feat"):
        create_composer(name, other, folder=folder)


def test_parts_fit_their_encoder_in_another_precision(encoder, encoder_file, folder):
    other = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    images = draw_images(encoder)
    found, expected = (
        create_composer("fine_tuned_combiner", e, folder=folder).compose(images, TEXTS)
        for e in (other, encoder)
    )
    assert (found * expected).sum(1).min() > 0.999


def test_a_combiner_of_another_tuned_text_encoder_is_refused(encoder, tuned, copied):
    changed = {name: tensor + 0.01 for name, tensor in tuned.items()}
    path = TrainedParts(encoder, copied).path(TEXT)
    write_text(path, changed, text_parameters(encoder.model), encoder, image_length=LENGTH)
    with pytest.raises(WeightsError, match="learnt with another text encoder .*: train the Comb"):
        create_composer("fine_tuned_combiner", encoder, folder=copied)
    create_composer("combiner", encoder, folder=copied)


@pytest.mark.parametrize("swapped", [COMBINERS, dict(reversed(COMBINERS.items()))])
def test_combiners_of_frozen_and_tuned_texts_do_not_stand_in_for_each_other(
    encoder, copied, swapped
):
    first, second = (TrainedParts(encoder, copied).path(name) for name in swapped)
    shutil.copyfile(first, second)
    with pytest.raises(WeightsError, match="learnt with another text encoder"):
        create_composer(list(swapped)[1], encoder, folder=copied)


def test_the_same_weights_make_the_same_file(encoder, tuned, folder, tmp_path):
    path = tmp_path / "again.safetensors"
    for _ in range(5):
        write_text(path, tuned, text_parameters(encoder.model), encoder, image_length=LENGTH)
        assert path.read_bytes() == (folder / "composed_text.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["fine_tuned_sum", "combiner"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\0" * 99]
)
def test_a_damaged_file_is_refused(encoder, copied, name, damage):
    path = TrainedParts(encoder, copied).path(TEXT if name == "fine_tuned_sum" else name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match="is damaged"):
        create_composer(name, encoder, folder=copied, image_length=1)


def test_a_file_under_the_name_of_another_part_is_refused(encoder, copied):
    path = TrainedParts(encoder, copied).path
    text = path(TEXT).read_bytes()
    shutil.copyfile(path("combiner"), path(TEXT))
    with pytest.raises(WeightsError, match="composed_text.safetensors does not fit: the model has"):
        create_composer("fine_tuned_sum", encoder, folder=copied)
    path("combiner").write_bytes(text)
    with pytest.raises(WeightsError, match="composed_combiner.safetensors is no Combiner"):
        create_composer("combiner", encoder, folder=copied)


def test_a_file_of_something_else_is_refused(encoder, encoder_file, copied):
    shutil.copyfile(encoder_file, copied / "composed_text.safetensors")
    with pytest.raises(WeightsError, match="was trained on no encoder of ours"):
        create_composer("fine_tuned_sum", encoder, folder=copied)


def test_loading_draws_no_random_numbers(encoder, folder):
    before = torch.get_rng_state()
    for name in ("fine_tuned_sum", *COMBINERS):
        create_composer(name, encoder, folder=folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_files_name_the_encoder_but_no_folder_of_this_machine(encoder, folder):
    for name in (TEXT, *COMBINERS):
        with safe_open(TrainedParts(encoder, folder).path(name), framework="pt") as file:
            about = file.metadata()
        assert about["model"] == "toyclip/random.safetensors"
        assert about["clip"] == encoder.space
        assert float(about["image_length"]) == LENGTH


def test_a_combiner_comes_back_in_its_size(encoder, folder):
    combiner = TrainedParts(encoder, folder).load_combiner("combiner")
    assert combiner.size == CombinerSize(encoder.dim, 1, 1)
    assert not combiner.training


def test_rungs_can_be_had_side_by_side(encoder, folder):
    images = draw_images(encoder)
    first = create_composer("sum", encoder, folder=folder)
    expected = first.compose(images, TEXTS)
    second = create_composer("fine_tuned_sum", encoder, folder=folder)
    assert np.abs(second.compose(images, TEXTS) - expected).max() > 1e-3
    np.testing.assert_array_equal(first.compose(images, TEXTS), expected)
