"""Toybox is the world it says: what is drawn, written and told agrees, from the seed alone."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import toybox
from regionlab.data.registry import load_collection
from regionlab.models.clip import create_toyclip
from toybox import disk, load_toybox
from toybox.disk import CLASS_COLORS, CLASS_SHAPES, write_class_folders, write_split
from toybox.render import render_scene
from toybox.world import (
    COLORS,
    COMBINATIONS,
    GROUNDS,
    HELD_OUT,
    SEEN,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    describe_scene,
    sample_scene,
    sample_single_object,
    scene_rng,
)

COUNT = 12


def sample_scenes(split, count):
    """Scenes of a split, each with the generator that goes on to draw and describe it."""
    for number in range(count):
        rng = scene_rng(0, split, number)
        yield sample_scene(rng, held_out=split == "novel"), rng


def files_in(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    return write_split(write_split(root, "val", COUNT), "novel", COUNT)


# --- the world --------------------------------------------------------------------------


def test_world_is_as_rich_as_promised():
    assert (len(SHAPES), len(COLORS), len(TEXTURES), len(GROUNDS)) == (12, 8, 4, 8)
    scenes = [scene for scene, _ in sample_scenes("train", 400)]
    things = [thing for scene in scenes for thing in scene.things]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    assert {scene.ground for scene in scenes} == set(GROUNDS)
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.color for thing in things} == set(COLORS)
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert {thing.size for thing in things} == set(SIZES)


def test_some_scenes_show_the_same_object_twice():
    crowded = [scene for scene, _ in sample_scenes("train", 400) if len(scene.things) > 1]
    twice = [s for s in crowded if len({t.combination for t in s.things}) < len(s.things)]
    assert 0.10 < len(twice) / len(crowded) < 0.25


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_held_out_combinations_stay_out(split):
    shown = {t.combination for scene, _ in sample_scenes(split, 1500) for t in scene.things}
    assert not shown & set(HELD_OUT)
    assert len(shown) > 0.99 * len(SEEN)


def test_each_novel_scene_has_a_held_out_combination():
    shown = [{t.combination for t in scene.things} for scene, _ in sample_scenes("novel", 500)]
    assert all(combinations & set(HELD_OUT) for combinations in shown)
    assert set.union(*shown) >= set(HELD_OUT)


def test_class_pictures_show_their_class_and_no_held_out_combination():
    for shape, color in product(CLASS_SHAPES, CLASS_COLORS):
        scenes = [sample_single_object(scene_rng(0, "classes", i), shape, color) for i in range(40)]
        assert {len(scene.things) for scene in scenes} == {1}
        shown = {scene.things[0].combination for scene in scenes}
        assert {combination[:2] for combination in shown} == {(shape, color)}
        assert not shown & set(HELD_OUT)


def test_one_combination_in_ten_is_held_out_and_no_pair_of_attributes_with_it():
    assert len(HELD_OUT) == 40 and len(COMBINATIONS) == 384
    for first, second in combinations(range(3), 2):
        pairs = {(c[first], c[second]) for c in COMBINATIONS}
        assert {(c[first], c[second]) for c in SEEN} == pairs


def test_every_attribute_value_is_held_out_somewhere():
    for axis, values in enumerate((SHAPES, COLORS, TEXTURES)):
        assert {combination[axis] for combination in HELD_OUT} == set(values)


def test_unknown_split_is_told_the_known_ones():
    with pytest.raises(ValueError, match="'train2'; known: train, val, test, novel, classes"):
        scene_rng(0, "train2", 0)


# --- pictures ---------------------------------------------------------------------------


def test_masks_are_disjoint_and_show_most_of_each_thing():
    shares = []
    for scene, rng in sample_scenes("val", 100):
        _, masks = render_scene(scene, rng)
        assert np.sum(masks, axis=0).max() == 1
        for thing, mask in zip(scene.things, masks, strict=True):
            _, (whole,) = render_scene(replace(scene, things=(thing,)), np.random.default_rng(0))
            assert not (mask & ~whole).any()
            shares.append(mask.sum() / whole.sum())
    assert 0.7 < min(shares) < 0.99  # the smallest of 15,000 things was 0.73


def one_thing_scene(light=0.0, ground="sand", **changes):
    thing = Thing("circle", "blue", "plain", "large", x=128, y=128, radius=50, angle=0)
    return Scene(ground, light, (replace(thing, **changes),))


def draw(scene):
    image, masks = render_scene(scene, np.random.default_rng(0))
    return image.astype(int), masks


def test_mask_of_a_circle_has_its_place_and_area():
    _, (mask,) = draw(one_thing_scene(x=100, y=150, radius=40))
    rows, columns = np.nonzero(mask)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((100, 150), abs=0.3)
    assert mask.sum() == pytest.approx(np.pi * (0.92 * 40) ** 2, rel=0.01)


def test_front_thing_hides_the_one_behind():
    back, front = (one_thing_scene(x=x).things[0] for x in (100, 140))
    _, masks = draw(Scene("sand", 0.0, (back, front)))
    assert masks[1].sum() > 1.3 * masks[0].sum()


def test_shadow_falls_away_from_the_light():
    bare, _ = draw(Scene("sand", 0.0, ()))
    image, (mask,) = draw(one_thing_scene(light=0.0))  # light from the right
    darkened = (bare - image).sum(2) * ~mask
    assert darkened[:, :128].sum() > 5 * darkened[:, 128:].sum() > 0


def test_light_comes_from_its_side_on_ground_and_thing():
    lit_right, (mask,) = draw(one_thing_scene(light=0.0, ground="snow"))
    lit_left, _ = draw(one_thing_scene(light=np.pi, ground="snow"))
    right = np.arange(256)[None] >= 128
    for region in (mask, ~mask):
        assert lit_right[region & right].mean() > lit_left[region & right].mean()
        assert lit_right[region & ~right].mean() < lit_left[region & ~right].mean()


@pytest.mark.parametrize("color", COLORS)
def test_plain_things_have_the_color_of_their_name(color):
    image, (mask,) = draw(one_thing_scene(color=color))
    seen = np.median(image[mask], axis=0)
    assert min(COLORS, key=lambda name: np.abs(np.subtract(COLORS[name], seen)).sum()) == color


def test_textures_and_grounds_look_different():
    _, (mask,) = draw(one_thing_scene())
    things = [draw(one_thing_scene(texture=texture))[0][mask] for texture in TEXTURES]
    grounds = [draw(Scene(ground, 0.0, ()))[0] for ground in GROUNDS]
    for pictures in (things, grounds):
        differences = [np.abs(a - b).mean() for a, b in combinations(pictures, 2)]
        assert min(differences) > 15


def test_shapes_have_outlines_of_their_own():
    masks = [draw(one_thing_scene(shape=shape))[1][0] for shape in SHAPES]
    overlaps = [(a & b).sum() / (a | b).sum() for a, b in combinations(masks, 2)]
    assert max(overlaps) < 0.85


# --- captions ---------------------------------------------------------------------------

SHAPE_WORDS = {shape: shape for shape in SHAPES} | {
    "disc": "circle", "box": "square", "hoop": "ring", "plus sign": "cross", "moon": "crescent",
    "rhombus": "diamond", "lightning bolt": "bolt", "blossom": "flower",
}  # fmt: skip
PLURAL_WORDS = {word + "s": shape for word, shape in SHAPE_WORDS.items()} | {
    "crosses": "cross", "boxes": "square", "rhombuses": "diamond",
}  # fmt: skip
TEXTURE_WORDS = {texture: texture for texture in TEXTURES} | {
    "spotted": "dotted", "chequered": "checkered", "stripes": "striped", "dots": "dotted",
    "a checker pattern": "checkered",
}  # fmt: skip
SIZE_WORDS = {"small": "small", "little": "small", "medium": "medium", "large": "large",
              "big": "large"}  # fmt: skip
GROUND_WORDS = {ground: ground for ground in GROUNDS} | {
    "tiles": "tile", "bricks": "brick", "wooden boards": "wood", "pebbles": "gravel",
}  # fmt: skip
NUMBER_WORDS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}


def any_of(words):
    return "|".join(sorted(words, key=len, reverse=True))


PHRASE = re.compile(
    rf"(?P<number>{any_of(NUMBER_WORDS)}) (?:(?P<size>{any_of(SIZE_WORDS)}) )?(?:plain )?"
    rf"(?P<color>{any_of(COLORS)}) (?:(?P<texture>striped|dotted|spotted|checkered|chequered) )?"
    rf"(?P<shape>{any_of([*SHAPE_WORDS, *PLURAL_WORDS])})\b"
    rf"(?: with (?P<tail>stripes|dots|a checker pattern))?"
)
LIST = r"THING(?:, THING)*(?: and THING)?"
RELATION = "to the left of|to the right of|above|below|larger than|smaller than|next to"
PLACE = "at the (?:top|bottom)(?: left| right)?|at the (?:left|right)|in the middle"
FORMS = (
    rf"(?:a picture of |there is )?{LIST} on GROUND",
    rf"(?:on GROUND|a ground of GROUND with) {LIST}",
    rf"THING (?:{RELATION}) THING(?: with {LIST})? on GROUND|THING (?:{PLACE}) on GROUND",
    rf"(?P<said>one) (?:thing|object) on GROUND: {LIST}"
    rf"|(?P<many>two|three|four) (?:things|objects) on GROUND: {LIST}",
    rf"{LIST} on GROUND",
)


def read_phrase(match):
    """Return what a noun phrase says: (how many, shape, color, texture, size or None)."""
    said = match.groupdict()
    words = SHAPE_WORDS if NUMBER_WORDS[said["number"]] == 1 else PLURAL_WORDS
    texture = TEXTURE_WORDS[said["texture"] or said["tail"] or "plain"]
    shape, size = words[said["shape"]], SIZE_WORDS.get(said["size"])
    return NUMBER_WORDS[said["number"]], shape, said["color"], texture, size


def read_caption(caption):
    """Return the phrases, the ground, and the caption with both replaced by placeholders."""
    phrases = [read_phrase(match) for match in PHRASE.finditer(caption)]
    form = PHRASE.sub("THING", caption)
    (ground,) = re.findall(rf"\b(?:on|ground of) ({any_of(GROUND_WORDS)})\b", form)
    form = re.sub(rf"\b(on|ground of) {ground}\b", r"\1 GROUND", form)
    return phrases, GROUND_WORDS[ground], form


@pytest.fixture(scope="module")
def described():
    return [
        (scene, describe_scene(scene, rng))
        for split in ("val", "novel")
        for scene, rng in sample_scenes(split, 750)
    ]


def test_each_scene_has_five_captions_of_five_forms(described):
    for _, captions in described:
        forms = [read_caption(caption)[2] for caption in captions]
        assert all(map(re.fullmatch, FORMS, forms)), captions
        assert len(forms) == len(FORMS)


def test_captions_name_the_ground_and_every_thing(described):
    for scene, captions in described:
        shown = Counter(thing.combination for thing in scene.things)
        for caption in captions:
            phrases, ground, _ = read_caption(caption)
            told = Counter()
            for number, *combination, _ in phrases:
                told[tuple(combination)] += number
            assert (told, ground) == (shown, scene.ground), caption


def test_sizes_told_are_the_sizes_shown(described):
    for scene, captions in described:
        shown = Counter((*thing.combination, thing.size) for thing in scene.things)
        told = Counter()
        for number, *thing in read_caption(captions[4])[0]:
            told[tuple(thing)] += number
        assert told == shown


def test_counts_told_are_the_counts_shown(described):
    for scene, captions in described:
        said = re.match(r"(\w+) (?:thing|object)", captions[3])[1]
        assert NUMBER_WORDS[said] == len(scene.things)


def test_articles_fit_the_words_that_follow(described):
    text = " ".join(caption for _, captions in described for caption in captions)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  ", text)


TRUE_OF_CENTERS = {
    "to the left of": lambda a, b: a.x < b.x - 30,
    "to the right of": lambda a, b: a.x > b.x + 30,
    "above": lambda a, b: a.y < b.y - 30,
    "below": lambda a, b: a.y > b.y + 30,
    "larger than": lambda a, b: a.radius > 1.25 * b.radius,
    "smaller than": lambda a, b: b.radius > 1.25 * a.radius,
    "next to": lambda a, b: max(abs(a.x - b.x), abs(a.y - b.y)) < 40,
}


def test_relations_told_are_true(described):
    told = Counter()
    for scene, captions in described:
        if len(scene.things) == 1:
            continue
        (_, *first, _), (_, *second, _), *_ = read_caption(captions[2])[0]
        relation = re.search(RELATION, captions[2])[0]
        told[relation] += 1
        assert any(
            TRUE_OF_CENTERS[relation](a, b)
            for a, b in product(scene.things, repeat=2)
            if a is not b and [a.combination, b.combination] == [tuple(first), tuple(second)]
        ), captions[2]
    assert set(told) >= set(TRUE_OF_CENTERS) - {"next to"}


def test_things_too_close_and_alike_for_a_relation_are_next_to_each_other():
    pair = tuple(one_thing_scene(x=x, y=x, radius=22).things[0] for x in (100, 130))
    relation = describe_scene(Scene("sand", 0.0, pair), np.random.default_rng(0))[2]
    assert re.search(RELATION, relation)[0] == "next to"


def test_places_told_of_a_thing_alone_are_true(described):
    third = 256 / 3
    told = Counter()
    for scene, captions in described:
        if len(scene.things) > 1:
            continue
        (thing,), place = scene.things, re.search(PLACE, captions[2])[0]
        told[place] += 1
        assert ("left" in place, "right" in place) == (thing.x < third, thing.x >= 2 * third)
        assert ("top" in place, "bottom" in place) == (thing.y < third, thing.y >= 2 * third)
    assert len(told) == 9


def test_captions_fit_the_tokenizer_whole(described):
    _, _, tokenizer = create_toyclip()
    captions = [caption for _, five in described for caption in five]
    tokens = tokenizer(captions)
    assert tokens.shape[1] == 64
    assert (tokens != 0).sum(1).max() <= 56  # room to spare: longer ones may exist
    for caption, row in zip(captions[:200], tokens[:200], strict=True):
        text = tokenizer.decode([int(token) for token in row if token])
        assert text.replace(" ", "") == f"<start_of_text>{caption}<end_of_text>".replace(" ", "")


# --- on disk ----------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_whatever_the_number_of_processes(tmp_path, monkeypatch):
    write_split(tmp_path / "many", "val", 52)
    monkeypatch.setattr(disk, "in_parallel", lambda work, jobs, title, chunk: map(work, jobs))
    write_split(tmp_path / "one", "val", 52)
    assert files_in(tmp_path / "many") == files_in(tmp_path / "one")


def test_scenes_do_not_depend_on_how_many_there_are(tmp_path, world):
    few = files_in(write_split(tmp_path, "val", 3) / "images")
    assert few == {name: files_in(world / "images")[name] for name in few}
    assert len(few) == 3


def test_another_seed_or_split_gives_other_scenes(tmp_path, world):
    other = write_split(tmp_path, "val", COUNT, seed=1)
    pictures = [*files_in(other / "images").values(), *files_in(world / "images").values()]
    assert len(set(pictures)) == 3 * COUNT
    captions = [(root / "annotations/captions_val.json").read_text() for root in (other, world)]
    assert captions[0] != captions[1]


def test_annotations_are_cocos(world):
    instances = json.loads((world / "annotations/instances_val.json").read_text())
    assert [c["name"] for c in instances["categories"]] == list(SHAPES)
    images = {image["id"]: image for image in instances["images"]}
    for image in images.values():
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        with Image.open(world / "images" / "val" / image["file_name"]) as picture:
            assert (picture.size, picture.mode) == ((image["width"], image["height"]), "RGB")
    assert len({a["id"] for a in instances["annotations"]}) == len(instances["annotations"])
    for annotation in instances["annotations"]:
        rle = annotation["segmentation"]
        assert rle["size"] == [256, 256]
        assert annotation["area"] == coco_mask.area(rle) > 0
        assert annotation["bbox"] == coco_mask.toBbox(rle).tolist()
        assert annotation["iscrowd"] == 0
        assert set(annotation["attributes"]) == {"shape", "color", "texture", "size"}
        assert SHAPES[annotation["category_id"] - 1] == annotation["attributes"]["shape"]


def test_collection_holds_what_was_drawn(world):
    collection = load_toybox(world, split="val", count=COUNT)
    assert (collection.name, collection.split, len(collection)) == ("toybox", "val", COUNT)
    assert collection.missing_files().empty
    for number, (scene, rng) in enumerate(sample_scenes("val", COUNT)):
        image, masks = render_scene(scene, rng)
        row = collection.images.iloc[number]
        objects = collection.objects[collection.objects["image_id"] == row["image_id"]]
        captions = collection.captions[collection.captions["image_id"] == row["image_id"]]
        assert row["ground"] == scene.ground
        assert captions["caption"].tolist() == describe_scene(scene, rng)
        told = objects[["shape", "color", "texture", "size"]].to_numpy().tolist()
        assert told == [[*thing.combination, thing.size] for thing in scene.things]
        read = collection.read(row["image_id"]).astype(int)
        assert np.abs(read - image).mean() < 6  # what JPEG loses of the ground's grain
        for row, mask in zip(objects.itertuples(), masks, strict=True):
            np.testing.assert_array_equal(collection.mask(row.object_id), mask)
            y, x = np.nonzero(mask)
            box = (x.min(), y.min(), x.max() + 1, y.max() + 1)
            assert (row.x0, row.y0, row.x1, row.y1) == box


def test_toybox_is_a_kind_of_collection(world):
    collection = load_collection("toybox", world, split="novel", count=COUNT)
    combinations = collection.objects[["shape", "color", "texture"]].apply(tuple, axis=1)
    novel = combinations.isin(HELD_OUT).groupby(collection.objects["image_id"]).any()
    assert len(novel) == COUNT and novel.all()


@pytest.mark.parametrize("lost", ["captions_val.json", "instances_val.json"])
def test_split_with_an_annotation_file_missing_is_written_again(tmp_path, lost):
    before = files_in(write_split(tmp_path, "val", 3))
    (tmp_path / "annotations" / lost).unlink()
    (tmp_path / "images/val/000001000002.jpg").write_bytes(b"cut off")
    assert files_in(write_split(tmp_path, "val", 3)) == before


def test_interrupted_split_is_written_again(tmp_path, monkeypatch):
    def interrupt(job, write=disk._write_scene):
        if job[3] == 2:
            raise KeyboardInterrupt
        return write(job)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(disk, "_write_scene", interrupt)
        write_split(tmp_path, "val", 4)
    assert len(load_toybox(tmp_path, split="val", count=4).captions) == 20


def test_split_that_is_there_is_left_alone(tmp_path, monkeypatch):
    write_split(tmp_path, "val", 3)
    monkeypatch.setattr(disk, "_write_scene", None)
    write_split(tmp_path, "val", 3)


def test_other_seed_or_count_replaces_a_split(tmp_path):
    for seed, count in ((0, 3), (1, 3), (1, 2)):
        collection = load_toybox(tmp_path, split="val", count=count, seed=seed)
        fresh = load_toybox(tmp_path / f"{seed}-{count}", split="val", count=count, seed=seed)
        assert collection.captions.equals(fresh.captions)


@pytest.mark.parametrize("text", ['{"info": {"description": "COCO 2017"}}', "[]", "{"])
def test_annotations_of_another_data_set_are_not_overwritten(tmp_path, text):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/captions_val.json").write_text(text)
    with pytest.raises(ValueError, match="captions_val.json is not Toybox's"):
        write_split(tmp_path, "val", 3)
    assert (tmp_path / "annotations/captions_val.json").read_text() == text


def test_usual_place_keeps_other_seeds_and_sizes_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(toybox, "ROOT", tmp_path)
    monkeypatch.setattr(toybox, "SIZES", {"val": 2})
    roots = [
        load_toybox(tmp_path, split="val", **options).root.relative_to(tmp_path).as_posix()
        for options in ({}, {"count": 2}, {"seed": 1}, {"count": 1})
    ]
    assert roots == [".", ".", "seed1-2", "seed0-1"]


def test_class_view_has_27_folders(tmp_path):
    collection = load_toybox(tmp_path, split="classes", count=2)
    labels = Counter(collection.images["label"])
    assert labels == {f"{c}_{s}": 2 for s, c in product(CLASS_SHAPES, CLASS_COLORS)}
    assert len(labels) == 27
    assert collection.read(collection.images["image_id"][0]).shape == (256, 256, 3)
    pictures = files_in(tmp_path / "classes")
    assert len(set(pictures.values())) == 54
    assert pictures == files_in(write_class_folders(tmp_path / "again", per_class=2))


def test_smaller_class_view_leaves_nothing_of_a_larger_one(tmp_path):
    (tmp_path / "red_star").mkdir()
    (tmp_path / "red_star" / "0099.jpg").write_bytes(b"of another world")
    write_class_folders(tmp_path, per_class=1)
    assert len(files_in(tmp_path)) == 27


@pytest.mark.parametrize("split", ["val", "classes"])
@pytest.mark.parametrize("count", [0, -1])
def test_count_that_is_not_positive_is_refused(tmp_path, split, count):
    with pytest.raises(ValueError, match=f"at least one .*{count}"):
        load_toybox(tmp_path, split=split, count=count)
    assert not any(tmp_path.iterdir())


def test_split_that_is_not_on_disk_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'train'; on disk are: val, test, novel, classes"):
        load_toybox(tmp_path, split="train")
    with pytest.raises(ValueError, match="'train'; on disk are: val, test, novel"):
        write_split(tmp_path, "train", 3)
