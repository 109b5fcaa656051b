"""Class knowledge read from vectors: scikit-learn's own numbers, and files without pickle."""

import warnings
import zipfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import classification_report
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from regionlab.metrics.probe import (
    PAPER_PROBE,
    ProbeFileError,
    ProbeResult,
    fit_probe,
    load_probe,
    make_probes,
    measure_confusion,
    save_probe,
    split_stratified,
    summarise_confusion,
)
from regionlab.viz.charts import draw_confusion, draw_gammas, draw_train_and_test

NAMES = tuple(make_probes())


@pytest.fixture(scope="module")
def data():
    """Unit vectors of five classes that overlap, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["ant", "bee", "cat", "dog", "emu"], [20, 30, 40, 50, 60])
    centres = dict(zip(np.unique(labels), rng.normal(size=(5, 16)), strict=True))
    vectors = np.stack([centres[label] for label in labels]) + 1.4 * rng.normal(size=(200, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(scope="module")
def readings(data):
    split = split_stratified(data[1], seed=0)
    return {name: fit_probe(model, *data, split) for name, model in make_probes().items()}


# The same numbers as scikit-learn


def script(data, *, scale, model):
    """What a user would write with scikit-learn alone: the true labels and those predicted."""
    X, y = data
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.2, stratify=y, random_state=0
    )
    if scale:
        scaler = StandardScaler().fit(X_train)
        X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
    model.fit(X_train, y_train)
    return {
        "train": (y_train, model.predict(X_train)),
        "test": (y_test, model.predict(X_test)),
    }


SCRIPTS = {
    "5 nearest neighbours": (False, KNeighborsClassifier(5)),
    "logistic regression": (False, LogisticRegression(max_iter=2000)),
    "scaled logistic regression": (True, LogisticRegression(max_iter=2000)),
    "SVM gamma auto": (False, SVC(kernel="rbf", C=10, gamma=1 / 16)),
    "SVM gamma scale": (False, SVC(kernel="rbf", C=10, gamma="scale")),
    "scaled SVM gamma auto": (True, SVC(kernel="rbf", C=10, gamma=1 / 16)),
    "scaled SVM gamma scale": (True, SVC(kernel="rbf", C=10, gamma="scale")),
}


@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_probe_measures_what_a_direct_script_measures(data, readings, name, side):
    scale, model = SCRIPTS[name]
    expected = classification_report(
        *script(data, scale=scale, model=model)[side], output_dict=True
    )
    found = measure_confusion(readings[name].confusion(side))
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=1e-12)
    for average in ("macro", "weighted"):
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score")):
            value = expected[f"{average} avg"][theirs]
            assert found[f"{average} {ours}"] == pytest.approx(value, abs=1e-12)
    for label, row in readings[name].report(side).iterrows():
        assert row["F1"] == pytest.approx(expected[label]["f1-score"], abs=1e-12)
        assert row["precision"] == pytest.approx(expected[label]["precision"], abs=1e-12)
        assert row["recall"] == pytest.approx(expected[label]["recall"], abs=1e-12)
        assert row["support"] == expected[label]["support"]


def test_the_probes_are_not_all_alike(readings):
    """Else the comparison above would compare little."""
    assert len({tuple(reading.predicted["test"]) for reading in readings.values()}) > 4


def test_no_probe_warns_or_changes_with_a_rerun(data):
    split = split_stratified(data[1], seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in make_probes().values():
            one, two = (fit_probe(model, *data, split).predicted["test"] for _ in range(2))
            assert (one == two).all()


def test_the_scaler_sees_train_only(data, readings):
    split = split_stratified(data[1], seed=0)
    scaler = readings[PAPER_PROBE].model[0]
    np.testing.assert_allclose(scaler.mean_, data[0][split.train].mean(0), rtol=1e-4, atol=1e-7)
    assert not np.allclose(scaler.mean_, data[0].mean(0), rtol=1e-4)


def test_options_reach_the_models():
    probes = make_probes(C=3, neighbours=2)
    assert [m.C for m in probes.values() if isinstance(m, SVC)] == [3, 3]
    assert probes[PAPER_PROBE][1].C == 3
    assert probes["2 nearest neighbours"].n_neighbors == 2


def test_the_most_frequent_class_is_all_that_the_dummy_knows(readings):
    """Of 40 test images 12 are emus; each class counts alike in the macro averages."""
    found = measure_confusion(readings["most frequent class"].confusion())
    assert found["accuracy"] == found["weighted recall"] == pytest.approx(12 / 40)
    assert found["macro recall"] == pytest.approx(1 / 5)
    assert found["macro precision"] == pytest.approx(12 / 40 / 5)
    assert found["macro F1"] == pytest.approx(2 * 12 / (12 + 40) / 5)


# Readings


def test_a_reading_knows_its_labels_right_and_wrong(readings):
    reading = readings["SVM gamma scale"]
    assert reading.classes == ["ant", "bee", "cat", "dog", "emu"]
    confusion = reading.confusion()
    assert reading.correct().sum() == np.trace(confusion) < 40
    assert confusion.index.tolist() == confusion.columns.tolist() == reading.classes
    assert confusion.sum(axis=1).tolist() == [4, 6, 8, 10, 12]


def test_confusion_has_true_classes_in_rows():
    sides = {"train": np.array(["a", "b"]), "test": np.array(["a", "a", "b"])}
    said = {"train": np.array(["a", "b"]), "test": np.array(["b", "a", "b"])}
    assert ProbeResult(None, sides, said).confusion().loc["a", "b"] == 1
    assert ProbeResult(None, sides, said).confusion("train").loc["a", "b"] == 0


def test_fitting_leaves_the_model_given_as_it_was(data):
    model = SVC()
    fit_probe(model, *data, split_stratified(data[1], seed=0))
    assert not hasattr(model, "classes_")


def test_numbers_may_be_labels(data):
    numbers = pd.Series(data[1]).factorize()[0]
    reading = fit_probe(SVC(), data[0], numbers, split_stratified(numbers, seed=0))
    assert reading.classes == ["0", "1", "2", "3", "4"]
    assert reading.correct("train").mean() > 0.5


def test_vectors_and_labels_have_to_agree(data):
    with pytest.raises(ValueError, match="199 vectors have 200 labels"):
        fit_probe(SVC(), data[0][1:], data[1], split_stratified(data[1], seed=0))


# Measures


def test_measures_of_three_classes_by_hand():
    found = measure_confusion([[2, 0, 0], [1, 1, 2], [0, 0, 4]])
    precision, recall = [2 / 3, 1 / 1, 4 / 6], [2 / 2, 1 / 4, 4 / 4]
    f1 = [4 / 5, 2 / 5, 8 / 10]
    assert found == pytest.approx({
        "accuracy": 7 / 10,
        "macro precision": sum(precision) / 3,
        "macro recall": sum(recall) / 3,
        "macro F1": sum(f1) / 3,
        "weighted precision": np.dot([2, 4, 4], precision) / 10,
        "weighted recall": 7 / 10,
        "weighted F1": np.dot([2, 4, 4], f1) / 10,
    })  # fmt: skip


def test_a_class_without_images_is_left_out_of_the_averages():
    found = measure_confusion([[1, 1, 0], [0, 0, 0], [0, 0, 2]])
    assert found["macro recall"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_class_that_is_never_predicted_has_precision_zero():
    found = measure_confusion([[0, 2], [0, 2]])
    assert found["macro precision"] == pytest.approx((0 + 2 / 4) / 2)


def test_intervals_hold_the_value_and_narrow_with_more_images():
    small = summarise_confusion([[8, 2], [1, 9]], seed=0, n_resamples=300)
    large = summarise_confusion([[800, 200], [100, 900]], seed=0, n_resamples=300)
    for name, measured in small.items():
        if name == "weighted precision":
            continue  # has none, see below
        low, high = measured["ci95"]
        assert low < measured["value"] < high
        assert high - low > 4 * np.subtract(*large[name]["ci95"][::-1])
    assert small["accuracy"]["n"] == 20 and small["accuracy"]["value"] == 17 / 20


def test_the_interval_of_the_accuracy_is_that_of_drawing_images_anew():
    right = np.repeat([1, 0], [170, 30])
    rng = np.random.default_rng(1)
    means = [rng.choice(right, 200).mean() for _ in range(4000)]
    found = summarise_confusion([[90, 10], [20, 80]], seed=0, n_resamples=4000)
    assert found["accuracy"]["ci95"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.006)


def count_covered(make_table, truth, *, tables, n_resamples):
    """Return the share of drawn tables whose interval holds the true value, by measure."""
    covered = dict.fromkeys(truth, 0.0)
    for number in range(tables):
        found = summarise_confusion(make_table(), seed=number, n_resamples=n_resamples)
        for name, measure in found.items():
            low, high = measure.get("ci95", (-np.inf, np.inf))
            covered[name] += (low <= truth[name] <= high) / tables
    return covered


@pytest.mark.parametrize("stratified", [False, True])
def test_intervals_cover_the_truth_in_about_95_of_100_tables(stratified):
    classes, n, rng = 9, 135, np.random.default_rng(3)
    right = np.linspace(0.5, 1, classes) if stratified else np.full(classes, 0.85)
    shares = np.repeat(((1 - right) / (classes - 1))[:, None], classes, axis=1)
    np.fill_diagonal(shares, right)

    def make_table():
        if stratified:
            return np.stack([rng.multinomial(n // classes, row) for row in shares])
        return rng.multinomial(n, shares.ravel() / classes).reshape(shares.shape)

    truth = measure_confusion(1e6 * shares)
    covered = count_covered(make_table, truth, tables=100, n_resamples=100)
    assert min(covered.values()) >= 0.88, covered


def test_weighted_precision_has_a_value_but_no_interval():
    found = summarise_confusion([[8, 2], [1, 9]], seed=0, n_resamples=50)
    assert set(found.pop("weighted precision")) == {"value", "n"}
    assert all("ci95" in measure for measure in found.values())


def test_all_images_right_have_the_exact_interval_and_averages_over_classes_none():
    found = summarise_confusion([[30, 0], [0, 30]], seed=0, n_resamples=50)
    for name in ("accuracy", "weighted recall"):
        assert found[name]["ci95"] == pytest.approx([0.025 ** (1 / 60), 1])
    assert "ci95" not in found["macro F1"]


def test_the_same_seed_gives_the_same_intervals():
    one, two, other = (
        summarise_confusion([[8, 2], [1, 9]], seed=seed, n_resamples=50) for seed in (0, 0, 1)
    )
    assert one == two != other


# Files


@pytest.mark.parametrize("name", NAMES)
def test_a_reloaded_probe_predicts_the_same(data, readings, tmp_path, name):
    path = save_probe(tmp_path / "new" / "probe.skops", readings[name].model, space="clip 1")
    again = load_probe(path, space="clip 1")
    assert (again.predict(data[0]) == readings[name].model.predict(data[0])).all()
    assert [p.name for p in path.parent.iterdir()] == ["probe.skops"]


def test_a_probe_holds_no_pickle(readings, tmp_path):
    path = save_probe(tmp_path / "probe.skops", readings[PAPER_PROBE].model, space="clip 1")
    with zipfile.ZipFile(path) as archive:
        endings = {name.rpartition(".")[2] for name in archive.namelist()}
        arrays = [archive.read(name) for name in archive.namelist() if name.endswith(".npy")]
    assert endings == {"npy", "json"}
    assert b"'descr': '|O'" not in b"".join(array[:128] for array in arrays)


def test_a_probe_of_another_space_is_refused(readings, tmp_path):
    path = save_probe(tmp_path / "probe.skops", readings[PAPER_PROBE].model, space="clip 1")
    with pytest.raises(ProbeFileError, match="reads vectors of space clip 1, not clip 2"):
        load_probe(path, space="clip 2")


class Trap(GaussianNB):
    """Somebody's own class: loading it would import and run what the file says."""


