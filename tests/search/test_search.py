"""Questions to an index, in words, pictures, ids and vectors."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.data.collection import load_folder
from regionlab.data.images import ImageError, read_image
from regionlab.index.build import build_index
from regionlab.index.index import open_index
from regionlab.index.tables import IndexFolderError
from regionlab.models.registry import load_encoder
from regionlab.search.engine import ExactEngine
from regionlab.search.images import (
    get_engine,
    search_image,
    search_indexed,
    search_text,
    search_vectors,
)


@pytest.fixture(scope="module")
def index(encoder, tmp_path_factory):
    """Eight pictures; 2.png has the bytes of 5.png."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)
        pixels[:, :15] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    shutil.copy(folder / "photos" / "5.png", folder / "photos" / "2.png")
    return build_index(load_folder(folder / "photos"), encoder, folder / "index")


def rank_slowly(index, vectors):
    scores = vectors.astype(np.float64) @ np.asarray(index.vectors, np.float64).T
    rows = np.argsort(-scores.round(7), axis=1, kind="stable")
    return rows, np.take_along_axis(scores, rows, 1)


# Words


def test_words_find_images_by_cosine(index, encoder):
    texts = ["a red circle", "two blue squares"]
    ranking = search_text(index, texts, encoder, k=5)
    rows, scores = rank_slowly(index, encoder.encode_texts(texts))
    np.testing.assert_array_equal(ranking.rows, rows[:, :5])
    np.testing.assert_allclose(ranking.scores, scores[:, :5], atol=1e-6)
    assert ranking.queries == texts
    assert ranking.excluded.tolist() == [-1, -1]
    assert repr(ranking) == "<Ranking: 2 queries x 5 of 8 images>"


def test_a_single_text_is_one_query(index, encoder):
    ranking = search_text(index, "a red circle", encoder, k=3)
    assert len(ranking) == 1
    assert ranking.queries == ["a red circle"]


def test_templates_reach_the_encoder(index, encoder):
    templates = ["a photo of a {}", "a drawing of a {}"]
    ranking = search_text(index, ["circle"], encoder, templates=templates)
    expected = search_vectors(index, encoder.encode_texts(["circle"], templates=templates))
    np.testing.assert_array_equal(ranking.scores, expected.scores)


@pytest.mark.parametrize("text", ["", " ", ["circle", ""]])
def test_an_empty_query_text_is_refused(index, encoder, text):
    with pytest.raises(ValueError, match="a query needs at least one word"):
        search_text(index, text, encoder)


def test_no_queries_give_an_empty_ranking(index, encoder):
    assert search_text(index, [], encoder, k=3).rows.shape == (0, 3)
    assert search_image(index, [], encoder, k=3, exclude_self=True).rows.shape == (0, 3)
    assert search_indexed(index, [], k=3, exclude_self=True).rows.shape == (0, 3)


# The cut-off


def test_a_k_larger_than_the_gallery_gives_all_of_it(index, encoder):
    ranking = search_text(index, "circle", encoder, k=1000)
    assert sorted(ranking.rows[0]) == list(range(8))


@pytest.mark.parametrize("k", [0, -3, 2.5, "3", None, True])
def test_a_k_that_counts_nothing_is_refused(index, encoder, k):
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got"):
        search_text(index, "circle", encoder, k=k)


# Pictures


def test_a_picture_finds_itself_first_and_its_copy_next(index, encoder):
    ranking = search_image(index, index.path(5), encoder, k=3)
    assert ranking.rows[0, :2].tolist() == [2, 5]  # equal scores, in the order of the gallery
    np.testing.assert_allclose(ranking.scores[0, :2], 1, atol=1e-5)
    assert ranking.queries == [str(index.path(5))]


def test_paths_and_arrays_ask_the_same(index, encoder):
    paths = [index.path(0), index.path(3)]
    expected = search_image(index, paths, encoder)
    for images in (map(str, paths), [read_image(path) for path in paths]):
        np.testing.assert_array_equal(search_image(index, images, encoder).rows, expected.rows)
    one = search_image(index, read_image(paths[1]), encoder)
    assert one.queries == ["image 0"]
    np.testing.assert_array_equal(one.rows[0], expected.rows[1])


