"""A collection is checked when made, and answers by id."""

from pathlib import Path

import numpy as np
import pytest

from regionlab.data.collection import Collection, make_table
from regionlab.data.images import write_image


def make_images(**changes):
    columns = {
        "image_id": ["a", "b", "c"],
        "path": ["a.png", "sub/b.png", "c.png"],
        "width": [6, 6, 6],
        "height": [4, 4, 4],
    }
    return make_table("images", columns | changes)


def make_objects(**changes):
    columns = {
        "object_id": ["1", "2", "3"],
        "image_id": ["b", "a", "b"],
        "category": ["cat", "dog", "cat"],
        "x0": [0, 1, 2],
        "y0": [0, 1, 2],
        "x1": [2, 3, 6],
        "y1": [2, 3, 4],
        "area": [4, 4, 8],
        "iscrowd": [False, True, False],
        "segmentation": [[[0, 0, 2, 0, 2, 2, 0, 2]], None, [[2, 2, 6, 2, 6, 4, 2, 4]]],
    }
    return make_table("objects", columns | changes)


def make_captions(**changes):
    columns = {
        "caption_id": ["7", "8"],
        "image_id": ["c", "b"],
        "caption": ["an empty room", "two cats"],
    }
    return make_table("captions", columns | changes)


def make_collection(root=Path("data"), **tables):
    tables = {
        "images": make_images(),
        "objects": make_objects(),
        "captions": make_captions(),
    } | tables
    return Collection(root, **tables, name="zoo", split="val")


def test_length_counts_images():
    assert len(make_collection()) == 3


def test_summary_counts_everything():
    assert make_collection().summary() == {
        "images": 3,
        "objects": 3,
        "crowds": 1,
        "categories": 2,
        "images with objects": 2,
        "captions": 2,
        "images with captions": 2,
        "labels": 0,
        "skipped": 0,
    }


def test_repr_is_one_line_without_zeros():
    assert repr(make_collection()) == (
        "<Collection zoo val: 3 images, 3 objects, 1 crowds, 2 categories, "
        "2 images with objects, 2 captions, 2 images with captions>"
    )


def test_collection_may_be_empty():
    collection = Collection(Path("data"), make_table("images"))
    assert len(collection) == len(collection.missing_files()) == 0
    assert repr(collection) == "<Collection collection: empty>"


def test_image_path_is_absolute():
    path = make_collection().image_path("b")
    assert path == Path.cwd() / "data/sub/b.png"