def test_a_type_that_is_not_trusted_is_named_and_not_loaded(tmp_path):
    model = Trap().fit([[0.0], [1.0]], ["a", "b"])
    skops.io.dump({"space": "clip 1", "model": model}, tmp_path / "trap.skops")
    with pytest.raises(ProbeFileError, match=r"types that are not trusted: .*Trap"):
        load_probe(tmp_path / "trap.skops", space="clip 1")


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    with pytest.raises(ProbeFileError, match="will not be loaded again: .*Trap"):
        save_probe(tmp_path / "trap.skops", Trap(), space="clip 1")
    assert not any(tmp_path.iterdir())


def test_something_else_is_no_probe(tmp_path):
    skops.io.dump(["clip 1"], tmp_path / "list.skops")
    with pytest.raises(ProbeFileError, match="holds a list that is no probe"):
        load_probe(tmp_path / "list.skops", space="clip 1")


@pytest.mark.parametrize("content", ["nothing", "text", "zip", "schema"])
def test_a_file_that_is_not_of_skops_is_refused(tmp_path, content):
    path = tmp_path / "probe.skops"
    path.write_bytes(b"" if content == "nothing" else b"no probe")
    if content in ("zip", "schema"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("schema.json" if content == "schema" else "other", "{")
    with pytest.raises(ProbeFileError, match=r"probe.skops is no file of skops"):
        load_probe(path, space="clip 1")


def test_a_file_cut_off_is_refused(readings, tmp_path):
    path = save_probe(tmp_path / "probe.skops", readings[PAPER_PROBE].model, space="clip 1")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ProbeFileError, match="probe.skops is no file of skops"):
        load_probe(path, space="clip 1")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_probe(tmp_path / "nothing.skops", space="clip 1")


