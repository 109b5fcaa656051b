"""Splits: which images a probe learns from and which it is tested on, and which are alike.

A picture and its near-copy on both sides of a split make a test of memory, not of knowledge.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from regionlab.engines import ROUNDING

MAX_FOLDS = 20


@dataclass(frozen=True, eq=False)
class Split:
    """Rows to learn from and rows to be tested on, both (n,) int64, ascending, none in common."""

    train: np.ndarray
    test: np.ndarray

    def leaked(self, groups: np.ndarray) -> np.ndarray:
        """Tell which test rows share their group with a row of train, (m,) bool."""
        groups = np.asarray(groups)
        return np.isin(groups[self.test], groups[self.train])


def check_labels(labels: Sequence) -> np.ndarray:
    """Return labels as an (n,) array of str.

    Raises
    ------
    ValueError
        If they are not (n,), one is missing, or they name fewer than two classes.
    """
    if np.ndim(labels) != 1:
        raise ValueError(f"labels must be (n,), have shape {np.shape(labels)}")
    labels = pd.Series(labels, dtype=object).to_numpy()  # None and NaN stay what they are
    missing = np.flatnonzero(pd.isna(labels))
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {len(labels)} images have no label, the first is row {missing[0]}"
        )
    labels = labels.astype(str)
    classes = np.unique(labels).tolist()
    if len(classes) < 2:
        raise ValueError(f"{len(labels)} images of classes {classes}: nothing to tell apart")
    return labels


def split_stratified(labels: Sequence, *, test_share: float = 0.2, seed: int) -> Split:
    """Split at random with each class in the same proportion on both sides (S3, section B).

    The rows are those of scikit-learn's `train_test_split(..., stratify=labels)`.

    Parameters
    ----------
    labels
        (n,) a class an image.
    test_share
        Of the images.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        If a class is too small to be on both sides; the message names it.
    """
    from sklearn.model_selection import train_test_split

    labels = check_labels(labels)
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")
    classes, counts = np.unique(labels, return_counts=True)
    if (counts < 2).any():
        raise ValueError(_explain_small(classes[counts < 2], "image", test_share))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=test_share, stratify=labels, random_state=seed
    )
    split = Split(np.sort(train), np.sort(test))
    if len(lost := _one_sided(labels, split)):
        raise ValueError(_explain_small(lost, "image", test_share))
    return split


def split_grouped(
    labels: Sequence, groups: Sequence, *, test_share: float = 0.2, seed: int
) -> Split:
    """Split with each group whole on one side, and the classes' proportions nearly kept.

    The test side is a fold of scikit-learn's `StratifiedGroupKFold`, the first in which no class
    is lost.

    Parameters
    ----------
    labels
        (n,) a class an image.
    groups
        (n,) a group an image, such as from `find_near_duplicates`.
    test_share
        Of the images, about: the nearest of 1/2, 1/3, ... 1/20, and more where no class has so
        many groups.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        If a class has too few groups to be on both sides; the message names it.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels, groups = check_labels(labels), np.asarray(groups)
    if not 0 < test_share <= 0.5:
        raise ValueError(f"test_share must be above 0 and at most 0.5, got {test_share}")
    held = pd.Series(groups).groupby(labels).nunique()
    if (held < 2).any():
        raise ValueError(
            _explain_small(held.index[held < 2], "group of near-duplicates", test_share)
        )
    count = min(round(1 / test_share), MAX_FOLDS, held.max())
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # that a class is smaller than the number of folds is fine
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        splits = [Split(*rows) for rows in folds.split(labels, labels, groups)]
    for split in splits:
        if not len(lost := _one_sided(labels, split)):
            return split
    raise ValueError(_explain_small(lost, "group of near-duplicates", test_share))


def find_near_duplicates(
    vectors: np.ndarray, *, threshold: float = 0.97, block: int = 1024
) -> np.ndarray:
    """Group the images that are nearly the same, and those that such images link.

    Two images are linked if their cosine is at least `threshold`; a group is a connected
    component of these links, so its ends may be less alike. What is nearly the same depends on
    the encoder: look at the pairs found before you believe a threshold.

    Parameters
    ----------
    vectors
        (n, d) float32, unit length.
    threshold
        Cosine in (0, 1]; 1 finds copies only.
    block
        Images compared at a time; bounds the memory at block x n cosines.

    Returns
    -------
    np.ndarray
        (n,) int64, the group of each image, counted from 0 in the order of their first images.

    Raises
    ------
    ValueError
        If `threshold` is not in (0, 1].
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    n = len(vectors)
    groups = np.arange(n)
    for start in range(0, n, block):
        rows, columns = np.nonzero(
            vectors[start : start + block] @ vectors.T >= threshold - ROUNDING
        )
        ends = groups[start + rows], groups[columns]
        links = coo_array((np.ones(len(rows), bool), ends), shape=(n, n))
        groups = connected_components(links, directed=False)[1][groups]
    return pd.factorize(groups)[0]


def _one_sided(labels: np.ndarray, split: Split) -> np.ndarray:
    """Return the classes that one of the sides does not have."""
    return np.setxor1d(labels[split.train], labels[split.test])


def _explain_small(classes: Sequence[str], unit: str, test_share: float) -> str:
    named = ", ".join(repr(str(name)) for name in classes[:5])
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return (
        f"too few images of {named}{more} for a test share of {test_share:g}: a class needs one "
        f"{unit} to learn from and another to be tested on; leave it out, or add to it"
    )
