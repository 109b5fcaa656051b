"""The exact engine against a full stable sort."""

import numpy as np
import pandas as pd
import pytest

from regionlab.models.spaces import with_space
from regionlab.search import exact as engine_exact
from regionlab.search.engine import ExactEngine
from regionlab.search.engines import build_engine, open_engine
from regionlab.search.exact import EngineError


def unit(vectors):
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def random_unit(seed, n, d):
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def rank_slowly(gallery, queries, k, exclude=None, keep=None):
    """Every score in double, sorted in full, ties by row."""
    scores = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    # Equal vectors tie exactly; rounding keeps double's own last digits out of it.
    scores = scores.round(12)
    for i, row in enumerate([] if exclude is None else exclude):
        if row >= 0:
            scores[i, row] = -np.inf
    if keep is not None:
        scores[:, ~keep] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, rows, 1)
    return np.where(np.isinf(values), -1, rows), values


# Vectors with few distinct values: whole rows and single scores repeat everywhere.
SIGNS = np.where(np.random.default_rng(1).random((300, 4)) < 0.5, -0.5, 0.5).astype(np.float32)


@pytest.mark.parametrize("k", [1, 2, 7, 150, 299, 300])
@pytest.mark.parametrize(
    "gallery, queries",
    [(random_unit(2, 300, 24), random_unit(3, 9, 24)), (SIGNS, SIGNS[40:60])],
    ids=["random", "many ties"],
)
def test_search_agrees_with_a_full_sort(gallery, queries, k):
    rows, scores = ExactEngine(gallery).search(queries, k)
    expected_rows, expected_scores = rank_slowly(gallery, queries, k)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
    assert (rows.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("k", [1, 10, 299, 300])
def test_search_leaves_out_the_row_asked_for(k):
    exclude = np.array([40, -1, 42, 0])
    rows, scores = ExactEngine(SIGNS).search(SIGNS[40:44], k, exclude=exclude)
    expected_rows, expected_scores = rank_slowly(SIGNS, SIGNS[40:44], k, exclude)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_the_place_that_an_exclusion_leaves_empty_has_no_row():
    gallery = np.eye(3, dtype=np.float32)
    rows, scores = ExactEngine(gallery).search(gallery[:1], 3, exclude=np.array([0]))
    assert rows.tolist() == [[1, 2, -1]]
    assert scores.tolist() == [[0, 0, -np.inf]]


@pytest.mark.parametrize("q", [1, 7, 100])
@pytest.mark.parametrize("order", ["C", "F"])
def test_equal_vectors_tie_wherever_they_stand(q, order):
    # A matrix product alone fails this: it rounds the last rows of a block differently.
    gallery = np.asarray(np.tile(random_unit(4, 1, 192), (1003, 1)), order=order)
    rows, scores = ExactEngine(gallery).search(random_unit(5, q, 192), 1003)
    assert (scores == scores[:, :1]).all()
    assert (rows == np.arange(1003)).all()


def test_ties_for_the_last_place_go_to_the_first_rows():
    gallery = unit([[0, 1], [1, 1], [1, 0], [1, 1], [1, 1]])
    rows, _ = ExactEngine(gallery).search(unit([[1, 0]]), 3)
    assert rows.tolist() == [[2, 1, 3]]


@pytest.mark.parametrize("block", [1, 3, 16, 1000])
def test_blocks_change_not_one_bit(block):
    gallery, queries = random_unit(6, 501, 96), random_unit(7, 32, 96)
    exclude = np.arange(32)
    expected = ExactEngine(gallery).search(queries, 20, exclude=exclude)
    found = ExactEngine(gallery, block=block).search(queries, 20, exclude=exclude)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


# Bounded memory: the gallery is read in pieces


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(engine_exact, "SCORES", 128)
    monkeypatch.setattr(engine_exact, "GATHERED", 7)


@pytest.mark.parametrize("q", [1, 2, 3, 4, 9, 200])
@pytest.mark.parametrize("k", [1, 5, 40])
@pytest.mark.parametrize("order", ["random", "worst first", "best first", "many ties", "all tie"])
def test_pieces_of_the_gallery_change_nothing(small_pieces, order, k, q):
    gallery, queries = random_unit(14, 300, 6), random_unit(15, q, 6)
    if order == "many ties":
        gallery = np.tile(gallery[:50], (6, 1))
    elif order == "all tie":  # more than may be held, so queries are answered in halves
        gallery = np.tile(gallery[:1], (300, 1))
    elif order != "random":
        gallery = gallery[np.argsort((gallery @ queries[0]) * (1 if order[0] == "w" else -1))]
    exclude = np.arange(q) % 300 - 1
    rows, scores = ExactEngine(gallery).search(queries, k, exclude=exclude)
    expected_rows, expected_scores = rank_slowly(gallery, queries, k, exclude)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_what_is_held_does_not_grow_with_the_gallery(monkeypatch):
    held = []

    class Spy(engine_exact._Hits):
        def offer(self, rough, start):
            super().offer(rough, start)
            held.append((rough.size, self.count))

    monkeypatch.setattr(engine_exact, "SCORES", 2000)
    monkeypatch.setattr(engine_exact, "_Hits", Spy)
    ExactEngine(random_unit(16, 20_000, 8)).search(random_unit(17, 20, 8), 5)
    assert max(size for size, _ in held) == 2000
    assert max(count for _, count in held) < 20 * 5 * 4


def test_rows_that_rounding_tells_apart_stay_until_they_are_compared_again():
    # The second and third are equal but for the rounding of a product: both may be second.
    hits = engine_exact._Hits(1, k=2)
    hits.offer(np.array([[0.9, 0.5, 0.5 - 4e-6, 0.1]], np.float32), 0)
    assert [rows.tolist() for rows in hits.get_rows()] == [[0, 1, 2]]


# What is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("k", [1, 300])
def test_a_query_that_is_not_finite_is_refused(value, k):
    queries = SIGNS[:3].copy()
    queries[1, 2] = value
    with pytest.raises(ValueError, match="1 of 3 queries not finite, first: 1"):
        ExactEngine(SIGNS).search(queries, k)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("k", [1, 300])
@pytest.mark.parametrize("where", [None, "label != 'owl'"], ids=str)
def test_a_row_that_is_not_finite_is_named(value, k, where):
    gallery = SIGNS.copy()
    gallery[[70, 211], 3] = value
    engine = ExactEngine(gallery, table=TABLE)
    with pytest.raises(EngineError, match="row 70 of the vectors is not finite, nor are 1 more"):
        engine.search(SIGNS[:3], k, where=where)


# Spaces


def test_queries_of_another_space_are_refused():
    engine = ExactEngine(with_space(SIGNS, "one"))
    rows, _ = engine.search(with_space(SIGNS[:3], "one"), 1)
    assert np.array_equal(engine.search(SIGNS[:3], 1)[0], rows)  # says nothing of itself
    with pytest.raises(EngineError, match="space two against space one"):
        engine.search(with_space(SIGNS[:3], "two"), 1)


# Filters


TABLE = pd.DataFrame({"label": np.array(["cat", "dog", "owl"])[np.arange(300) % 3]})


@pytest.mark.parametrize("k", [1, 10, 60, 150])
@pytest.mark.parametrize("block", [3, 256])
def test_only_matching_rows_are_found(k, block):
    exclude = np.array([1, -1, 4, 0, 7])  # 1, 4 and 7 are dogs
    engine = ExactEngine(SIGNS, table=TABLE, block=block)
    rows, scores = engine.search(SIGNS[:5], k, exclude=exclude, where="label == 'dog'")
    keep = (TABLE["label"] == "dog").to_numpy()
    expected_rows, expected_scores = rank_slowly(SIGNS, SIGNS[:5], k, exclude, keep)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-6)