# Figures


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_train_and_test_stand_at_their_accuracies_with_a_line_between(ax):
    test = {"dummy": {"value": 0.2, "ci95": [0.1, 0.4]}, "svm": {"value": 0.8, "ci95": [0.7, 0.9]}}
    draw_train_and_test(ax, {"svm": 1.0, "dummy": 0.25}, test, published={"svm": 0.98, "x": 0.5})
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["train"] == [[0.25, 0], [1.0, 1]]
    assert lines["S3, its data"] == [[0.98, 1]]
    assert ax.containers[0].lines[0].get_xydata().tolist() == [[0.2, 0], [0.8, 1]]
    reach, _ = ax.containers[0].lines[2][0].get_segments()
    assert reach[:, 0] == pytest.approx([0.1, 0.4])
    assert ax.collections[0].get_segments()[1].tolist() == [[0.8, 1], [1.0, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["dummy", "svm"]


def test_gammas_are_drawn_on_a_logarithm_with_their_names(ax):
    draw_gammas(ax, [0.1, 1], {"raw": [0.5, 0.9]}, {"scale": 1.0})
    assert ax.get_xscale() == "log"
    assert ax.lines[0].get_xydata().tolist() == [[0.1, 0.5], [1, 0.9]]
    assert ax.lines[1].get_xdata() == [1.0, 1.0] and ax.texts[0].get_text() == "scale"


def test_confusion_is_coloured_by_the_share_of_the_true_class(ax):
    draw_confusion(ax, pd.DataFrame([[3, 1], [0, 0]], ["a", "b"], ["a", "b"]))
    assert ax.images[0].get_array().tolist() == [[3 / 4, 1 / 4], [0, 0]]
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(0, 0): "3", (1, 0): "1"}
    assert ax.get_xlabel() == "labelled as"