def test_the_querys_own_image_is_left_out_on_request_and_the_result_says_so(index, encoder):
    ranking = search_image(index, [index.path(0), index.path(3)], encoder, k=8, exclude_self=True)
    assert ranking.excluded.tolist() == [0, 3]
    assert ranking.rows[:, -1].tolist() == [-1, -1]
    assert 0 not in ranking.rows[0] and 3 not in ranking.rows[1]
    assert repr(ranking) == "<Ranking: 2 queries x 8 of 8 images, own image left out of 2>"


def test_a_copy_elsewhere_is_known_by_its_bytes(index, encoder, tmp_path):
    shutil.copy(index.path(3), tmp_path / "renamed.png")
    ranking = search_image(index, tmp_path / "renamed.png", encoder, exclude_self=True)
    assert ranking.excluded.tolist() == [3]


def test_of_two_copies_in_the_gallery_the_very_file_is_left_out(index, encoder, tmp_path):
    for row, other in ((5, 2), (2, 5)):
        ranking = search_image(index, index.path(row), encoder, k=1, exclude_self=True)
        assert ranking.excluded.tolist() == [row]
        assert ranking.rows.tolist() == [[other]]
    shutil.copy(index.path(5), tmp_path / "third.png")
    ranking = search_image(index, tmp_path / "third.png", encoder, exclude_self=True)
    assert ranking.excluded.tolist() == [2]


