"""Change triplets do what they say: read as a person would, the words lead to the target alone."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

from toybox import disk as triplets_on_disk
from toybox.changes import (
    COMBINED,
    KINDS,
    MEMBERS,
    TRIPLETS,
    Member,
    can_be_said,
    change_group,
    differences,
    name_way,
)
from toybox.disk import CATEGORIES, find_changes, kinds_of, load_toybox_changes, write_changes
from toybox.render import render_scene
from toybox.world import (
    COLORS,
    GROUNDS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Thing,
    is_held_out,
    place_in_frame,
    sample_scene,
    scene_rng,
)

COUNT = 12  # groups on disk: enough that several processes write them


def thing(shape="star", color="red", texture="plain", size="medium", x=40.0, y=40.0):
    return Thing(shape, color, texture, size, x, y, 30.0, 0.0)


def member(*things, ground="grass"):
    return Member(ground, 0.0, dict(enumerate(things)))


@pytest.fixture(scope="module")
def groups():
    return [change_group(0, split, i) for split in ("train", "val", "test") for i in range(60)]


@pytest.fixture(scope="module")
def triplets(groups):
    return [(group, triplet) for group in groups for triplet in group.triplets]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_changes(tmp_path_factory.mktemp("changes"), "val", COUNT)


def files_in(root):
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


# --- a reader of captions, by rules of its own --------------------------------------------

ONE_WORD = {
    "lightning bolt": "bolt", "plus sign": "cross", "wooden boards": "wood", "disc": "circle",
    "box": "square", "hoop": "ring", "moon": "crescent", "rhombus": "diamond",
    "blossom": "flower", "spotted": "dotted", "chequered": "checkered", "little": "small",
    "big": "large", "tiles": "tile", "bricks": "brick", "pebbles": "gravel",
    "a checker pattern": "checks", "checker pattern": "checks", "up and to": "up to",
    "down and to": "down to",
}  # fmt: skip
MARKS = {"stripes": "striped", "dots": "dotted", "checks": "checkered"}
COLOR, TEXTURE, SHAPE, GROUND = ("|".join(v) for v in (COLORS, TEXTURES, SHAPES, GROUNDS))
MARK = "|".join(MARKS)
NEW = "(?P<new>(?:an?|another|one more) .+?)"
OLD = "the (?P<old>.+?)"
WAY = "(?P<way>(?:(?:up|down)(?: to the (?:left|right))?)|to the (?:left|right))"
PLACE = "(?P<place>in the middle|at the (?:top|bottom|left|right)(?: left| right)?)"
BESIDE = "(?P<relation>above|below|to the left of|to the right of) the (?P<other>.+?)"
PATTERNS = [
    f"(?:make|turn|paint) {OLD} (?P<color>{COLOR})",
    f"change the color of {OLD} to (?P<color>{COLOR})",
    f"{OLD} is (?P<color>{COLOR}) now",
    f"{OLD} is (?P<color>{COLOR}) instead of (?P<was_color>{COLOR})",
    f"make {OLD} (?P<texture>{TEXTURE})",
    f"give {OLD} (?P<mark>{MARK})",
    f"take (?P<was_mark>{MARK}) off {OLD}",
    f"{OLD} has (?P<mark>{MARK})",
    f"{OLD} has no (?P<was_mark>{MARK})",
    f"{OLD} is (?P<texture>{TEXTURE}) instead of (?P<was_texture>{TEXTURE})",
    f"turn {OLD} into an? (?P<shape>{SHAPE})",
    f"{OLD} is an? (?P<shape>{SHAPE}) now",
    f"replace {OLD} with {NEW}",
    f"swap {OLD} for {NEW}",
    f"there is {NEW} where {OLD} was",
    f"has {NEW} instead of {OLD}",
    f"(?:put it all|everything is|the same but) on (?P<ground>{GROUND})",
    f"change the ground to (?P<ground>{GROUND})",
    f"swap the (?P<was_ground>{GROUND}) for (?P<ground>{GROUND})",
    f"(?:the ground is|is on) (?P<ground>{GROUND}) instead of (?P<was_ground>{GROUND})",
    f"on (?P<ground>{GROUND}), not on (?P<was_ground>{GROUND})",
    f"add {NEW}",
    f"there is also {NEW}",
    f"has {NEW} too",
    f"with {NEW} added",
    f"(?:put|there is) {NEW} (?:{PLACE}|{BESIDE})",
    f"(?:remove|take away|without|no longer has) {OLD}",
    f"{OLD} is (?P<gone>gone|not there any more)",
    f"move {OLD} {WAY}",
    f"put {OLD} (?:{PLACE}|{BESIDE})",
    f"{OLD} is further {WAY}",
    f"{OLD} is {PLACE} instead of (?P<was_place>.+)",
    f"{OLD} is {BESIDE} now",
]


def read_clauses(caption):
    """What each clause says, as the named parts of the one pattern that fits it."""
    for words, word in ONE_WORD.items():
        caption = re.sub(rf"\b{words}\b", word, caption)
    clauses = []
    for clause in caption.split(" and "):
        fits = [m.groupdict() for p in PATTERNS if (m := re.fullmatch(p, clause))]
        fits = [{k: v for k, v in fit.items() if v is not None} for fit in fits]
        fits = [fit for fit in fits if is_noun(fit.get("old", "star"))]
        fits = [fit for fit in fits if is_noun(bare(fit.get("new", "a star")))]
        assert len(fits) == 1, (clause, fits)
        clauses.append(fits[0])
    return clauses


def bare(noun):
    return re.sub("^(an?|another|one more) ", "", noun)


def read_noun(noun):
    """The attributes that a noun phrase tells: {"color": "red", "shape": "star"}."""
    for mark, texture in MARKS.items():
        noun = re.sub(rf"(.+) with {mark}", rf"{texture} \1", noun)
    tables = {"size": SIZES, "color": COLORS, "texture": TEXTURES, "shape": SHAPES}
    return {name: word for word in noun.split() for name, table in tables.items() if word in table}


def is_noun(noun):
    said = read_noun(noun)
    return "shape" in said and len(said) == len(re.sub(" with ", " ", noun).split())


def find_key(noun, things):
    """The key of the one thing that the noun can mean."""
    said = read_noun(noun)
    fits = [k for k, t in things.items() if all(getattr(t, a) == v for a, v in said.items())]
    assert len(fits) == 1, (noun, things)
    return fits[0]


def follow(clauses, reference):
    """Change the reference as told: what is left, what is new, the ground, where things go."""
    kept, new, ground, where = dict(reference.things), [], reference.ground, []
    for said in clauses:
        key = find_key(said["old"], reference.things) if "old" in said else None
        was = reference.things.get(key)
        check_past(said, was, reference)
        ground = said.get("ground", ground)
        if "new" in said:
            new.append((read_new(said["new"], reference), was, said))
        if changed := read_attributes(said):
            kept[key] = replace(was, **changed)
        elif key is not None and "new" not in said and {"way", "place", "relation"} & said.keys():
            where.append((key, said))
        elif key is not None:
            del kept[key]
    assert len({kind for kind, _, _ in new}) == len(new)
    return kept, new, ground, where


def check_past(said, was, reference):
    """What a caption says of the reference must be so."""
    assert said.get("was_ground", reference.ground) == reference.ground
    if was is not None:
        assert said.get("was_color", was.color) == was.color
        assert said.get("was_texture", was.texture) == was.texture
        assert MARKS.get(said.get("was_mark"), was.texture) == was.texture
        assert said.get("was_place", place_in_frame(was)) == place_in_frame(was)


def read_attributes(said):
    changed = {a: said[a] for a in ("color", "texture", "shape") if a in said}
    if "was_mark" in said:
        changed["texture"] = "plain"
    if "mark" in said:
        changed["texture"] = MARKS[said["mark"]]
    return changed


def read_new(noun, reference):
    """The combination of a new thing, of which "another" says that there is one already."""
    combination = name({"texture": "plain"} | read_noun(bare(noun)))
    double = any(t.combination == combination for t in reference.things.values())
    assert double == noun.startswith(("another", "one more"))
    return combination


def name(attributes):
    return attributes["shape"], attributes["color"], attributes["texture"]


def lies_as_told(after, before, said, scene, reference):
    """Whether a thing that was moved or added lies where the clause has it."""
    if "place" in said:
        return place_in_frame(after) == said["place"]
    if "relation" in said:
        other = scene.things.get(find_key(said["other"], reference.things))
        return other is not None and RELATIONS[said["relation"]](after, other)
    if "way" not in said:  # a thing in place of another, or put anywhere
        return before is None or (after.x, after.y) == (before.x, before.y)
    x, y = after.x - before.x, after.y - before.y
    across = {"left": -1, "right": 1}.get(said["way"].split()[-1], 0)
    along = {"up": -1, "down": 1}.get(said["way"].split()[0], 0)
    return all(
        sign * step >= 48 if sign else abs(step) <= 16 for sign, step in ((across, x), (along, y))
    )


def fits(scene, told, reference):
    """Whether a scene is what `follow` makes of the reference, all else as it was."""
    kept, new, ground, where = told
    moved = {key for key, _ in where}
    same = all(is_same(scene.things.get(k), t, anywhere=k in moved) for k, t in kept.items())
    if scene.ground != ground or not same:
        return False
    extra = [t for k, t in scene.things.items() if k not in kept]
    if Counter(t.combination for t in extra) != Counter(kind for kind, _, _ in new):
        return False
    told = [(scene.things[k], reference.things[k], said) for k, said in where]
    told += [(next(t for t in extra if t.combination == kind), *rest) for kind, *rest in new]
    return all(lies_as_told(t, was, said, scene, reference) for t, was, said in told)


def is_same(found, wanted, anywhere):
    return found == wanted or (
        anywhere and found is not None and replace(found, x=wanted.x, y=wanted.y) == wanted
    )


# --- words ------------------------------------------------------------------------------


def test_words_lead_from_the_reference_to_the_target_and_to_no_other_of_the_six(triplets):
    for group, triplet in triplets:
        reference = group.members[triplet.reference]
        for caption in triplet.captions:
            told = follow(read_clauses(caption), reference)
            fitting = [i for i, m in enumerate(group.members) if fits(m, told, reference)]
            assert fitting == [triplet.target], (caption, reference)


def test_the_two_captions_of_a_triplet_are_worded_differently(triplets):
    assert [t.captions for _, t in triplets if t.captions[0] == t.captions[1]] == []


def test_an_article_fits_its_word(triplets):
    captions = [caption for _, t in triplets for caption in t.captions]
    assert [c for c in captions if re.search(r"\ba [aeiou]|\ban [^aeiou]|  |\bNone\b", c)] == []


# --- groups -----------------------------------------------------------------------------


def test_each_variant_differs_from_the_base_by_one_change(groups):
    for group in groups:
        base, *variants = group.members
        assert len(variants) == MEMBERS - 1
        assert [len(differences(base, variant)) for variant in variants] == [1] * len(variants)


def test_differences_are_all_there_is_between_two_members(triplets):
    """The changes made by hand, in place, turn the reference into the target."""
    for group, triplet in triplets:
        reference, target = group.members[triplet.reference], group.members[triplet.target]
        ground, things = reference.ground, list(reference.things.values())
        for change in triplet.changes:
            if change.kind == "ground":
                ground = change.after
                continue
            if change.before is not None:
                things.remove(change.before)
            if change.after is not None:
                things.append(change.after)
        assert ground == target.ground
        assert reference.light == target.light
        assert sorted(things, key=str) == sorted(target.things.values(), key=str)


def test_a_group_has_six_triplets_four_from_the_base_one_back_and_one_across(groups):
    ways = Counter()
    for group in groups:
        pairs = {(t.reference, t.target) for t in group.triplets}
        assert len(pairs) == TRIPLETS
        forth = sum(reference == 0 for reference, _ in pairs)
        back = sum(target == 0 for _, target in pairs)
        ways[forth, back, TRIPLETS - forth - back] += 1
    assert ways.most_common(1)[0][0] == (4, 1, 1)
    assert ways[4, 1, 1] > 0.95 * len(groups)


def test_changes_of_every_kind_occur_and_none_prevails(triplets):
    share = Counter(t.kind for _, t in triplets)
    assert set(share) == {*KINDS, COMBINED}
    assert min(share.values()) > 0.04 * len(triplets)
    assert max(share.values()) < 0.25 * len(triplets)


def test_no_two_members_of_a_group_are_the_same_scene_in_words(groups):
    for group in groups:
        told = [
            (m.ground, sorted((t.combination, place_in_frame(t)) for t in m.things.values()))
            for m in group.members
        ]
        assert all(a != b for a, b in combinations(told, 2))


def test_a_scene_keeps_one_to_four_things_none_held_out(groups):
    scenes = [member.scene for group in groups for member in group.members]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3, 4}
    assert not any(is_held_out(t.combination) for scene in scenes for t in scene.things)


def test_things_added_or_moved_touch_no_other(groups):
    for group in groups:
        for variant in group.members[1:]:
            (change,) = differences(group.members[0], variant)
            if change.kind not in ("add", "move"):
                continue
            others = [t for t in variant.things.values() if t != change.after]
            gaps = [np.hypot(change.after.x - t.x, change.after.y - t.y) for t in others]
            assert all(
                g > change.after.radius + t.radius for g, t in zip(gaps, others, strict=True)
            )


def test_a_change_is_seen_and_nothing_else_is(groups):
    """With the same grain, pictures differ where the changed thing (and its shadow) lies."""
    for group in groups[:8]:
        drawn = [render_scene(m.scene, np.random.default_rng(0))[0] for m in group.members]
        for variant, image in zip(group.members[1:], drawn[1:], strict=True):
            (change,) = differences(group.members[0], variant)
            differs = np.abs(image.astype(int) - drawn[0]).max(axis=2)
            assert (differs > 40).sum() > 200
            if change.kind != "ground":
                assert not differs[~near(change.before, change.after)].any()


def near(*things):
    rows, columns = np.mgrid[:256, :256]
    return np.any(
        [np.hypot(columns - t.x, rows - t.y) < 1.8 * t.radius + 20 for t in things if t], axis=0
    )


def test_a_group_depends_on_its_seed_split_and_number_alone():
    assert change_group(0, "val", 3) == change_group(0, "val", 3)
    others = [(0, "val", 4), (0, "test", 3), (1, "val", 3)]
    assert all(change_group(*other) != change_group(0, "val", 3) for other in others)


def test_scenes_are_not_those_of_the_world():
    world = {
        sample_scene(scene_rng(0, split, i)).light
        for split in ("train", "val", "test")
        for i in range(20)
    }
    ours = {change_group(0, s, i).members[0].light for s in ("train", "val") for i in range(20)}
    assert not world & ours


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'novel'.*train, val, test"):
        change_group(0, "novel", 0)


# --- what can be said -------------------------------------------------------------------


def test_a_thing_with_a_double_cannot_be_spoken_of():
    twins = member(thing(x=40.0), thing(x=200.0))
    bluer = member(thing(x=40.0, color="blue"), thing(x=200.0))
    assert not can_be_said(differences(twins, bluer), twins)
    assert can_be_said(differences(bluer, twins), bluer)


def test_two_changes_of_one_thing_and_three_changes_are_too_much():
    before = member(thing(), thing("heart"), thing("ring"))
    twice = member(thing(color="blue", texture="dotted"), thing("heart"), thing("ring"))
    two = member(thing(color="blue"), thing("heart", "pink"), thing("ring"))
    three = member(thing(color="blue"), thing("heart", "pink"), thing("ring"), ground="sand")
    told = [can_be_said(differences(before, after), before) for after in (twice, two, three)]
    assert told == [False, True, False]
    assert not can_be_said(differences(before, before), before)


@pytest.mark.parametrize(
    ("x", "y", "way"),
    [
        (-48, 16, "to the left"),
        (60, 0, "to the right"),
        (0, -50, "up"),
        (-50, 50, "down and to the left"),
        (30, 60, None),
        (0, 16, None),
    ],
)
def test_a_way_is_named_where_it_is_clear(x, y, way):
    assert name_way(thing(x=100, y=100), thing(x=100 + x, y=100 + y)) == way


# --- on disk ----------------------------------------------------------------------------

# as published: FACTS of the data sets, and their files
CIRR_KEYS = {
    "pairid", "reference", "target_hard", "target_soft", "caption", "img_set",
}  # fmt: skip
SET_KEYS = {"id", "members", "reference_rank", "target_rank"}


def test_cirr_layout_is_as_published(written):
    entries = read_json(written / "cirr" / "captions" / "cap.rc2.val.json")
    paths = read_json(written / "cirr" / "image_splits" / "split.rc2.val.json")
    assert len(entries) == COUNT * TRIPLETS
    assert len(paths) == COUNT * MEMBERS
    assert len({entry["pairid"] for entry in entries}) == len(entries)
    for entry in entries:
        assert entry.keys() == CIRR_KEYS | {"kind"}
        assert entry["img_set"].keys() == SET_KEYS
        assert entry["target_soft"] == {entry["target_hard"]: 1.0}
        members = entry["img_set"]["members"]
        assert len(set(members)) == 6
        assert members[entry["img_set"]["reference_rank"]] == entry["reference"]
        assert members[entry["img_set"]["target_rank"]] == entry["target_hard"]
        assert set(members) <= paths.keys()
    for name_, path in paths.items():
        assert path == f"./val/{name_}.jpg"
        assert Image.open(written / "cirr" / path).size == (256, 256)


def test_fashioniq_layout_is_as_published(written):
    total = 0
    for category in CATEGORIES:
        entries = read_json(written / "fashioniq" / "captions" / f"cap.{category}.val.json")
        names = read_json(written / "fashioniq" / "image_splits" / f"split.{category}.val.json")
        assert all(entry.keys() == {"target", "candidate", "captions"} for entry in entries)
        assert all(len(entry["captions"]) == 2 for entry in entries)
        assert {entry[key] for entry in entries for key in ("target", "candidate")} <= set(names)
        assert all((written / "fashioniq" / "images" / f"{name_}.jpg").is_file() for name_ in names)
        total += len(entries)
    assert total == COUNT * TRIPLETS


def test_both_layouts_hold_the_same_triplets_and_share_the_pictures(written):
    cirr = read_json(written / "cirr" / "captions" / "cap.rc2.val.json")
    told = {(e["reference"], e["target_hard"]): e["caption"] for e in cirr}
    for category in CATEGORIES:
        for entry in read_json(written / "fashioniq" / "captions" / f"cap.{category}.val.json"):
            assert told.pop((entry["candidate"], entry["target"])) == entry["captions"][0]
    assert told == {}
    one, other = written / "cirr" / "val" / "val-0-0.jpg", written / "fashioniq" / "images"
    assert one.samefile(other / "val-0-0.jpg")


def test_pictures_show_the_members_of_their_group(written):
    group = change_group(0, "val", 2)
    for number, each in enumerate(group.members):
        shown = np.asarray(Image.open(written / "cirr" / "val" / f"val-2-{number}.jpg"))
        _, masks = render_scene(each.scene, np.random.default_rng(0))
        for t, mask in zip(each.scene.things, masks, strict=True):
            if t.texture == "plain":
                color = np.median(shown[mask], axis=0)
                assert np.abs(color - COLORS[t.color]).max() < 45


def test_a_group_is_the_same_whatever_the_number_of_groups_and_of_processes(written, tmp_path):
    few = files_in(write_changes(tmp_path, "val", 2) / "cirr" / "val")
    many = files_in(written / "cirr" / "val")
    assert len(few) == 2 * MEMBERS
    assert few == {name_: many[name_] for name_ in few}


def test_another_seed_gives_other_pictures(written, tmp_path):
    other = files_in(write_changes(tmp_path, "val", 1, seed=1) / "cirr" / "val")
    assert not set(other.values()) & set(files_in(written / "cirr" / "val").values())


def test_what_is_written_is_left_alone(written):
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    write_changes(written, "val", COUNT)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


def test_a_split_cut_off_is_written_again(tmp_path, monkeypatch):
    whole = files_in(write_changes(tmp_path / "whole", "val", 2))

    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(triplets_on_disk, "_write_fashioniq", stop)
        with pytest.raises(KeyboardInterrupt):
            write_changes(tmp_path / "cut", "val", 2)
    assert files_in(tmp_path / "cut") != whole
    assert files_in(write_changes(tmp_path / "cut", "val", 2)) == whole


def test_fewer_groups_leave_no_picture_of_the_others(tmp_path):
    write_changes(tmp_path / "a", "val", 3)
    again = files_in(write_changes(tmp_path / "a", "val", 1))
    assert again == files_in(write_changes(tmp_path / "b", "val", 1))


def test_splits_lie_side_by_side(tmp_path):
    val = files_in(write_changes(tmp_path, "val", 1))
    both = files_in(write_changes(tmp_path, "test", 1))
    assert val.items() < both.items()
    write_changes(tmp_path, "test", 2)
    assert val.items() < files_in(tmp_path).items()


def test_pictures_are_copied_where_links_are_impossible(tmp_path, monkeypatch):
    linked = files_in(write_changes(tmp_path / "a", "val", 1))

    def refuse(*args):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    assert files_in(write_changes(tmp_path / "b", "val", 1)) == linked


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="holds other files"):
        write_changes(tmp_path, "val", 1)
    assert files_in(tmp_path) == {"holiday.jpg": b"mine"}


def test_a_foreign_marker_is_refused(tmp_path):
    (tmp_path / "changes_val.json").write_text("[]")
    with pytest.raises(ValueError, match="not Toybox's"):
        write_changes(tmp_path, "val", 1)


@pytest.mark.parametrize("groups", [0, -1])
def test_a_split_without_groups_is_refused(tmp_path, groups):
    with pytest.raises(ValueError, match=f"groups={groups}"):
        write_changes(tmp_path, "val", groups)


def test_a_split_that_no_changes_have_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown split 'novel'"):
        write_changes(tmp_path, "novel", 1)
    with pytest.raises(ValueError, match="unknown split 'novel'"):
        load_toybox_changes("cirr", split="novel")


# --- loading ----------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_made(written):
    triplets = load_toybox_changes("cirr", split="val", root=written, groups=COUNT)
    made = [t for i in range(COUNT) for t in change_group(0, "val", i).triplets]
    assert triplets.queries["captions"].tolist() == [t.captions[:1] for t in made]
    assert triplets.queries["subset"].map(len).unique().tolist() == [6]
    assert len(triplets.gallery) == COUNT * MEMBERS
    assert triplets.missing_images() == []
    assert triplets.title == "toybox cirr val"


def test_fashioniq_categories_hold_their_kinds(written):
    kinds = kinds_of(written, "val")
    for category, members in CATEGORIES.items():
        triplets = load_toybox_changes(
            "fashioniq", split="val", category=category, root=written, groups=COUNT
        )
        found = {kinds[query] for query in triplets.queries["query_id"]}
        assert found <= {*members, COMBINED}
        assert triplets.missing_images() == []


def test_kinds_are_told_of_every_query(written):
    triplets = load_toybox_changes("cirr", split="val", root=written, groups=COUNT)
    kinds = kinds_of(written, "val")
    made = [t.kind for i in range(COUNT) for t in change_group(0, "val", i).triplets]
    assert [kinds[query] for query in triplets.queries["query_id"]] == made


def test_the_usual_place_keeps_other_seeds_and_counts_apart(tmp_path, monkeypatch):
    monkeypatch.setitem(triplets_on_disk.ROOTS, "val", tmp_path / "changes")
    monkeypatch.setitem(triplets_on_disk.GROUPS, "val", 1)
    assert find_changes(split="val", seed=3) == tmp_path / "changes-seed3-1"
    assert find_changes(split="val", groups=2) == tmp_path / "changes-seed0-2"
    assert find_changes(split="val") == tmp_path / "changes"


def test_an_unknown_layout_or_category_is_refused():
    with pytest.raises(ValueError, match="unknown layout 'coco'; known: cirr, fashioniq"):
        load_toybox_changes("coco", split="val")
    with pytest.raises(ValueError, match="unknown category 'dress'.*attribute, ground, things"):
        load_toybox_changes("fashioniq", split="val", category="dress")
    with pytest.raises(ValueError, match="unknown category None"):
        load_toybox_changes("fashioniq", split="val")
    with pytest.raises(ValueError, match="no categories, got 'ground'"):
        load_toybox_changes("cirr", split="val", category="ground")
