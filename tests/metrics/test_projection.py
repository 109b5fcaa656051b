"""Maps of vectors, and the numbers that say how far to believe them."""

import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from sklearn.manifold import TSNE
from sklearn.metrics import roc_auc_score

from regionlab.data.collection import Collection, make_table
from regionlab.metrics.projection import (
    chance_purity,
    count_concepts,
    label_images,
    measure_trust,
    neighbour_purity,
    project,
    similarity_auc,
    split_similarities,
)
from regionlab.viz.maps import INKS, MOST, draw_map, draw_word_cloud


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def clusters():
    """Unit vectors around three directions, and which one each belongs to."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [10, 20, 30])
    centres = dict(zip("abc", rng.normal(size=(3, 12)), strict=True))
    noise = 0.8 * rng.normal(size=(60, 12))
    return unit([centres[label] for label in labels] + noise), labels


# Maps


@pytest.mark.parametrize("method", ["PCA", "t-SNE"])
def test_the_seed_decides_the_map(clusters, method):
    one, two = (project(clusters[0], method, seed=3) for _ in range(2))
    assert one.shape == (60, 2) and one.dtype == np.float32
    np.testing.assert_array_equal(one, two)


def test_pca_keeps_the_two_directions_of_most_variance(clusters):
    centred = clusters[0] - clusters[0].mean(0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * lengths[:2]
    found = project(clusters[0], "PCA", seed=0)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4)


def test_tsne_goes_by_the_cosine(clusters):
    model = TSNE(metric="cosine", perplexity=59 / 3, random_state=1)
    expected = model.fit_transform(clusters[0])
    np.testing.assert_allclose(project(clusters[0], "t-SNE", seed=1), expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["PCA", "t-SNE"])
def test_few_vectors_have_a_map(method):
    assert project(np.eye(5, 8, dtype=np.float32), method, seed=0).shape == (5, 2)


UMAP_TWICE = """
import warnings, numpy as np
warnings.simplefilter("error")  # of anybody: nothing is left for a notebook to show
warnings.filterwarnings("default", module="numba|pynndescent|sklearn|scipy")
from regionlab.metrics.projection import project
centres = np.repeat([[1, 0, 0, 0], [0, 1, 0, 0]], 12, 0)
vectors = centres + 0.1 * np.random.default_rng(0).normal(size=(24, 4))
vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
one, two, other = (project(vectors, "UMAP", seed=seed) for seed in (0, 0, 1))
assert one.shape == (24, 2) and one.dtype == np.float32
assert (one == two).all() and (one != other).any()
apart = np.linalg.norm(one[:12].mean(0) - one[12:].mean(0))
assert apart > 2 * one[:12].std(0).max(), "the two clusters are mixed"
"""


def test_umap_maps_alike_with_one_seed_and_without_warnings():
    """In a process of its own: there numba need not compile, which takes most of UMAP's time."""
    surroundings = os.environ | {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", UMAP_TWICE]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Tensorflow" not in done.stderr


def test_an_unknown_projection_is_refused():
    with pytest.raises(ValueError, match="unknown projection 'tsne'; known: PCA, t-SNE, UMAP"):
        project(np.eye(9), "tsne", seed=0)


def test_a_handful_of_vectors_is_no_map():
    with pytest.raises(ValueError, match="at least 5 vectors, got 4"):
        project(np.eye(4), "PCA", seed=0)


# Trust


def rank_slowly(distances):
    """Rank the others of each row by distance, 1 for the nearest; 0 for itself."""
    order = np.argsort(distances, axis=1, kind="stable")
    return np.argsort(order, axis=1)


def test_trust_is_that_of_venna_and_kaski(clusters):
    vectors, k = clusters[0].astype(float), 4
    positions = project(clusters[0], "PCA", seed=0)
    n = len(vectors)
    there = rank_slowly(1 - vectors @ vectors.T - 2 * np.eye(n))
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    here = rank_slowly(gaps - np.eye(n))
    strange = (here <= k) & (here > 0) & (there > k)
    expected = 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * (there - k)[strange].sum()
    assert measure_trust(clusters[0], positions, k=k).mean() == pytest.approx(expected)


def test_trust_is_one_for_a_map_that_keeps_all_neighbours():
    angles = np.random.default_rng(0).random(30)
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    assert (measure_trust(vectors, vectors, k=5) == 1).all()


# Purity


def test_purity_by_hand():
    line = np.array([[0.0, 0], [1, 0], [3, 0], [7, 0]])
    purity = neighbour_purity(line, ["a", "a", "b", "a"], k=2, metric="euclidean")
    assert purity.tolist() == [1 / 2, 1 / 2, 0, 1 / 2]


def test_purity_goes_by_the_cosine_and_leaves_the_image_itself_out(clusters):
    vectors, labels = clusters
    cosines = vectors @ vectors.T - 2 * np.eye(60)
    nearest = np.argsort(-cosines, axis=1)[:, :7]
    expected = [np.mean(labels[row] == label) for row, label in zip(nearest, labels, strict=True)]
    assert neighbour_purity(vectors, labels, k=7) == pytest.approx(expected)


def test_a_copy_is_a_neighbour():
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    assert neighbour_purity(vectors, ["a", "a", "b", "c"], k=1)[:2].tolist() == [1, 1]


def test_purity_of_labels_without_meaning_is_that_of_chance(clusters):
    labels = np.random.default_rng(1).permutation(clusters[1])
    purity, chance = neighbour_purity(clusters[0], labels), chance_purity(labels)
    assert purity.mean() == pytest.approx(chance.mean(), abs=0.05)
    assert sorted(set(chance)) == pytest.approx([9 / 59, 19 / 59, 29 / 59])


@pytest.mark.parametrize("k", [0, 4, 10])
def test_a_number_of_neighbours_that_there_are_not_is_refused(k):
    with pytest.raises(ValueError, match=f"k must be at least 1 and below 4, got {k}"):
        neighbour_purity(np.eye(4), list("aabb"), k=k)


def test_points_and_labels_have_to_agree():
    with pytest.raises(ValueError, match="4 points have 3 labels"):
        neighbour_purity(np.eye(4), list("aab"), k=1)


# Similarities


def test_pairs_are_split_by_class_and_counted_once():
    vectors = unit([[1, 0], [3, 4], [0, 1]])
    within, between = split_similarities(vectors, ["a", "a", "b"])
    assert within.tolist() == pytest.approx([3 / 5])
    assert sorted(between.tolist()) == pytest.approx([0, 4 / 5])


def test_auc_is_scikit_learns_for_each_image(clusters):
    vectors, labels = clusters
    found = similarity_auc(vectors, labels)
    for row in range(60):
        others = np.arange(60) != row
        expected = roc_auc_score(labels[others] == labels[row], (vectors @ vectors[row])[others])
        assert found[row] == pytest.approx(expected, abs=1e-6)


def test_auc_counts_ties_half_and_does_not_judge_an_image_alone():
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 0, 1]]
    found = similarity_auc(vectors, ["a", "a", "b", "c"])
    np.testing.assert_allclose(found, [3 / 4, 3 / 4, np.nan, np.nan])


