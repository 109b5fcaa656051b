"""Triplets as vectors: encoded once, taken up again, images left out; and the lessons of them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regionlab.compose import benchmark as composed_data
from regionlab.compose.benchmark import ComposedFeatures, encode_triplets
from regionlab.compose.training import list_wordings, make_training_set
from regionlab.data.triplets import Triplets, join_captions, make_queries
from regionlab.models.registry import load_encoder

COUNT = 10


def make_triplets(root, rows, *, count=COUNT, suffix=".png"):
    """Make triplets of (reference, target or None, captions) of images 0 to count - 1."""
    names = tuple(f"image{i}" for i in range(count))
    queries = make_queries(
        (str(i), names[a], None if b is None else names[b], captions, ())
        for i, (a, b, captions) in enumerate(rows)
    )
    files = {name: Path(root) / f"{name}{suffix}" for name in names}
    return Triplets("some", "train", "", queries, names, files)


def write_picture(path, seed):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8)).save(path)


ROWS = [(0, 1, ("is red",)), (2, 3, ("is blue",)), (4, 9, ("has dots",))]


@pytest.fixture
def triplets(tmp_path):
    for i in range(COUNT):
        write_picture(tmp_path / f"image{i}.png", i)
    return make_triplets(tmp_path, ROWS)


@pytest.fixture
def shards_of_four(monkeypatch):
    monkeypatch.setattr(composed_data, "SHARD", 4)


def encode_one_by_one(encoder, triplets):
    files = [triplets.files[name] for name in triplets.gallery]
    return np.concatenate([encoder.encode_images(file, unit=False) for file in files])


# Encoding


def test_rows_are_the_gallery_as_long_as_the_model_makes_them(encoder, triplets, shards_of_four):
    features = encode_triplets(encoder, triplets)
    expected = encode_one_by_one(encoder, triplets)
    np.testing.assert_allclose(features.vectors, expected, atol=1e-5)
    assert features.vectors.dtype == np.float32
    np.testing.assert_array_equal(features.references, features.vectors[[0, 2, 4]])
    np.testing.assert_allclose(np.linalg.norm(features.gallery, axis=1), 1, atol=1e-6)
    assert features.failures == []
    assert features.triplets.gallery == triplets.gallery


def test_missing_images_are_listed_and_their_queries_left_out(encoder, triplets):
    triplets.files["image3"].unlink()
    triplets.files["image8"].unlink()  # of no query
    features = encode_triplets(encoder, triplets)
    assert features.failures == [("image3", "missing"), ("image8", "missing")]
    assert features.triplets.queries["query_id"].tolist() == ["0", "2"]
    assert len(features.vectors) == 8
    np.testing.assert_array_equal(features.references, features.vectors[[0, 3]])
    np.testing.assert_allclose(
        features.vectors, encode_one_by_one(encoder, features.triplets), atol=1e-5
    )


def test_unreadable_files_are_listed_and_their_queries_left_out(encoder, triplets, shards_of_four):
    triplets.files["image0"].unlink()
    triplets.files["image9"].write_bytes(b"no picture")
    features = encode_triplets(encoder, triplets)
    assert [name for name, _ in features.failures] == ["image0", "image9"]
    assert "image9.png" in features.failures[1][1]
    assert features.triplets.queries["query_id"].tolist() == ["1"]
    assert features.triplets.gallery == tuple(f"image{i}" for i in range(1, 9))
    np.testing.assert_allclose(
        features.vectors, encode_one_by_one(encoder, features.triplets), atol=1e-5
    )


def test_no_query_left_is_an_error(encoder, triplets):
    for i in (0, 2, 4):
        triplets.files[f"image{i}"].write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no query of some train is left"):
        encode_triplets(encoder, triplets)
    for file in triplets.files.values():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="missing images, such as .*image0.png"):
        encode_triplets(encoder, triplets)


# Taken up again


def mark_shards(folder, value):
    """Replace what all shards hold, so that it shows where one is taken up."""
    shards = sorted(folder.glob("*.npy"))
    for shard in shards:
        np.save(shard, np.full_like(np.load(shard), value))
    return shards


def test_shards_on_disk_are_taken_up_and_missing_ones_made(
    encoder, triplets, tmp_path, shards_of_four
):
    folder = tmp_path / "features"
    expected = encode_triplets(encoder, triplets, folder=folder).vectors
    second = next(f for f in folder.glob("*.npy") if np.array_equal(np.load(f), expected[4:8]))
    assert len(mark_shards(folder, 7)) == 3
    second.unlink()
    found = encode_triplets(encoder, triplets, folder=folder).vectors
    assert (found[:4] == 7).all()
    assert (found[8:] == 7).all()
    np.testing.assert_array_equal(found[4:8], expected[4:8])
    np.testing.assert_array_equal(np.load(second), expected[4:8])


def test_a_changed_file_is_encoded_anew(encoder, triplets, tmp_path, shards_of_four):
    folder = tmp_path / "features"
    encode_triplets(encoder, triplets, folder=folder)
    mark_shards(folder, 7)
    write_picture(triplets.files["image5"], 100)
    found = encode_triplets(encoder, triplets, folder=folder).vectors
    assert (found[[0, 3, 8, 9]] == 7).all()
    np.testing.assert_allclose(found[4:8], encode_one_by_one(encoder, triplets)[4:8], atol=1e-5)


def test_a_file_with_another_time_is_encoded_anew(encoder, triplets, tmp_path):
    folder = tmp_path / "features"
    encode_triplets(encoder, triplets, folder=folder)
    mark_shards(folder, 7)
    os.utime(triplets.files["image5"], (1, 1))
    assert not (encode_triplets(encoder, triplets, folder=folder).vectors == 7).any()


def test_features_of_another_encoder_are_not_taken_up(encoder, encoder_file, triplets, tmp_path):
    folder = tmp_path / "features"
    encode_triplets(encoder, triplets, folder=folder)
    mark_shards(folder, 7)
    name = f"toyclip/{encoder_file}"
    for changes in ({"padding": "square", "precision": "fp32"}, {"precision": "bf16"}):
        other = load_encoder(name, device="cpu", **changes)
        assert not (encode_triplets(other, triplets, folder=folder).vectors == 7).any()


def test_an_unreadable_file_is_read_again_and_the_others_of_its_shard_are_not(
    encoder, triplets, tmp_path
):
    folder = tmp_path / "features"
    triplets.files["image9"].write_bytes(b"no picture")
    first = encode_triplets(encoder, triplets, folder=folder)
    [shard] = folder.glob("*.npy")
    kept = np.load(shard)
    assert np.isnan(kept[9]).all()
    kept[:9] = 7
    np.save(shard, kept)
    again = encode_triplets(encoder, triplets, folder=folder)
    assert again.failures == first.failures
    assert again.triplets.gallery == first.triplets.gallery
    assert (again.vectors == 7).all()


# Lessons


@pytest.mark.parametrize("captions", [("Is RED.", "no sleeves?"), ("is red, ", "Is red")])
def test_wordings_are_the_four_forms_that_training_draws(captions):
    rng = np.random.default_rng(0)
    drawn = {join_captions(captions, rng=rng) for _ in range(200)}
    wordings = list_wordings(captions)
    assert len(wordings) == 4
    assert set(wordings) == drawn
    assert wordings[0] == join_captions(captions)


def test_one_caption_is_one_wording():
    assert list_wordings(("Is RED.",)) == ("Is RED.",)


def make_features(rows, vectors):
    return ComposedFeatures(make_triplets("nowhere", rows, count=len(vectors)), vectors, [])


def test_lessons_join_categories_and_make_wordings_equally_many():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 3)).astype(np.float32) for n in (4, 2))
    sets = [
        make_features([(0, 3, ("is red", "no sleeves")), (2, 1, ("is blue",))], a),
        make_features([(1, 0, ("has dots",))], b),
    ]
    training_set = make_training_set(sets)
    np.testing.assert_array_equal(training_set.references, [a[0], a[2], b[1]])
    np.testing.assert_array_equal(training_set.targets, [a[3], a[1], b[0]])
    assert [len(w) for w in training_set.wordings] == [4, 4, 4]
    assert training_set.wordings[0] == list_wordings(("is red", "no sleeves"))
    assert training_set.wordings[1:] == [("is blue",) * 4, ("has dots",) * 4]
    lengths = [np.linalg.norm(v) for v in (*a, *b)]
    assert training_set.image_length == pytest.approx(np.mean(lengths), rel=1e-5)


def test_nothing_is_learnt_from_hidden_targets():
    features = make_features([(0, 1, ("is red",)), (1, None, ("is blue",))], np.eye(3))
    with pytest.raises(ValueError, match="from some train: targets are hidden"):
        make_training_set([features])
