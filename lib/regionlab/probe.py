"""Probe: how much class knowledge a classifier reads from vectors (S3, tables I to IV).

Nothing is chosen on the test side: the paper's C and the defaults of scikit-learn are taken as
they are. Scalers are part of the model, and so see no test vector before it is judged.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from regionlab.bootstrap import exact_interval
from regionlab.paths import expand
from regionlab.splits import Split, check_labels

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin

PAPER_PROBE = "scaled SVM gamma auto"  # what S3 describes and calls proposed
SIDES = ("train", "test")
RIGHT_OR_WRONG = ("accuracy", "weighted recall")  # shares of images, which have exact intervals
WITHOUT_INTERVAL = ("weighted precision",)


class ProbeFileError(ValueError):
    """A file that is no probe, or is not to be trusted."""


def make_probes(*, C: float = 10.0, neighbours: int = 5) -> "dict[str, ClassifierMixin]":
    """Make the paper's probe, its baselines and what tells them apart, unfitted.

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

    Returns
    -------
    dict
        Name to scikit-learn classifier.
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
class Reading:
    """What a fitted probe says of the images it learned from, and of those it did not.

    Attributes
    ----------
    model
        The fitted classifier.
    true, predicted
        "train" and "test" to (n,) str labels.
    """

    model: "ClassifierMixin"
    true: dict[str, np.ndarray]
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
) -> Reading:
    """Fit a fresh copy of a model to the train side and let it label both sides.

    Parameters
    ----------
    model
        A scikit-learn classifier, such as from `make_probes`; it stays as it is.
    vectors
        (n, d) float32.
    labels
        (n,) a class an image.
    split
        From `splits`.

    Raises
    ------
    ValueError
        If vectors and labels differ in number, or a label is missing.
    """
    from sklearn.base import clone

    labels = check_labels(labels)
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors have {len(labels)} labels")
    rows = {"train": split.train, "test": split.test}
    model = clone(model).fit(vectors[split.train], labels[split.train])
    return Reading(
        model,
        {side: labels[rows[side]] for side in SIDES},
        {side: model.predict(vectors[rows[side]]) for side in SIDES},
    )


def measure_confusion(confusion: np.ndarray) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 averaged over classes, from counts.

    "macro" counts each class alike and takes F1 as the mean of the classes' F1; "weighted"
    counts a class as often as it has images, so that weighted recall is the accuracy. A class
    that is never predicted has precision 0; one without images is left out.

    Parameters
    ----------
    confusion
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
    """Return each measure with its 95 % percentile bootstrap interval over images.

    Drawing n images anew is drawing n cells of the table by their shares. Images are drawn as
    if independent: with near-duplicates among them the intervals are too narrow.

    Weighted precision has a value and no interval. Classes that happen to be drawn often are
    weighted more and are also more precise, so its draws lie above it, and their interval
    holds the truth in 75 to 90 of 100 tables where the others' do in 90 to 97. Where all
    images are labelled right, or none is, drawing them anew says nothing: shares of images have
    the exact interval of Clopper and Pearson then, other measures none.

    Parameters
    ----------
    confusion
        (c, c) counts, true classes in rows.
    seed
        Of the resampling.
    n_resamples
        How many times the images are drawn anew.

    Returns
    -------
    dict
        Measure to `{"value", "ci95", "n"}`, see `measure_confusion`; "ci95" may be missing.
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

    Parameters
    ----------
    path
        Such as `probe.skops`.
    model
        From `Reading.model`.
    space
        Of the vectors it was fitted to, `Encoder.space`.

    Raises
    ------
    ProbeFileError
        If `load_probe` would not trust it, such as a class of your own.
    """
    import skops.io

    path = expand(path)
    content = skops.io.dumps({"space": space, "model": model})
    if strange := skops.io.get_untrusted_types(data=content):
        raise ProbeFileError(f"{model} holds what will not be loaded again: {', '.join(strange)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.tmp")
    partial.write_bytes(content)
    os.replace(partial, path)
    return path


def load_probe(path: Path | str, *, space: str) -> "ClassifierMixin":
    """Load a probe; it predicts exactly what it predicted when it was saved.

    Only types that skops trusts by itself are loaded, so that a file cannot run code.

    Parameters
    ----------
    path
        From `save_probe`.
    space
        Of the vectors it is for, `Encoder.space`.

    Raises
    ------
    ProbeFileError
        If the file is no probe, holds other types, or the probe is of another space.
    FileNotFoundError
        If there is no such file.
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
