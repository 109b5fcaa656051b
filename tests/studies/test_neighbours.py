"""Labels by neighbours agree with scikit-learn's, and with hand-worked shares."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from regionlab.data.images import ImageError, write_image
from regionlab.models.encoder import Encoder
from regionlab.studies.labels import (
    NeighbourLabels,
    chance_of_labels,
    keep_allowed,
    label_by_neighbours,
    pixels_to_vectors,
    rescale_twice,
)

RNG = np.random.default_rng(0)
NAMES = np.array(["cat", "dog", "emu", "fox"])


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clusters():
    """Vectors around four centres that overlap: gallery, its labels, queries, theirs."""
    centres = RNG.normal(size=(4, 8))
    rows, asked = RNG.integers(0, 4, 300), RNG.integers(0, 4, 120)
    gallery = unit(centres[rows] + 1.2 * RNG.normal(size=(300, 8)))
    queries = unit(centres[asked] + 1.2 * RNG.normal(size=(120, 8)))
    return gallery, NAMES[rows], queries, NAMES[asked]


# --- against scikit-learn ---------------------------------------------------------------


def test_nearest_label_is_that_of_a_1nn_classifier(clusters):
    gallery, labels, queries, truth = clusters
    knn = KNeighborsClassifier(1, metric="cosine").fit(gallery, labels)
    found = label_by_neighbours(*clusters)
    assert found.labels[:, 0].tolist() == knn.predict(queries).tolist()
    assert found.top1.mean() == knn.score(queries, truth)
    assert 0.4 < found.top1.mean() < 0.95


@pytest.mark.parametrize("k", [1, 5, 300])
def test_neighbours_are_those_of_scikit_learn(clusters, k):
    gallery, labels, queries, truth = clusters
    knn = KNeighborsClassifier(k, metric="cosine").fit(gallery, labels)
    rows = knn.kneighbors(queries, return_distance=False)
    found = label_by_neighbours(*clusters, k=k)
    np.testing.assert_array_equal(found.rows, rows)
    assert found.among.tolist() == [truth[i] in labels[rows[i]] for i in range(120)]


def test_vote_is_that_of_a_5nn_classifier_where_one_label_leads(clusters):
    gallery, labels, queries, truth = clusters
    knn = KNeighborsClassifier(5, metric="cosine").fit(gallery, labels)
    shares = np.sort(knn.predict_proba(queries), axis=1)
    clear = shares[:, -1] > shares[:, -2]
    found = label_by_neighbours(*clusters, k=5)
    assert 60 < clear.sum() < 120
    assert found.voted[clear].tolist() == knn.predict(queries)[clear].tolist()
    np.testing.assert_array_equal(found.vote, found.voted == truth)


@pytest.mark.parametrize("chunk", [1, 7, 120, 1000])
def test_chunks_change_nothing(clusters, chunk):
    whole, parts = (label_by_neighbours(*clusters, chunk=c) for c in (500, chunk))
    np.testing.assert_array_equal(parts.rows, whole.rows)
    np.testing.assert_array_equal(parts.scores, whole.scores)


# --- by hand ----------------------------------------------------------------------------


def make_found(truth, *labels):
    labels = np.array([list(line) for line in labels])
    return NeighbourLabels(np.array(list(truth)), labels, np.zeros(labels.shape), labels == "")


def test_right_label_among_five_is_no_vote():
    found = make_found("aaaa", "abbbb", "baaab", "bbbba", "bbbcc")
    assert found.top1.tolist() == [True, False, False, False]
    assert found.among.tolist() == [True, True, True, False]
    assert found.vote.tolist() == [False, True, False, False]
    assert (found.top1.mean(), found.among.mean(), found.vote.mean()) == (1 / 4, 3 / 4, 1 / 4)


def test_of_labels_with_as_many_votes_the_nearest_wins():
    found = make_found("aaa", "baabc", "cbaab", "edcba")
    assert found.voted.tolist() == ["b", "b", "e"]


def test_excluded_rows_are_no_neighbours(clusters):
    gallery, labels, _, _ = clusters
    own = np.arange(300)
    assert label_by_neighbours(gallery, labels, gallery, labels).top1.all()
    found = label_by_neighbours(gallery, labels, gallery, labels, exclude=own, chunk=64)
    assert not (found.rows == own[:, None]).any()
    assert found.top1.mean() < 1


def test_neighbour_that_is_not_there_has_no_label():
    gallery = np.eye(2, dtype=np.float32)
    found = label_by_neighbours(gallery, ["a", "b"], gallery[:1], ["a"], k=2, exclude=[0])
    assert found.labels.tolist() == [["b", ""]]
    assert found.voted.tolist() == ["b"]


def test_progress_goes_by_chunks(clusters, capsys, monkeypatch):
    monkeypatch.setenv("REGIONLAB_RUN", "x")
    label_by_neighbours(*clusters, chunk=50, progress=True)
    assert "50 queries a step: 3/3" in capsys.readouterr().out


def test_progress_comes_with_the_search_and_not_before(clusters, monkeypatch):
    log = []

    def search(engine, queries, k, *, exclude):
        log.append("search")
        return np.zeros((len(queries), k), int), np.zeros((len(queries), k))

    def show(items, desc):
        for item in items:
            yield item
            log.append("step")

    monkeypatch.setattr("regionlab.studies.labels.show_progress", show)
    monkeypatch.setattr("regionlab.studies.labels.ExactEngine.search", search)
    label_by_neighbours(*clusters, chunk=60, progress=True)
    assert log == ["search", "step"] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: NAMES}, r"gallery: 300 vectors, labels of shape \(4,\)"),
        ({3: NAMES}, r"queries: 120 vectors, labels of shape \(4,\)"),
        ({2: np.zeros((0, 8), np.float32), 3: NAMES[:0]}, "queries: 0 vectors"),
        ({2: np.zeros((120, 7), np.float32)}, r"must be \(q, 8\)"),
    ],
)
def test_labels_and_vectors_must_fit(clusters, change, message):
    arguments = [change.get(i, value) for i, value in enumerate(clusters)]
    with pytest.raises(ValueError, match=message):
        label_by_neighbours(*arguments)


def test_options_that_cannot_be_are_refused(clusters):
    with pytest.raises(ValueError, match=r"k=301 is not in \[1, 300\]"):
        label_by_neighbours(*clusters, k=301)
    with pytest.raises(ValueError, match=r"one row a query \(120\), got \(3,\)"):
        label_by_neighbours(*clusters, exclude=[1, 2, 3])


# --- only some are allowed --------------------------------------------------------------


def test_first_allowed_rows_keep_their_order():
    rows = np.array([[2, 0, 3, 1], [3, 1, 0, 2], [1, -1, -1, -1], [0, 1, 2, 3]])
    allowed = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]], bool)
    assert keep_allowed(rows, allowed, 2).tolist() == [[0, 3], [3, 1], [1, -1], [-1, -1]]
    assert keep_allowed(rows, allowed, 5)[1].tolist() == [3, 1, 0, 2, -1]


def test_allowed_rows_are_those_of_a_search_among_them(clusters):
    gallery, labels, queries, truth = clusters
    allowed = RNG.random((120, 300)) < 0.3
    ranked = label_by_neighbours(*clusters, k=300).rows
    for i, found in enumerate(keep_allowed(ranked, allowed, 4)):
        own = np.flatnonzero(allowed[i])
        alone = label_by_neighbours(gallery[own], labels[own], queries[[i]], truth[[i]], k=4)
        assert found.tolist() == own[alone.rows[0]].tolist()


@pytest.mark.parametrize(("q", "k"), [(1, 0), (2, 1)])
def test_allowed_rows_of_other_queries_are_refused(q, k):
    with pytest.raises(ValueError, match=rf"k={k} of 1 rankings, allowed for {q} queries"):
        keep_allowed(np.zeros((1, 3)), np.ones((q, 3)), k)


# --- chance -----------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_chance_counts_all_draws(k):
    gallery, queries = np.array(list("aaabbc")), np.array(list("abbd"))
    draws = [{gallery[row] for row in rows} for rows in combinations(range(6), k)]
    by_hand = np.mean([np.mean([label in drawn for drawn in draws]) for label in queries])
    assert chance_of_labels(gallery, queries, k) == pytest.approx(by_hand)


def test_chance_with_ten_even_classes_is_the_facts():
    labels = np.repeat(np.arange(10), 5000).astype(str)
    assert chance_of_labels(labels, labels, 1) == pytest.approx(1 / 10)
    assert chance_of_labels(labels, labels, 5) == pytest.approx(1 - 0.9**5, abs=1e-4)  # 41 %


def test_chance_of_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"k=3 is not in \[1, 2\]"):
        chance_of_labels(NAMES[:2], NAMES, 3)


# --- raw pixels -------------------------------------------------------------------------


def test_raw_pixels_are_unit_vectors_in_reading_order():
    images = RNG.integers(0, 256, (4, 2, 3, 3), dtype=np.uint8)
    vectors = pixels_to_vectors(images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, unit(images.reshape(4, 18).astype(float)), rtol=1e-5)


def test_gray_pictures_are_as_similar_with_one_channel():
    gray = np.repeat(RNG.integers(0, 256, (4, 5, 5, 1), dtype=np.uint8), 3, axis=3)
    three, one = pixels_to_vectors(gray), pixels_to_vectors(gray, gray=True)
    assert (three.shape, one.shape) == ((4, 75), (4, 25))
    np.testing.assert_allclose(three @ three.T, one @ one.T, atol=1e-6)


def test_black_picture_is_like_none():
    vectors = pixels_to_vectors(np.zeros((1, 2, 2, 3), np.uint8))
    assert vectors.tolist() == [[0] * 12]


def test_pictures_of_several_sizes_need_a_side(tmp_path):
    for name, shape in {"a.png": (4, 6, 3), "b.png": (8, 8, 3)}.items():
        write_image(tmp_path / name, np.full(shape, 9, np.uint8))
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert pixels_to_vectors(paths, side=4).shape == (2, 48)
    with pytest.raises(ValueError, match=r"image 1 is \(8, 8\) .* first \(4, 6\): say the side"):
        pixels_to_vectors(paths)


def test_no_pictures_are_no_vectors_and_a_missing_one_is_named(tmp_path):
    assert len(pixels_to_vectors([])) == 0
    with pytest.raises(ImageError, match="nowhere"):
        pixels_to_vectors([tmp_path / "nowhere.png"])


# --- rescaled twice ---------------------------------------------------------------------


def test_rescaling_twice_is_the_image_by_255(encoder):
    image = RNG.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    wrong = rescale_twice(encoder)
    normalise = encoder.preprocess.transforms[-1]
    expected = (image / 255 / 255 - np.array(normalise.mean)) / np.array(normalise.std)
    pixels = wrong.preprocess(Image.fromarray(image)).numpy()
    np.testing.assert_allclose(pixels, expected.transpose(2, 0, 1), atol=1e-5)


def test_rescaled_twice_all_pictures_look_alike(encoder):
    images = RNG.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    right, wrong = encoder.encode_images(images), rescale_twice(encoder).encode_images(images)
    assert (wrong @ wrong.T).min() > (right @ right.T).min()
    assert (wrong @ wrong.T).min() > 0.999


def test_rescaled_twice_is_another_space_of_the_same_model(encoder):
    wrong = rescale_twice(encoder)
    assert wrong.space != encoder.space
    assert wrong.model is encoder.model
    assert "1 / 255" in wrong.fingerprint["preprocess"]
    assert "1 / 255" not in repr(encoder.preprocess)


def test_preprocessing_without_normalisation_cannot_be_mistaken(encoder):
    bare = type(encoder.preprocess)(encoder.preprocess.transforms[:-1])
    strange = Encoder(
        "strange", encoder.model, bare, encoder.tokenizer, encoder.fingerprint, encoder.device
    )
    with pytest.raises(
        ValueError, match="should normalise in the preprocessing of <Encoder strange"
    ):
        rescale_twice(strange)