def test_a_filter_that_nothing_matches_finds_nothing():
    rows, scores = ExactEngine(SIGNS, table=TABLE).search(SIGNS[:2], 3, where="label == 'cow'")
    assert (rows == -1).all() and (scores == -np.inf).all()


def test_a_filter_needs_a_table():
    with pytest.raises(ValueError, match="no table to filter by"):
        ExactEngine(SIGNS).search(SIGNS[:2], 3, where="label == 'cow'")
    with pytest.raises(ValueError, match="a table of 300 rows for 2 vectors"):
        ExactEngine(SIGNS[:2], table=TABLE)


def test_a_query_scores_the_same_alone_and_among_others():
    gallery, queries = random_unit(8, 501, 96), random_unit(9, 33, 96)
    together = ExactEngine(gallery).search(queries, 20)
    for i in range(33):
        alone = ExactEngine(gallery).search(queries[i : i + 1], 20)
        np.testing.assert_array_equal(alone[0][0], together[0][i])
        np.testing.assert_array_equal(alone[1][0], together[1][i])


def test_search_reads_mapped_vectors(tmp_path):
    gallery, queries = random_unit(10, 200, 32), random_unit(11, 5, 32)
    np.save(tmp_path / "vectors.npy", gallery)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for k in (10, 200):
        for a, b in zip(
            ExactEngine(mapped).search(queries, k),
            ExactEngine(gallery).search(queries, k),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)