# Labels and words


@pytest.fixture(scope="module")
def collection():
    images = {
        "image_id": ["1", "2", "3"], "path": ["1.jpg", "2.jpg", "3.jpg"], "width": [9] * 3,
        "height": [9] * 3, "ground": ["sand", "snow", None],
    }  # fmt: skip
    objects = {
        "object_id": list("abcd"), "image_id": ["1", "1", "1", "2"],
        "category": ["cat", "dog", "crowd", "cat"], "x0": [0] * 4, "y0": [0] * 4, "x1": [1] * 4,
        "y1": [1] * 4, "area": [5.0, 7.0, 99.0, 1.0], "iscrowd": [False, False, True, False],
        "segmentation": [None] * 4,
    }  # fmt: skip
    return Collection("/", make_table("images", images), make_table("objects", objects))


def test_the_largest_object_names_an_image_and_crowds_do_not(collection):
    assert label_images(collection, ["2", "1", "3"], "category").tolist() == ["cat", "dog", ""]


def test_a_column_of_the_images_names_them(collection):
    assert label_images(collection, ["3", "1"], "ground").tolist() == ["", "sand"]


def test_an_unknown_column_is_refused_with_those_there_are(collection):
    with pytest.raises(ValueError, match="no column 'colour' in collection; .*'ground'.*'area'"):
        label_images(collection, ["1"], "colour")


def test_concepts_are_counted_without_small_words():
    counts = count_concepts(["a red star and the blue stars", "a star on grass, 7 of them"])
    assert counts == {"star": 3, "blue": 1, "grass": 1, "red": 1}
    assert list(counts) == ["star", "blue", "grass", "red"]


# Figures


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_each_label_has_a_colour_and_marker_of_its_own_and_none_is_grey(ax):
    labels = np.array([f"{i:02d}" for i in range(MOST)] + [""])
    draw_map(ax, np.arange(2 * len(labels)).reshape(-1, 2), labels)
    grey, *named = ax.collections
    looks = {(to_hex(c.get_facecolor()[0]), c.get_paths()[0].vertices.tobytes()) for c in named}
    assert len(looks) == len(named) == MOST
    assert grey.get_offsets().tolist() == [[2 * MOST, 2 * MOST + 1]]
    assert [c.get_label() for c in named] == labels[:-1].tolist()


def test_labels_too_many_to_tell_apart_are_grey(ax):
    labels = np.array([f"{i:02d}" for i in range(MOST)] * 2 + ["rare"])
    draw_map(ax, np.zeros((len(labels), 2)), labels)
    assert "rare" not in [c.get_label() for c in ax.collections]
    assert len(ax.collections[0].get_offsets()) == 1


def test_labels_that_are_colours_are_drawn_in_them(ax):
    draw_map(ax, np.zeros((3, 2)), ["red", "blue", "white"])
    assert [to_hex(c.get_facecolor()[0]) for c in ax.collections[1:]] == [
        "#0000ff", "#ff0000", "#ffffff",
    ]  # fmt: skip
    ax.clear()
    draw_map(ax, np.zeros((2, 2)), ["red", "0"])
    assert "#ff0000" not in [to_hex(c.get_facecolor()[0]) for c in ax.collections[1:]]


def test_points_stand_where_the_map_has_them(ax):
    draw_map(ax, np.array([[1, 2], [3, 4], [5, 6]]), ["b", "a", "b"], title="PCA")
    assert ax.collections[2].get_offsets().tolist() == [[1, 2], [5, 6]]
    assert ax.get_title() == "PCA" and not ax.get_xticks().size


def test_a_word_cloud_is_the_same_for_the_same_seed(ax):
    clouds = []
    for seed in (0, 0, 1):
        draw_word_cloud(ax, {"star": 9, "heart": 3, "ring": 1}, seed=seed)
        clouds.append(np.asarray(ax.images[-1].get_array()))
    assert (clouds[0] == clouds[1]).all() and (clouds[0] != clouds[2]).any()
    colors = {to_hex(c / 255).upper() for c in np.unique(clouds[0].reshape(-1, 3), axis=0)}
    assert colors & set(INKS)


def test_a_cloud_of_no_words_is_refused(ax):
    with pytest.raises(ValueError, match="no words to draw"):
        draw_word_cloud(ax, {}, seed=0)