def test_a_strange_picture_loses_nothing(index, encoder, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    ranking = search_image(index, tmp_path / "red.png", encoder, k=8, exclude_self=True)
    assert ranking.excluded.tolist() == [-1]
    assert sorted(ranking.rows[0]) == list(range(8))


def test_an_array_has_no_own_image(index, encoder):
    with pytest.raises(ValueError, match="exclude_self needs image files"):
        search_image(index, read_image(index.path(0)), encoder, exclude_self=True)


@pytest.mark.parametrize("exclude_self", [True, False])
def test_a_picture_that_cannot_be_read_is_named(index, encoder, tmp_path, exclude_self):
    (tmp_path / "text.jpg").write_text("no picture")
    for name, reason in (("text.jpg", "not an image"), ("gone.png", "")):
        with pytest.raises(ImageError, match=f"{name}: {reason}"):
            search_image(index, tmp_path / name, encoder, exclude_self=exclude_self)


@pytest.mark.parametrize(
    "search, query", [(search_text, "circle"), (search_image, "no matter.png")]
)
def test_another_model_may_not_ask(index, search, query):
    other = load_encoder("toyclip/untrained", device="cpu")
    with pytest.raises(IndexFolderError, match="load the same model, or build another index"):
        search(index, query, other)


# Indexed images and vectors


@pytest.mark.parametrize("exclude_self", [True, False])
def test_indexed_images_ask_by_their_stored_vectors(index, encoder, exclude_self):
    rows = [6, 1]
    ids = index.images["image_id"][rows]
    ranking = search_indexed(index, ids, k=4, exclude_self=exclude_self)
    expected = search_image(
        index, [index.path(row) for row in rows], encoder, k=4, exclude_self=exclude_self
    )
    np.testing.assert_array_equal(ranking.rows, expected.rows)
    assert ranking.excluded.tolist() == (rows if exclude_self else [-1, -1])
    assert ranking.queries == ids.tolist()


def test_one_id_may_stand_alone(index):
    image_id = index.images["image_id"][6]
    assert search_indexed(index, image_id, k=1, exclude_self=False).rows.tolist() == [[6]]


def test_an_unknown_id_is_named(index):
    with pytest.raises(KeyError, match="no image 'nobody'"):
        search_indexed(index, ["nobody"], exclude_self=False)


def test_vectors_of_another_shape_are_refused(index):
    d = index.vectors.shape[1]
    for vectors in (np.ones((2, d + 1)), index.vectors[0]):
        with pytest.raises(ValueError, match=rf"vectors must be \(q, {d}\), got \("):
            search_vectors(index, vectors)


@pytest.mark.parametrize("factor", [2, 0, np.nan])
def test_vectors_of_another_length_are_refused(index, factor):
    with pytest.raises(ValueError, match=f"must be of length 1, got one of {factor}"):
        search_vectors(index, np.asarray(index.vectors[:2]) * factor)


def test_names_and_exclusions_come_one_a_query(index):
    vectors = np.asarray(index.vectors[:2])
    with pytest.raises(ValueError, match="3 names for 2 queries"):
        search_vectors(index, vectors, queries=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"exclude must be \(2,\) rows in \[-1, 8\)"):
        search_vectors(index, vectors, exclude=[1, 8])
    assert search_vectors(index, vectors).queries == ["0", "1"]
    assert search_vectors(index, vectors, exclude=[0, -1]).excluded.tolist() == [0, -1]


# The table


def test_the_table_shows_one_querys_results(index):
    ids = index.images["image_id"]
    ranking = search_indexed(index, ids[[0, 5]], k=2, exclude_self=True)
    expected = pd.DataFrame({
        "rank": [1, 2],
        "image_id": ids[ranking.rows[1]].tolist(),
        "path": index.images["path"][ranking.rows[1]].tolist(),
        "score": ranking.scores[1],
    })  # fmt: skip
    assert ranking.rows[1, 0] == 2
    pd.testing.assert_frame_equal(ranking.table(1), expected)


def test_the_table_ends_where_results_end(index):
    ranking = search_indexed(index, index.images["image_id"][:1], k=8, exclude_self=True)
    table = ranking.table()
    assert table["rank"].tolist() == list(range(1, 8))
    assert np.isfinite(table["score"]).all()


# Engines


@pytest.mark.parametrize("engine", ["faiss:Flat", "faiss:HNSW8", "chroma"])
def test_engines_give_the_same_answers(index, encoder, engine):
    paths = [index.path(0), index.path(3)]
    for search, query, options in [
        (search_text, ["a red circle", "two squares"], {}),
        (search_image, paths, {"exclude_self": True}),
        (search_indexed, index.images["image_id"][:2], {"exclude_self": True}),
    ]:
        arguments = (index, query) if search is search_indexed else (index, query, encoder)
        expected = search(*arguments, k=3, **options)
        found = search(*arguments, k=3, engine=engine, **options)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_an_engine_is_kept_beside_the_index_and_asked_many_times(index, encoder):
    engine = get_engine(index, "faiss:IVF2,Flat?nprobe=2")
    (kept,) = index.folder.with_name("index.engines").glob("faiss-IVF2*")
    written = (kept / "index.faiss").stat().st_mtime_ns
    for name in (engine, "faiss:IVF2,Flat"):
        search_text(index, "circle", encoder, engine=name)
    assert (kept / "index.faiss").stat().st_mtime_ns == written
    open_index(index.folder)  # the index is none the worse


def test_engines_can_be_kept_elsewhere(index, tmp_path):
    get_engine(index, "faiss:Flat", folder=tmp_path / "engines")
    assert len(list((tmp_path / "engines").iterdir())) == 1


@pytest.mark.parametrize("engine", ["exact", "faiss:Flat", "chroma"])
def test_only_matching_images_are_found(index, encoder, engine):
    where = "path in ['photos/1.png', '1.png', '6.png']"
    matching = [1, 6] if "6.png" in set(index.images["path"]) else [1]
    ranking = search_text(index, "circle", encoder, k=5, engine=engine, where=where)
    assert sorted(ranking.rows[0][ranking.rows[0] >= 0]) == matching
    assert len(ranking.table()) == len(matching)


def test_an_unknown_column_is_told_the_known_ones(index, encoder):
    with pytest.raises(ValueError, match="no column 'colour' to filter by; known: image_id, path"):
        search_text(index, "circle", encoder, where="colour == 'red'")


def test_an_unknown_engine_is_refused(index, encoder):
    with pytest.raises(ValueError, match="unknown engine 'annoy'; known: exact, faiss"):
        search_text(index, "circle", encoder, engine="annoy")


def test_an_engine_of_another_index_is_refused(index, encoder):
    for vectors in (index.vectors[:-1], -index.vectors):
        with pytest.raises(ValueError, match="vectors that are not those of <Index"):
            search_text(index, "circle", encoder, engine=ExactEngine(vectors))


@pytest.mark.parametrize("dtype", [complex, str, bool, object])
def test_vectors_must_be_numbers(index, dtype):
    with pytest.raises(ValueError, match="vectors must be numbers"):
        search_vectors(index, np.array(index.vectors[:1]).astype(dtype), k=1)