def test_search_changes_neither_gallery_nor_queries():
    gallery, queries = random_unit(12, 50, 8), random_unit(13, 4, 8)
    before = gallery.copy(), queries.copy()
    ExactEngine(gallery).search(queries, 5, exclude=np.array([0, 1, 2, 3]))
    np.testing.assert_array_equal(gallery, before[0])
    np.testing.assert_array_equal(queries, before[1])


def test_no_queries_give_no_rankings():
    rows, scores = ExactEngine(SIGNS).search(np.empty((0, 4), np.float32), 5)
    assert rows.shape == scores.shape == (0, 5)


@pytest.mark.parametrize("k", [0, -1, 301])
def test_search_refuses_a_k_outside_the_gallery(k):
    with pytest.raises(ValueError, match=rf"k={k} is not in \[1, 300\]"):
        ExactEngine(SIGNS).search(SIGNS[:2], k)


@pytest.mark.parametrize("queries", [SIGNS[0], SIGNS[:2, :3]])
def test_search_refuses_queries_of_another_width(queries):
    with pytest.raises(ValueError, match=r"queries must be \(q, 4\)"):
        ExactEngine(SIGNS).search(queries, 1)


@pytest.mark.parametrize("exclude", [[0], [0, 300], [-2, 0], [[0, 1]]])
def test_search_refuses_exclusions_that_are_not_one_row_a_query(exclude):
    with pytest.raises(ValueError, match="exclude must be"):
        ExactEngine(SIGNS).search(SIGNS[:2], 1, exclude=np.array(exclude))


# The face


def test_exact_is_built_and_opened_by_name():
    for make in (build_engine, open_engine):
        engine = make("exact", SIGNS, table=TABLE)
        assert repr(engine) == "<ExactEngine exact: 300 x 4>"
        assert engine.bytes == 300 * 4 * 4
        assert engine.search(SIGNS[:1], 1, where="label == 'owl'")[0] % 3 == 2


@pytest.mark.parametrize("name", ["", "exakt", "exact:1", "faiss", "faiss:", "chroma:", "EXACT"])
def test_an_unknown_engine_is_told_the_known_ones(name):
    for make in (build_engine, open_engine):
        with pytest.raises(ValueError, match=f"unknown engine '{name}'; known: exact, faiss:<ind"):
            make(name, SIGNS)


@pytest.mark.parametrize("name", ["exact?k=2", "exact?nprobe=3"])
def test_exact_has_no_options(name):
    with pytest.raises(ValueError, match="exact has no option '.*'; known: none"):
        build_engine(name, SIGNS)


@pytest.mark.parametrize("name", ["exact?nprobe", "faiss:Flat?k_factor&a=1"])
def test_options_have_values(name, tmp_path):
    with pytest.raises(ValueError, match="are not key=value, joined by &"):
        build_engine(name, SIGNS, folder=tmp_path)


@pytest.mark.parametrize("name", ["exact", "faiss:Flat"])
@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 0)])
def test_vectors_that_are_no_gallery_are_refused(name, shape, tmp_path):
    with pytest.raises(ValueError, match="with n and d at least 1"):
        build_engine(name, np.ones(shape, np.float32), folder=tmp_path)


def test_engine_errors_are_value_errors():
    assert issubclass(EngineError, ValueError)


@pytest.mark.parametrize("name", ["exact", "faiss:HNSW32", "chroma"])
def test_numpy_numbers_are_numbers_to_every_engine(name, tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    engine = build_engine(name, vectors, folder=tmp_path, identity="x")
    rows, _ = engine.search(vectors[:2].tolist(), np.int64(4), exclude=[0, -1])
    assert rows[0].tolist() == [1, 2, 3, -1]
    assert sorted(rows[1]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("queries", "k", "exclude"),
    [
        (np.eye(2, dtype=complex), 1, None),
        (np.eye(2, dtype=object), 1, None),
        (np.eye(2), 1.0, None),
        (np.eye(2), True, None),
        (np.eye(2), 1, [0.0, 1.0]),
        (np.eye(2), 1, [np.nan, 1]),
        (np.eye(2), 1, [True, False]),
        (np.eye(2), 1, ["0", "1"]),
    ],
)
def test_what_is_no_number_or_row_is_refused(queries, k, exclude):
    with pytest.raises(ValueError, match="numbers|whole number|exclude must be"):
        build_engine("exact", np.eye(2, dtype=np.float32)).search(queries, k, exclude=exclude)
