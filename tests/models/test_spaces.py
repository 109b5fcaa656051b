"""Vectors know their space and region encoding, and nothing of another is compared with them."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.compose.composers import create_composer
from regionlab.compose.protocols import rank_gallery
from regionlab.compose.regions import search_changed_regions
from regionlab.data.collection import load_folder
from regionlab.index.build import build_index
from regionlab.index.index import Index, open_index
from regionlab.index.tables import IndexFolderError
from regionlab.models.registry import load_encoder
from regionlab.models.segmenter import Region
from regionlab.models.spaces import get_encoding, get_space, with_space
from regionlab.regions.encodings import encode_regions
from regionlab.regions.grounding import score_words
from regionlab.search.exact import EngineError
from regionlab.search.feedback import FeedbackSession, refine
from regionlab.search.images import get_engine, search_image, search_text, search_vectors
from regionlab.search.query import Part, Query, part_from_region, part_from_words
from regionlab.search.regions import search_regions
from regionlab.search.scoring import Rol
from regionlab.studies.labels import label_by_neighbours

ONE = with_space(np.eye(4, dtype=np.float32), "one")
TWO = with_space(np.eye(4, dtype=np.float32), "two")
CROP = with_space(np.eye(4, dtype=np.float32), "one", "crop")
BLUR = with_space(np.eye(4, dtype=np.float32), "one", "blur")


# What keeps its space


@pytest.mark.parametrize(
    "vectors",
    [
        CROP[:2],
        CROP[[2, 0]],
        CROP[1],
        next(iter(CROP)),
        CROP.copy(),
        copy.deepcopy(CROP),
        pickle.loads(pickle.dumps(CROP)),
        CROP.astype(np.float64),
        2 * CROP[0] - CROP[1],
        CROP / np.linalg.norm(CROP, axis=1, keepdims=True),
        CROP.mean(axis=0),
        CROP + ONE,
        np.stack([CROP[0], ONE[1]]),
        np.vstack([CROP, CROP]),
        np.concatenate([np.empty((0, 4), np.float32), CROP]),
    ],
)
def test_vectors_made_of_vectors_stay_in_their_space(vectors):
    assert (get_space(vectors), get_encoding(vectors)) == ("one", "crop")


@pytest.mark.parametrize(
    "values",
    [
        ONE @ ONE.T,
        ONE == ONE,
        np.asarray(ONE),
        ONE + TWO,
        np.concatenate([ONE, TWO]),
        np.vstack([CROP, BLUR]),
        CROP - BLUR,
        ONE.sum(),
        ONE[0, 0],
        ONE.max(),
    ],
)
def test_what_is_no_vector_or_of_two_spaces_says_none(values):
    assert get_space(values) is None


def test_numbers_are_those_of_an_array(tmp_path):
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(50, 8)).astype(np.float32)
    known = with_space(plain, "one")
    for compute in (lambda v: v @ v.T, lambda v: v.mean(0), lambda v: v / 3, np.linalg.norm,
                    lambda v: np.einsum("nd,d->n", v, v[0])):  # fmt: skip
        np.testing.assert_array_equal(compute(known), compute(plain))
    assert isinstance(known.sum(), np.float32)


def test_vectors_in_a_file_stay_there(tmp_path):
    np.save(tmp_path / "vectors.npy", ONE)
    mapped = with_space(np.load(tmp_path / "vectors.npy", mmap_mode="r"), "one")
    assert isinstance(mapped, np.memmap) and mapped.filename.name == "vectors.npy"
    assert get_space(mapped[1:3]) == "one" and np.may_share_memory(mapped[1:3], mapped)


# Parts and queries


def test_a_part_is_of_the_space_that_its_vector_says():
    part = Part(CROP[0])
    assert (part.space, part.encoding) == ("one", "crop")
    assert (get_space(part.vector), get_encoding(part.vector)) == ("one", "crop")
    assert (Part([1, 0]).space, Part([1, 0]).encoding) == (None, None)
    said = Part([1, 0], space="one", encoding="blur")
    assert (get_space(said.vector), get_encoding(said.vector)) == ("one", "blur")
    vectors = Query([part, Part(ONE[1])]).vectors
    assert (get_space(vectors), get_encoding(vectors)) == ("one", "crop")


def test_a_part_that_contradicts_its_vector_is_refused():
    with pytest.raises(ValueError, match="space one against space two"):
        Part(ONE[0], space="two")
    with pytest.raises(ValueError, match="region encoding crop against region encoding blur"):
        replace(Part(BLUR[0]), vector=CROP[0])


def test_parts_of_two_spaces_make_no_query():
    with pytest.raises(ValueError, match="different embedding spaces: one, two"):
        Query([Part(ONE[0]), Part(TWO[1])])
    assert len(Query([Part(ONE[0]), Part([0, 1, 0, 0])])) == 2


def test_parts_are_made_with_their_space_and_encoding(encoder):
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    region = Region(np.ones((30, 40), bool))
    part = part_from_region(encoder, image, region, encoding="blur")
    assert (part.space, part.encoding) == (encoder.space, "blur")
    assert part_from_region(encoder, image, region).encoding == "crop_erase"
    words = part_from_words(encoder, "a red chair")
    assert (words.space, words.encoding) == (encoder.space, None)
    (picture,) = encoder.encode_images([image])
    assert (Part(picture).space, Part(picture).encoding) == (encoder.space, None)
    none = encode_regions(encoder, image, [], encoding="crop")
    assert (get_space(none), get_encoding(none)) == (encoder.space, "crop")


# Searches


@pytest.fixture(scope="module")
def stranger(encoder_file):
    """The same weights behind another preprocessing: vectors as wide, in another space."""
    return load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="fp32", padding="square")


@pytest.fixture(scope="module")
def index(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spaces")
    (folder / "photos").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    build_index(load_folder(folder / "photos"), encoder, folder / "index")
    return open_index(folder / "index")


@pytest.fixture
def strange_index(index):
    """The same index, said to be by another model."""
    return replace(index, manifest=index.manifest | {"space": "another"})


def test_an_index_says_the_space_of_its_vectors(index, encoder):
    assert get_space(index.vectors) == encoder.space
    assert get_space(index.vectors[[1, 3]]) == encoder.space


def test_searches_by_another_model_are_refused(index, stranger):
    texts, words = stranger.encode_texts(["a cat"]), part_from_words(stranger, "a cat")
    searches = [
        lambda: search_text(index, "a cat", stranger),
        lambda: search_image(index, index.path(0), stranger),
        lambda: search_vectors(index, texts),
        lambda: search_vectors(index, np.concatenate([texts, texts])),
        lambda: search_vectors(index, np.asarray(texts), space=stranger.space),
        lambda: search_regions(index, Query([words]), target="images"),
        lambda: search_regions(index, Query([Part(texts[0])]), target="images"),
        lambda: FeedbackSession(index, Query([words]), {"target": "images"}),
    ]
    for search in searches:
        with pytest.raises(IndexFolderError, match=f"space {index.manifest['space']}") as error:
            search()
        assert stranger.space in str(error.value)


def test_vectors_of_one_index_are_not_looked_for_in_another(index, strange_index):
    with pytest.raises(IndexFolderError, match="the query vectors are of the space"):
        search_vectors(strange_index, index.vectors[:2])
    with pytest.raises(IndexFolderError, match="space another"):
        search_regions(strange_index, Query([Part(index.vectors[0])]), target="images")


def test_an_engine_is_asked_in_its_own_space(index, encoder, stranger):
    engine = get_engine(index, "exact")
    assert engine.search(encoder.encode_texts(["a cat"]), 2)[0].shape == (1, 2)
    with pytest.raises(EngineError, match=f"{stranger.space} against space {encoder.space}"):
        engine.search(stranger.encode_texts(["a cat"]), 2)
    with pytest.raises(EngineError, match="cannot be compared"):
        label_by_neighbours(
            index.vectors, np.array(list("abcdef")), stranger.encode_texts(["a"]), np.array(["a"])
        )


def test_an_array_of_ones_own_is_taken_as_it_is(index, encoder):
    plain = np.asarray(encoder.encode_texts(["a cat"]))
    expected = search_text(index, "a cat", encoder, k=3)
    for options in ({}, {"space": encoder.space}):
        found = search_vectors(index, plain, k=3, **options)
        np.testing.assert_array_equal(found.scores, expected.scores)


# Regions


def make_regions(encoding, space="one"):
    """An index of two images, each with a region of its own."""
    made = {"space": space, "model": {"model": "none"}, "regions": {"encoding": encoding}}
    images = pd.DataFrame({"image_id": ["0", "1"], "path": "", "width": 9, "height": 9})
    box = {"x0": 0.0, "y0": 0.0, "x1": 9.0, "y1": 9.0}
    regions = pd.DataFrame({"region_id": ["a", "b"], "row": [0, 1]}).assign(**box)
    vectors = np.eye(2, 4, dtype=np.float32)
    return Index("index", made, "", images, vectors, images[:0], regions, vectors)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"target": "both"},
        {"target": "images", "rol": Rol(1, 1, region="similar")},
    ],
    ids=str,
)
def test_a_region_of_another_encoding_is_refused_among_regions(options):
    box = [0, 0, 1, 1]
    index = make_regions("blur")
    assert search_regions(index, Query([Part(BLUR[1], box)]), **options).rows[0, 0] == 1
    with pytest.raises(
        IndexFolderError, match=r"query a ring was encoded by 'crop', .* 'blur': ma"
    ):
        search_regions(index, Query([Part(CROP[1], box)], "a ring"), **options)
    with pytest.raises(IndexFolderError, match="'crop'"):  # an unwanted part as well
        search_regions(index, Query([Part(BLUR[1], box), Part(CROP[0], weight=-1)]), **options)


@pytest.mark.parametrize("encoding", ["blur", "crop"])
def test_whole_images_and_words_are_compared_with_regions_of_any_encoding(encoding):
    assert search_regions(make_regions(encoding), Query([Part(ONE[1])])).rows[0, 0] == 1


def test_regions_of_any_encoding_are_compared_with_whole_images():
    for part in (Part(CROP[1]), Part(BLUR[1])):
        assert search_regions(make_regions("blur"), Query([part]), target="images").rows[0, 0] == 1


def test_regions_encoded_anew_count_as_what_they_are():
    index = replace(make_regions("blur"), region_vectors=CROP[:2])
    assert search_regions(index, Query([Part(CROP[1])])).rows[0, 0] == 1
    with pytest.raises(IndexFolderError, match="'blur'.*by 'crop'"):
        search_regions(index, Query([Part(BLUR[1])]))


def test_words_are_not_compared_with_the_regions_of_another_model(encoder, stranger):
    image = np.zeros((30, 40, 3), np.uint8)
    vectors = encode_regions(stranger, image, [np.ones((30, 40), bool)])
    with pytest.raises(ValueError, match="the words cannot be compared with these regions"):
        score_words(encoder, vectors, "a cat")


# What is made of queries


def test_feedback_stays_in_the_space_of_the_query():
    refined = refine(CROP[0], CROP[1:2], [[0, 0, 1, 0]])
    assert (get_space(refined), get_encoding(refined)) == ("one", "crop")
    for examples in ({"liked": TWO[:1]}, {"disliked": TWO[:1]}, {"unjudged": TWO[:1]}):
        with pytest.raises(ValueError, match=f"{min(examples)} vectors cannot refine .* space two"):
            refine(ONE[0], **{"liked": ONE[:1], "disliked": ONE[:1]} | examples)


def test_a_refined_query_is_still_refused_elsewhere():
    session = FeedbackSession(make_regions("crop"), Query([Part(CROP[0])])).judge("1", True)
    refined = session.refine_query()
    assert (refined.parts[0].space, refined.parts[0].encoding) == ("one", "crop")
    with pytest.raises(IndexFolderError, match="'crop'"):
        search_regions(make_regions("blur"), refined)


def test_composed_queries_are_in_the_space_of_their_encoder(index, encoder, stranger):
    composer, words = create_composer("sum", encoder, image_length=5.0), ["is green"]
    composed = composer.compose(index.vectors[:1], words)
    assert get_space(composed) == encoder.space
    search_vectors(index, composed)
    elsewhere = create_composer("sum", stranger, image_length=5.0)
    with pytest.raises(IndexFolderError, match=stranger.space):
        search_vectors(index, elsewhere.compose(np.asarray(index.vectors[:1]), words))
    with pytest.raises(ValueError, match="image_vectors are by another model than sum"):
        elsewhere.compose(index.vectors[:1], words)
    with pytest.raises(ValueError, match="cannot be compared with the gallery"):
        rank_gallery(elsewhere.compose(np.asarray(index.vectors[:1]), words), index.vectors, k=1)


def test_a_changed_region_keeps_its_encoding():
    def turn(vectors, words):
        return np.asarray(vectors)[:, ::-1]

    with pytest.raises(IndexFolderError, match="'crop'"):
        search_changed_regions(make_regions("blur"), [Query([Part(CROP[0])])], ["x"], turn, k=1)
    found = search_changed_regions(make_regions("crop"), [Query([Part(CROP[3])])], ["x"], turn, k=1)
    assert found.rows.tolist() == [[0]]
