"""Probe: how much class knowledge a classifier reads from vectors (S3, tables I to IV).

Nothing is chosen on the test side: the paper's C and the defaults of scikit-learn are taken as
they are. Scalers are part of the model, and so see no test vector before it is judged.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from regionlab.metrics.stats import exact_interval
from regionlab.search.exact import ROUNDING
from regionlab.util.errors import RegionlabError
from regionlab.util.files import atomic_write
from regionlab.util.paths import expand

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

MAX_FOLDS = 20
PAPER_PROBE = "scaled SVM gamma auto"  # what S3 describes and calls proposed
SIDES = ("train", "test")
RIGHT_OR_WRONG = ("accuracy", "weighted recall")  # shares of images, which have exact intervals
WITHOUT_INTERVAL = ("weighted precision",)


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
    """Return labels as an (n,) array of str; ValueError if one is missing or all are the same."""
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

    The rows are those of scikit-learn's `train_test_split(..., stratify=labels)`, for (n,)
    labels, a class an image. ValueError names a class that is too small to be on both sides.
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
    is lost. ValueError names a class that has too few groups to be on both sides.

    Parameters
    ----------
    labels, groups
        (n,) a class and a group an image, groups such as from `find_near_duplicates`.
    test_share
        Of the images, about: the nearest of 1/2, 1/3, ... 1/20, and more where no class has so
        many groups.
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
    """Group the images that are nearly the same, and those that such images link, (n,) int64.

    Two images are linked if their cosine is at least `threshold`; a group is a connected
    component of these links, so its ends may be less alike. Groups are counted from 0 in the
    order of their first images. What is nearly the same depends on the encoder: look at the
    pairs found before you believe a threshold.

    Parameters
    ----------
    vectors
        (n, d) float32, unit length.
    threshold
        Cosine in (0, 1]; 1 finds copies only.
    block
        Images compared at a time; bounds the memory at block x n cosines.
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


class ProbeFileError(RegionlabError, ValueError):
    """A file that is no probe, or is not to be trusted."""


