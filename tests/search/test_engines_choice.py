"""Which engine: measured, with queries of several kinds, and drawn."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from regionlab.search.engine import ExactEngine
from regionlab.search.engines import _choose, build_engine, recommend
from regionlab.viz.charts import describe_bytes, draw_tradeoff

N, D = 3000, 16


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


CENTRES = np.random.default_rng(0).normal(size=(30, D))


def clustered(seed, n):
    rng = np.random.default_rng(seed)
    return unit(CENTRES[rng.integers(0, 30, n)] + rng.normal(0, 0.4, (n, D)))


GALLERY = clustered(1, N)
# Words lie elsewhere than pictures: theirs are not near the cells' centres.
QUERIES = {"image": clustered(2, 30), "text": unit(np.random.default_rng(3).normal(size=(30, D)))}
FACTORIES = ["IVF64,Flat", "IVF64,PQ4x4"]


@pytest.fixture(scope="module")
def found():
    return recommend(GALLERY, QUERIES, recall=0.95, k=5, factories=FACTORIES)


def test_the_recommended_engine_has_the_recall_on_every_kind(found, tmp_path):
    assert found.reached
    engine = build_engine(found.name, GALLERY, folder=tmp_path)
    for queries in QUERIES.values():
        truth, scores = (e.search(queries, 5) for e in (ExactEngine(GALLERY), engine))
        hits = [len(set(a) & set(b)) / 5 for a, b in zip(truth[0], scores[0], strict=True)]
        assert np.mean(hits) >= 0.95


def test_it_is_the_fastest_of_those_that_have_it(found):
    good = found.table[found.table["recall"] >= 0.95]
    assert good.loc[good["milliseconds"].idxmin(), "engine"] == found.name


def test_the_worst_kind_of_query_decides(found):
    kinds = found.table[["recall_image", "recall_text"]]
    np.testing.assert_array_equal(found.table["recall"], kinds.min(axis=1))
    # Words need more cells than pictures: an engine chosen by pictures alone would fail them.
    cells = found.table[found.table["factory"] == "IVF64,Flat"]
    assert (cells["recall_image"] >= 0.95).sum() > (cells["recall_text"] >= 0.95).sum() == 1


def test_recall_is_the_share_of_the_true_neighbours(found, tmp_path):
    row = found.table[found.table["engine"] == "faiss:IVF64,Flat?nprobe=1"].iloc[0]
    engine = build_engine("faiss:IVF64,Flat?nprobe=1", GALLERY, folder=tmp_path)
    truth, rows = (e.search(QUERIES["text"], 5)[0] for e in (ExactEngine(GALLERY), engine))
    shared = sum(len(set(a) & set(b)) for a, b in zip(truth, rows, strict=True))
    assert row["recall_text"] == pytest.approx(shared / (30 * 5))


def test_every_setting_is_a_row_with_its_cost(found):
    table = found.table
    assert table["engine"].iloc[0] == "exact"
    assert table["recall"].iloc[0] == 1
    assert table["bytes"].iloc[0] == N * D * 4
    cells = table[table["factory"] == "IVF64,Flat"]
    assert cells["parameters"].tolist() == [f"nprobe={2**i}" for i in range(len(cells))]
    assert cells["recall"].is_monotonic_increasing
    assert (table["milliseconds"] > 0).all() and (table["build_seconds"].iloc[1:] > 0).all()
    assert table["fits"].all()


def test_what_does_not_fit_in_memory_is_not_built():
    found = recommend(GALLERY, QUERIES, recall=0.9, k=5, factories=FACTORIES, memory=60_000)
    flat = found.table[found.table["factory"] == "IVF64,Flat"]
    assert len(flat) == 1 and flat["recall"].isna().all()
    assert flat["bytes"].item() == N * (4 * D + 8) + 64 * 4 * D
    assert found.table["fits"].tolist() == (found.table["bytes"] <= 60_000).tolist()
    assert "PQ4x4" in found.name


def test_what_fits_in_no_memory_is_said():
    with pytest.raises(ValueError, match="no engine fits in the memory: the smallest takes 35,120"):
        recommend(GALLERY, QUERIES, factories=FACTORIES, memory=1000)


def test_the_nearest_is_named_where_none_has_the_recall():
    table = pd.DataFrame({
        "engine": ["a", "b", "c", "d"],
        "recall": [0.5, 0.8, 0.99, np.nan],
        "milliseconds": [1.0, 2, 3, np.nan],
        "bytes": [10, 20, 900, 5],
        "fits": [True, True, False, True],
    })  # fmt: skip
    assert _choose(table, 0.9) == ("b", False)
    assert _choose(table, 0.5) == ("a", True)
    assert _choose(table.assign(fits=True), 0.9) == ("c", True)


def test_only_some_of_many_queries_are_asked(monkeypatch):
    asked = []
    search = ExactEngine.search
    monkeypatch.setattr(
        ExactEngine, "search", lambda self, q, k: asked.append(len(q)) or search(self, q, k)
    )
    recommend(GALLERY, QUERIES, factories=[], max_queries=7)
    assert asked == [7, 7] + [1] * 14


def test_equal_vectors_count_whichever_is_found():
    gallery = np.repeat(GALLERY[:300], 10, axis=0)
    found = recommend(gallery, QUERIES, factories=["HNSW16"], k=5, recall=0.9)
    assert found.table["recall"].iloc[-1] >= 0.9


def test_indexes_can_be_kept(tmp_path, monkeypatch):
    recommend(GALLERY, QUERIES, factories=["IVF64,SQ8"], folder=tmp_path, k=5)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith("faiss-IVF64,SQ8")


@pytest.mark.parametrize("queries", [{}, {"image": np.empty((0, D), np.float32)}])
def test_queries_are_needed(queries):
    with pytest.raises(ValueError, match="name at least one kind of query"):
        recommend(GALLERY, queries)


@pytest.mark.parametrize("recall", [0, 1.1, -1])
def test_a_recall_that_is_none_is_refused(recall):
    with pytest.raises(ValueError, match=f"recall must be in .0, 1., got {recall}"):
        recommend(GALLERY, QUERIES, recall=recall)


# Figures


def test_each_index_is_a_curve_with_markers_as_large_as_its_memory(found):
    _, ax = plt.subplots()
    draw_tradeoff(ax, found.table, chosen=found.name, target=0.95)
    exact, cells, codes = ax.collections
    assert cells.get_sizes()[0] > exact.get_sizes()[0] > codes.get_sizes()[0]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["exact, 192 kB", "IVF64,Flat, 221 kB", "IVF64,PQ4x4, 35.8 kB"]
    plt.close()


def test_settings_that_cost_more_and_find_no_more_are_not_drawn():
    table = pd.DataFrame({
        "engine": list("abcd"),
        "factory": "x",
        "milliseconds": [3.0, 1, 2, 4],
        "recall": [0.9, 0.5, 0.4, 0.9],
        "bytes": 1,
    })  # fmt: skip
    _, ax = plt.subplots()
    draw_tradeoff(ax, table)
    assert ax.collections[0].get_offsets().tolist() == [[1, 0.5], [3, 0.9]]
    plt.close()


def test_engines_that_were_not_measured_are_not_drawn(found):
    _, ax = plt.subplots()
    missing = pd.DataFrame([{"engine": "x", "factory": "x", "bytes": 9}])
    draw_tradeoff(ax, pd.concat([found.table, missing]))
    assert len(ax.collections) == 3
    plt.close()


@pytest.mark.parametrize(
    "count, words",
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_049_000, "1.05 MB"), (2.05e9, "2.05 GB"),
     (999_900, "1 MB"), (3e12, "3 TB"), (4e15, "4 PB"), (4e18, "4e+03 PB")],
)  # fmt: skip
def test_bytes_in_words(count, words):
    assert describe_bytes(count) == words