def test_read_gives_the_picture(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(make_collection(tmp_path).read("a"), image)


def test_objects_of_an_image_keep_their_order():
    collection = make_collection()
    assert collection.objects_of("b")["object_id"].tolist() == ["1", "3"]
    assert collection.objects_of("c").empty


def test_captions_of_an_image():
    collection = make_collection()
    assert collection.captions_of("c")["caption"].tolist() == ["an empty room"]
    assert collection.captions_of("a").empty


def test_objects_of_agrees_with_a_plain_filter_on_random_tables():
    rng = np.random.default_rng(0)
    n, m = 20, 200
    ids = [f"i{k}" for k in rng.permutation(n)]
    images = make_table(
        "images", {"image_id": ids, "path": ids, "width": [1] * n, "height": [1] * n}
    )
    columns = {key: [make_objects()[key].iloc[0]] * m for key in make_objects()}
    columns |= {"object_id": map(str, range(m)), "image_id": rng.choice(ids[:15], m)}
    collection = Collection(Path("data"), images, make_table("objects", columns))
    for image_id in ids:
        expected = collection.objects[collection.objects["image_id"] == image_id]
        assert collection.objects_of(image_id).equals(expected)


def test_mask_has_the_size_of_the_image():
    expected = np.zeros((4, 6), dtype=bool)
    expected[2:4, 2:6] = True
    np.testing.assert_array_equal(make_collection().mask("3"), expected)


def test_mask_of_an_object_without_one_names_it():
    with pytest.raises(ValueError, match="object '2': no segmentation"):
        make_collection().mask("2")


@pytest.mark.parametrize("method", ["image_path", "read", "objects_of", "captions_of"])
def test_unknown_image_is_named(method):
    with pytest.raises(KeyError, match="no image 'x' in zoo"):
        getattr(make_collection(), method)("x")


def test_unknown_object_is_named():
    with pytest.raises(KeyError, match="no object 'x' in zoo"):
        make_collection().mask("x")


def test_subset_keeps_the_order_asked_for_and_what_belongs_to_it():
    part = make_collection().subset(image_id for image_id in ["c", "a"])
    assert part.images["image_id"].tolist() == ["c", "a"]
    assert part.objects["object_id"].tolist() == ["2"]
    assert part.captions["caption_id"].tolist() == ["7"]
    assert (part.name, part.split) == ("zoo", "val")


def test_subset_answers_from_its_own_tables():
    collection = make_collection()
    collection.objects_of("b")  # fills the caches of the whole
    part = collection.subset(["b"])
    assert part.image_path("b").name == "b.png"
    assert part.objects_of("b")["object_id"].tolist() == ["1", "3"]
    with pytest.raises(KeyError, match="no image 'a'"):
        part.objects_of("a")


def test_subset_names_an_unknown_image():
    with pytest.raises(KeyError, match="no image 'x'"):
        make_collection().subset(["a", "x"])


def test_subset_refuses_an_image_twice():
    with pytest.raises(ValueError, match="image_id must be unique; 'a'"):
        make_collection().subset(["a", "a"])


def test_missing_files_are_those_not_on_disk(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.png").touch()
    (tmp_path / "c.png").mkdir()
    assert make_collection(tmp_path).missing_files()["image_id"].tolist() == ["a", "c"]


def test_missing_column_is_named():
    with pytest.raises(ValueError, match="images has no column 'height'"):
        make_collection(images=make_images().drop(columns="height"))


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("images", "image_id", [1, 2, 3]),
        ("images", "width", [6.5, 6.5, 6.5]),
        ("objects", "x0", [0, 1, 2]),
        ("objects", "iscrowd", [0, 1, 0]),
        ("captions", "caption", [1.0, 2.0]),
    ],
)
def test_column_of_another_type_is_named(table, column, values):
    make = {"images": make_images, "objects": make_objects, "captions": make_captions}[table]
    broken = make().drop(columns=column).assign(**{column: values})
    with pytest.raises(ValueError, match=rf"{table}\.{column} must be"):
        make_collection(**{table: broken})


def test_missing_caption_is_refused():
    with pytest.raises(ValueError, match=r"captions\.caption has missing values"):
        make_collection(captions=make_captions(caption=["a room", None]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"images": make_images(image_id=["a", "b", "a"])}, "image_id must be unique; 'a'"),
        ({"objects": make_objects(object_id=["1", "1", "2"])}, "object_id must be unique; '1'"),
        ({"captions": make_captions(caption_id=["7", "7"])}, "caption_id must be unique; '7'"),
    ],
)
def test_ids_that_come_twice_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        make_collection(**table)


def test_object_of_an_unknown_image_is_named():
    with pytest.raises(ValueError, match="objects refer to unknown images: image_id 'x'$"):
        make_collection(objects=make_objects(image_id=["x", "a", "x"]))


def test_caption_of_an_unknown_image_is_named():
    with pytest.raises(ValueError, match="captions refer to unknown images: image_id 'x'$"):
        make_collection(captions=make_captions(image_id=["c", "x"]))


def test_only_the_first_offenders_are_named():
    n = 8
    captions = {"caption_id": map(str, range(n)), "image_id": map(str, range(n))}
    with pytest.raises(ValueError, match="'0', '1', '2', '3', '4' and 3 more"):
        make_collection(captions=make_table("captions", captions | {"caption": ["a"] * n}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "sub/../../a.png", "..", ""])
def test_path_that_leaves_the_root_is_named(path):
    with pytest.raises(ValueError, match="must be relative to root") as caught:
        make_collection(images=make_images(path=["a.png", path, "c.png"]))
    assert repr(path) in str(caught.value)


def test_path_with_dots_in_a_name_is_fine():
    make_collection(images=make_images(path=["a..b.png", "..b/c.png", "b../d.png"]))


@pytest.mark.parametrize("x1", [-1, float("nan"), float("inf")])
def test_box_upside_down_or_without_numbers_is_named(x1):
    with pytest.raises(ValueError, match="object_id '2'"):
        make_collection(objects=make_objects(x1=[2, x1, 6]))