def make_probes(*, C: float = 10.0, neighbours: int = 5) -> "dict[str, ClassifierMixin]":
    """Make the paper's probe, its baselines and what tells them apart, unfitted, by name.

    Raw probes take the unit vectors as they are; scaled ones bring each dimension to mean 0 and
    variance 1 over train first. The kernel is exp(-gamma * squared distance), with gamma 1 / d
    for "auto" and 1 / (d * variance of all numbers) for "scale". Of d = 512 raw unit vectors
    "auto" sees squared distances of 4 at most, and so a kernel that is nearly constant
    (exp(-4 / 512) = 0.99); on scaled vectors the two gammas are the same but for rounding.

    Parameters
    ----------
    C
        Of the support vector machines; S3 takes 10.
    neighbours
        Of k-nearest-neighbours, by Euclidean distance: on unit vectors, the order of the cosine.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    def regression():
        return LogisticRegression(max_iter=2000)  # the usual 100 do not converge

    return {
        "most frequent class": DummyClassifier(strategy="most_frequent"),
        f"{neighbours} nearest neighbours": KNeighborsClassifier(neighbours),
        "logistic regression": regression(),
        "scaled logistic regression": make_pipeline(StandardScaler(), regression()),
        "SVM gamma auto": SVC(C=C, gamma="auto"),
        "SVM gamma scale": SVC(C=C, gamma="scale"),
        PAPER_PROBE: make_pipeline(StandardScaler(), SVC(C=C, gamma="auto")),
        "scaled SVM gamma scale": make_pipeline(StandardScaler(), SVC(C=C, gamma="scale")),
    }


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a fitted probe says of the images it learned from, and of those it did not."""

    model: "ClassifierMixin"  # fitted
    true: dict[str, np.ndarray]  # "train" and "test" to (n,) str labels
    predicted: dict[str, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """All classes, sorted: the order of every table."""
        return np.union1d(self.true["train"], self.true["test"]).tolist()

    def correct(self, side: str = "test") -> np.ndarray:
        """Tell which images of a side are labelled right, (n,) bool."""
        return self.true[side] == self.predicted[side]

    def confusion(self, side: str = "test") -> pd.DataFrame:
        """Count the images of a side by true class (rows) and predicted class (columns)."""
        from sklearn.metrics import confusion_matrix

        counts = confusion_matrix(self.true[side], self.predicted[side], labels=self.classes)
        return pd.DataFrame(counts, self.classes, self.classes).rename_axis("true", axis=0)

    def report(self, side: str = "test") -> pd.DataFrame:
        """Return precision, recall, F1 and support of each class (S3, table III)."""
        return pd.DataFrame(_measure_classes(self.confusion(side).to_numpy()), self.classes)


def fit_probe(
    model: "ClassifierMixin", vectors: np.ndarray, labels: Sequence, split: Split
) -> ProbeResult:
    """Fit a fresh copy of a model to the train side and let it label both sides.

    Parameters
    ----------
    model
        A scikit-learn classifier, such as from `make_probes`; it stays as it is.
    vectors, labels
        (n, d) float32, and (n,) a class an image.
    split
        Such as from `split_stratified`.
    """
    from sklearn.base import clone

    labels = check_labels(labels)
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors have {len(labels)} labels")
    rows = {"train": split.train, "test": split.test}
    model = clone(model).fit(vectors[split.train], labels[split.train])
    return ProbeResult(
        model,
        {side: labels[rows[side]] for side in SIDES},
        {side: model.predict(vectors[rows[side]]) for side in SIDES},
    )


def measure_confusion(confusion: np.ndarray) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 averaged over classes, from counts.

    "macro" counts each class alike and takes F1 as the mean of the classes' F1; "weighted"
    counts a class as often as it has images, so that weighted recall is the accuracy. A class
    that is never predicted has precision 0; one without images is left out. `confusion` is
    (c, c) counts, true classes in rows and predicted ones in columns.
    """
    confusion = np.asarray(confusion)
    classes = _measure_classes(confusion)
    support = classes.pop("support")
    found = {"accuracy": float(np.trace(confusion) / confusion.sum())}
    for average, weights in (("macro", support > 0), ("weighted", support)):
        for name, values in classes.items():
            found[f"{average} {name}"] = float(np.average(values, weights=weights))
    return found


def summarise_confusion(
    confusion: np.ndarray, *, seed: int, n_resamples: int = 2000
) -> dict[str, dict]:
    """Return each measure of `measure_confusion` as `{"value", "ci95", "n"}`, "n" images.

    The interval is the 95 % percentile bootstrap over images: drawing n images anew is drawing n
    cells of the table by their shares. Images are drawn as if independent: with near-duplicates
    among them the intervals are too narrow.

    Weighted precision has a value and no interval. Classes that happen to be drawn often are
    weighted more and are also more precise, so its draws lie above it, and their interval
    holds the truth in 75 to 90 of 100 tables where the others' do in 90 to 97. Where all
    images are labelled right, or none is, drawing them anew says nothing: shares of images have
    the exact interval of Clopper and Pearson then, other measures none.
    """
    confusion = np.asarray(confusion)
    n, rng = int(confusion.sum()), np.random.default_rng(seed)
    cells = confusion.ravel() / n
    draws = pd.DataFrame(
        measure_confusion(rng.multinomial(n, cells).reshape(confusion.shape))
        for _ in range(n_resamples)
    )
    found = measure_confusion(confusion)
    low, high = draws.quantile(0.025), draws.quantile(0.975)
    intervals = {name: [float(low[name]), float(high[name])] for name in found}
    if (right := found["accuracy"]) in (0, 1):
        intervals = dict.fromkeys(RIGHT_OR_WRONG, exact_interval(int(right), n))
    for name in WITHOUT_INTERVAL:
        intervals.pop(name, None)
    return {
        name: {"value": value, **_name_interval(intervals.get(name)), "n": n}
        for name, value in found.items()
    }


def _name_interval(interval: list[float] | None) -> dict[str, list[float]]:
    return {"ci95": interval} if interval else {}


def _measure_classes(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class, (c,) each; 0 where it would be 0 / 0."""
    right, support, said = np.diag(confusion), confusion.sum(1), confusion.sum(0)
    return {
        "precision": right / np.maximum(said, 1),
        "recall": right / np.maximum(support, 1),
        "F1": 2 * right / np.maximum(support + said, 1),
        "support": support,
    }


def save_probe(path: Path | str, model: "ClassifierMixin", *, space: str) -> Path:
    """Save a fitted probe, scaler included, without pickle; return its path.

    `space` is that of the vectors it was fitted to, `Encoder.space`. ProbeFileError if
    `load_probe` would not trust the model, such as a class of your own.
    """
    import skops.io

    path = expand(path)
    content = skops.io.dumps({"space": space, "model": model})
    if strange := skops.io.get_untrusted_types(data=content):
        raise ProbeFileError(f"{model} holds what will not be loaded again: {', '.join(strange)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as file:
        file.write(content)
    return path


def load_probe(path: Path | str, *, space: str) -> "ClassifierMixin":
    """Load a probe; it predicts exactly what it predicted when it was saved.

    Only types that skops trusts by itself are loaded, so that a file cannot run code.
    ProbeFileError if the file is no probe, holds other types, or the probe is of another space
    than `space`, that of the vectors it is for.
    """
    content = _read_trusted(expand(path))
    if not isinstance(content, dict) or content.keys() != {"space", "model"}:
        raise ProbeFileError(f"{path} holds a {type(content).__name__} that is no probe")
    if content["space"] != space:
        raise ProbeFileError(
            f"{path} reads vectors of space {content['space']}, not {space}: load the same "
            "model, or fit another probe"
        )
    return content["model"]


def _read_trusted(path: Path) -> Any:
    import skops.io

    try:
        strange = skops.io.get_untrusted_types(file=path)
    except (BadZipFile, KeyError, ValueError) as e:
        raise ProbeFileError(f"{path} is no file of skops: {e}") from e
    if strange:
        raise ProbeFileError(f"{path} holds types that are not trusted: {', '.join(strange)}")
    return skops.io.load(path, trusted=[])
