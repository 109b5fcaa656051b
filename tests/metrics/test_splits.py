"""Which images are learned from, which are tested on, and which are nearly the same."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from regionlab.metrics.probe import (
    Split,
    check_labels,
    find_near_duplicates,
    split_grouped,
    split_stratified,
)

LABELS = np.repeat(["ant", "bee", "cat"], [10, 20, 30])


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def at_angles(*degrees):
    """Unit vectors in the plane: their cosines are those of the angles between them."""
    return unit([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in degrees])


# Labels


def test_labels_become_text():
    assert check_labels([1, 2, 1]).tolist() == ["1", "2", "1"]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_label_is_no_class_of_its_own(missing):
    with pytest.raises(ValueError, match="1 of 3 images have no label, the first is row 1"):
        check_labels(["a", missing, "b"])


def test_one_class_is_nothing_to_tell_apart():
    with pytest.raises(ValueError, match=r"3 images of classes \['a'\]"):
        check_labels(["a"] * 3)


def test_labels_are_one_an_image():
    with pytest.raises(ValueError, match=r"must be \(n,\), have shape \(2, 1\)"):
        check_labels(np.array([["a"], ["b"]]))


# Stratified


def test_a_stratified_split_keeps_the_proportions_of_the_classes():
    split = split_stratified(LABELS, test_share=0.2, seed=0)
    assert np.unique(LABELS[split.test], return_counts=True)[1].tolist() == [2, 4, 6]
    assert sorted([*split.train, *split.test]) == list(range(60))


def test_a_stratified_split_is_that_of_scikit_learn():
    split = split_stratified(LABELS, test_share=0.3, seed=3)
    train, test = train_test_split(
        np.arange(60), test_size=0.3, stratify=LABELS, random_state=3
    )  # fmt: skip
    assert split.train.tolist() == sorted(train) and split.test.tolist() == sorted(test)


def test_a_class_with_one_image_is_named():
    with pytest.raises(ValueError, match="too few images of 'dog' for a test share of 0.2"):
        split_stratified([*LABELS, "dog"], seed=0)


def test_a_class_that_falls_on_one_side_is_named():
    with pytest.raises(ValueError, match="too few images of 'dog'"):
        split_stratified([*LABELS, "dog", "dog"], test_share=0.1, seed=0)


def test_of_many_small_classes_five_are_named():
    with pytest.raises(ValueError, match="'0', '1', '2', '3', '4' and 2 more"):
        split_stratified([*LABELS, *range(7)], seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.2, 20])
def test_a_share_that_leaves_a_side_empty_is_refused(share):
    for split in (split_stratified, lambda *a, **b: split_grouped(LABELS, range(60), **b)):
        with pytest.raises(ValueError, match=f"test_share must be .*, got {share}"):
            split(LABELS, test_share=share, seed=0)


# Grouped


@pytest.mark.parametrize("seed", range(5))
def test_a_grouped_split_tears_no_group_apart(seed):
    groups = np.arange(60) // 2
    split = split_grouped(LABELS, groups, seed=seed)
    assert not split.leaked(groups).any()
    assert sorted([*split.train, *split.test]) == list(range(60))
    assert np.unique(LABELS[split.test], return_counts=True)[1].tolist() == [2, 4, 6]


def test_a_grouped_split_depends_on_its_seed():
    tests = {tuple(split_grouped(LABELS, range(60), seed=seed).test) for seed in (0, 0, 1)}
    assert len(tests) == 2


def test_a_group_may_hold_several_classes():
    groups = np.r_[np.arange(30), np.arange(30)]
    split = split_grouped(LABELS, groups, seed=0)
    assert not split.leaked(groups).any()


def test_a_fold_without_a_class_is_passed_over():
    labels = ["rare", "rare", *["common"] * 58]
    for seed in range(8):
        split = split_grouped(labels, [0, 1, *range(2, 60)], test_share=0.1, seed=seed)
        assert len(np.intersect1d([0, 1], split.test)) == 1


def test_few_images_a_class_have_a_larger_test_share():
    labels = np.repeat(list("abcde"), 3)
    split = split_grouped(labels, range(15), test_share=0.2, seed=0)
    assert sorted(labels[split.test]) == list("abcde")


def test_a_class_that_is_a_single_group_is_named():
    groups = np.where(LABELS == "bee", 0, np.arange(1, 61))
    with pytest.raises(ValueError, match="images of 'bee' .* one group of near-dup"):
        split_grouped(LABELS, groups, seed=0)


def test_classes_bound_to_opposite_sides_are_named():
    """Three groups of two classes each: the side with a single group misses a class."""
    labels, groups = ["a", "b", "a", "c", "b", "c"], [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="too few images of"):
        split_grouped(labels, groups, test_share=0.5, seed=0)


def test_leaked_tells_which_test_images_have_a_twin_in_train():
    split = Split(train=np.array([0, 1]), test=np.array([2, 3]))
    assert split.leaked([7, 8, 8, 9]).tolist() == [True, False]


# Near-duplicates


def find_slowly(vectors, threshold):
    """Spread the smallest row of a group along the links until nothing changes."""
    linked = vectors @ vectors.T >= threshold - 1e-5
    first = np.arange(len(vectors))
    for _ in vectors:
        first = np.array([first[row].min() for row in linked])
    return first


def test_links_make_one_group_of_ends_that_are_less_alike():
    groups = find_near_duplicates(at_angles(0, 90, 10, 20, 200), threshold=np.cos(np.radians(11)))
    assert groups.tolist() == [0, 1, 0, 0, 2]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_groups_are_those_of_the_slow_search_whatever_the_block(block):
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(80, 3)))
    groups = find_near_duplicates(vectors, threshold=0.97, block=block)
    slow = find_slowly(vectors, 0.97)
    assert 10 < groups.max() < 70
    assert (groups == np.searchsorted(np.unique(slow), slow)).all()


def test_a_threshold_of_one_finds_copies_only():
    vectors = unit(np.random.default_rng(0).normal(size=(50, 200)))
    groups = find_near_duplicates(vectors[[*range(50), 3, 30]], threshold=1)
    assert groups.tolist() == [*range(50), 3, 30]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, 97])
def test_a_threshold_that_is_no_cosine_is_refused(threshold):
    with pytest.raises(ValueError, match=f"threshold must be above 0.*got {threshold}"):
        find_near_duplicates(at_angles(0, 1), threshold=threshold)
