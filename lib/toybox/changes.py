"""Groups of Toybox scenes that differ by one change each, and how a person asks for the change.

A group is six scenes under the same light: a base, and five others that each change one thing
of it. A triplet is a reference, a target of the same group and the words between them, as in
FashionIQ (two captions a triplet) and CIRR (sets of six images that look alike).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice, permutations

import numpy as np

from regionlab.util.errors import InputError
from toybox import world
from toybox.world import SIDE, Scene, Thing, choose, phrase_thing, place_in_frame, with_article

SPLITS = ("train", "val", "test")
MEMBERS = 6  # of a group: a base and its variants
TRIPLETS = 6  # of a group: four from the base on, two back or across
KEY = 5  # tells our generators from those of `world.scene_rng`, which number splits from 0 to 4
COMBINED = "combined"  # the kind of a triplet of two clauses
VALUES = {"color": tuple(world.COLORS), "texture": world.TEXTURES, "shape": world.SHAPES}
KINDS = (*VALUES, "ground", "add", "remove", "move")

FAR, STILL = 48, 16  # pixels along an axis from which a move counts, and up to which it does not
TRIES = 40  # places tried for a thing

NAMES = (("shape",), ("color", "shape"), ("texture", "shape"), ("color", "texture", "shape"))
BESIDE = {word: holds for word, holds in world.RELATIONS.items() if "than" not in word}

Wordings = tuple[list[str], list[str], list[str]]  # orders, facts, notes


@dataclass(frozen=True)
class Member:
    """A scene of a group; the same thing has the same key in all members that show it."""

    ground: str
    light: float
    things: Mapping[int, Thing]

    @property
    def scene(self) -> Scene:
        """The scene as the world has it, what was added last in front."""
        return Scene(self.ground, self.light, tuple(self.things[k] for k in sorted(self.things)))


@dataclass(frozen=True)
class Change:
    """One difference: a thing (or ground) before and after, None where there is none."""

    kind: str
    before: Thing | str | None
    after: Thing | str | None


@dataclass(frozen=True)
class Triplet:
    """From one member of a group to another (by number), and two wordings of the change."""

    reference: int
    target: int
    changes: tuple[Change, ...]
    captions: tuple[str, str]

    @property
    def kind(self) -> str:
        """One of `KINDS`, or "combined" where the words have two clauses."""
        return self.changes[0].kind if len(self.changes) == 1 else COMBINED


@dataclass(frozen=True)
class ChangeGroup:
    """Six members, the base first, and six triplets between them."""

    members: tuple[Member, ...]
    triplets: tuple[Triplet, ...]


# Groups


def check_split(split: str) -> None:
    """Raise InputError unless the split is one of "train", "val" and "test"."""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r} of changes; known: {', '.join(SPLITS)}")


def change_rng(seed: int, split: str, number: int, member: int = 0) -> np.random.Generator:
    """Return the generator of a group (member 0), or of the ground's grain of a member from 1."""
    check_split(split)
    return np.random.default_rng([seed, KEY, SPLITS.index(split), number, member])


def change_group(seed: int, split: str, number: int) -> ChangeGroup:
    """Sample group `number` of a split, independent of all others, of things seen in training."""
    rng = change_rng(seed, split, number)
    while True:  # some scenes have too little to change, or things that cannot be told apart
        scene = world.sample_scene(rng)
        base = Member(scene.ground, scene.light, dict(enumerate(scene.things)))
        members = (base, *_sample_variants(base, rng))
        if len(members) == MEMBERS:
            return ChangeGroup(members, _sample_triplets(members, rng))


def _sample_variants(base: Member, rng) -> list[Member]:
    """Change the base in up to five ways, no two the same in words, two of a kind at most."""
    variants: dict[tuple, Member] = {}
    for turn, kind in enumerate(rng.permutation(KINDS * 2)):
        variant = MAKERS[kind](base, str(kind), rng, world.MAX_THINGS + turn)
        if variant is None or len(variants) == MEMBERS - 1:
            continue
        changes = differences(base, variant)
        if can_be_said(changes, base):
            variants.setdefault(_key_in_words(changes[0]), variant)
    return list(variants.values())


def _key_in_words(change: Change) -> tuple:
    """Return what words surely tell: of a move only which thing moved, for ways may be alike."""
    sides = (change.before, change.after)
    return change.kind, *(s.combination if isinstance(s, Thing) else s for s in sides)


def _sample_triplets(members: tuple[Member, ...], rng) -> tuple[Triplet, ...]:
    """Four ways from the base, one back to it and one across, as far as they can be said."""
    variants = [int(n) + 1 for n in rng.permutation(MEMBERS - 1)]
    back = ((n, 0) for n in variants[::-1] if _leads_to_one(members, n, 0))
    across = ((a, b) for a, b in permutations(variants, 2) if _leads_to_one(members, a, b))
    pairs = [*islice(back, 1), *islice(across, 1)]
    pairs += [(0, n) for n in variants[: TRIPLETS - len(pairs)]]
    return tuple(Triplet(a, b, *say_change(members[a], members[b], rng)) for a, b in sorted(pairs))


def _leads_to_one(members: tuple[Member, ...], reference: int, target: int) -> bool:
    """Tell whether words can say the way, and lead to no other member of the group."""
    ways = [differences(members[reference], member) for member in members]
    told = [tuple(map(_key_in_words, way)) for way in ways]
    return can_be_said(ways[target], members[reference]) and told.count(told[target]) == 1


# What differs


def differences(reference: Member, target: Member) -> tuple[Change, ...]:
    """Return what turns one member into another: changes of things first, then the ground."""
    changes: list[Change] = []
    for key in sorted({*reference.things, *target.things}):
        changes += _compare(reference.things.get(key), target.things.get(key))
    if reference.ground != target.ground:
        changes.append(Change("ground", reference.ground, target.ground))
    return tuple(changes)


def _compare(before: Thing | None, after: Thing | None) -> list[Change]:
    if before is None or after is None:
        return [Change("add" if before is None else "remove", before, after)]
    kinds = [kind for kind in VALUES if getattr(before, kind) != getattr(after, kind)]
    if (before.x, before.y) != (after.x, after.y):
        kinds.append("move")
    return [Change(kind, before, after) for kind in kinds]


def can_be_said(changes: tuple[Change, ...], reference: Member) -> bool:
    """Tell whether words can say it: two clauses at most, each of a thing that has no double.

    Two clauses are about two things, and what comes out of them is not alike.
    """
    before, after = (
        [t.combination for t in side if isinstance(t, Thing)]
        for side in ([c.before for c in changes], [c.after for c in changes])
    )
    known = Counter(t.combination for t in reference.things.values())
    distinct = all(len(set(side)) == len(side) for side in (before, after))
    return len(changes) in (1, 2) and distinct and all(known[each] == 1 for each in before)


def name_way(before: Thing, after: Thing) -> str | None:
    """Return which way a thing moved, "to the left" or "up and to the right"; None if unclear."""
    across = _name_step(after.x - before.x, "to the left", "to the right")
    along = _name_step(after.y - before.y, "up", "down")
    if across is None or along is None:
        return None
    return " and ".join(filter(None, (along, across))) or None


def _name_step(step: float, back: str, forth: str) -> str | None:
    if abs(step) <= STILL:
        return ""
    return (back if step < 0 else forth) if abs(step) >= FAR else None


# Variants: one thing changed, or None where the scene allows no change of the kind


def _change_attribute(base: Member, kind: str, rng, key: int) -> Member | None:
    chosen = _choose_thing(base, rng)
    if chosen is None or (kind == "texture" and base.things[chosen].size == "small"):
        return None  # too small to tell dots from checks
    thing = base.things[chosen]
    others = [replace(thing, **{kind: v}) for v in VALUES[kind] if v != getattr(thing, kind)]
    after = choose(rng, [t for t in others if not world.is_held_out(t.combination)])
    return replace(base, things={**base.things, chosen: after})


def _change_ground(base: Member, kind: str, rng, key: int) -> Member:
    return replace(base, ground=choose(rng, [g for g in world.GROUNDS if g != base.ground]))


def _add(base: Member, kind: str, rng, key: int) -> Member | None:
    """Add a thing, one time in four a double of one that is there."""
    if len(base.things) == world.MAX_THINGS:
        return None
    double = rng.random() < 1 / 4
    known = [t.combination for t in base.things.values()]
    shape, color, texture = choose(rng, known if double else world.SEEN)
    size = choose(rng, list(world.SIZES))
    radius, angle = float(rng.uniform(*world.SIZES[size])), float(rng.uniform(-0.35, 0.35))
    thing = Thing(shape, color, texture, size, 0.0, 0.0, radius, angle)
    for _ in range(TRIES):
        placed = _put_anywhere(thing, rng)
        if _is_clear(placed, base.things):
            return replace(base, things={**base.things, key: placed})
    return None


def _remove(base: Member, kind: str, rng, key: int) -> Member | None:
    chosen = _choose_thing(base, rng)
    if chosen is None or len(base.things) == 1:
        return None
    return replace(base, things=_without(base, chosen))


def _move(base: Member, kind: str, rng, key: int) -> Member | None:
    """Move a thing where words can tell: clearly left, up, or both, to another part."""
    chosen = _choose_thing(base, rng)
    if chosen is None:
        return None
    thing, others = base.things[chosen], _without(base, chosen)
    for _ in range(TRIES):
        moved, way = _put_anywhere(thing, rng), rng.integers(3)
        moved = (replace(moved, x=thing.x), replace(moved, y=thing.y), moved)[way]
        elsewhere = place_in_frame(moved) != place_in_frame(thing)
        if elsewhere and name_way(thing, moved) and _is_clear(moved, others):
            return replace(base, things={**base.things, chosen: moved})
    return None


MAKERS: dict[str, Callable[..., Member | None]] = {
    **dict.fromkeys(VALUES, _change_attribute),
    "ground": _change_ground, "add": _add, "remove": _remove, "move": _move,
}  # fmt: skip


def _choose_thing(base: Member, rng) -> int | None:
    """Choose a thing that stands clear, so that its change is seen; None if all touch another."""
    clear = [k for k, thing in base.things.items() if _is_clear(thing, _without(base, k))]
    return choose(rng, clear) if clear else None


def _without(base: Member, key: int) -> dict[int, Thing]:
    return {k: thing for k, thing in base.things.items() if k != key}


def _put_anywhere(thing: Thing, rng) -> Thing:
    x, y = rng.uniform(thing.radius * 1.02, SIDE - thing.radius * 1.02, 2)
    return replace(thing, x=float(x), y=float(y))


def _is_clear(thing: Thing, others: Mapping[int, Thing]) -> bool:
    return all(
        np.hypot(thing.x - t.x, thing.y - t.y) > thing.radius + t.radius for t in others.values()
    )


# Words


def say_change(
    reference: Member, target: Member, rng: np.random.Generator
) -> tuple[tuple[Change, ...], tuple[str, str]]:
    """Return what changes from one member of a group to another, and two captions that say it.

    One caption is an order; two changes are joined by "and".
    """
    changes = differences(reference, target)
    speaker = Speaker(reference, target, rng)
    orders, facts, notes = zip(*[WRITERS[c.kind](c, speaker) for c in changes], strict=True)
    if len(changes) == 1:
        facts = (facts[0] + notes[0],)
    captions = [" and ".join(choose(rng, words) for words in style) for style in (orders, facts)]
    first = int(rng.integers(2))
    return changes, (captions[first], captions[1 - first])


@dataclass(frozen=True)
class Speaker:
    """Names things of the reference so that no other thing of it can be meant."""

    reference: Member
    target: Member
    rng: np.random.Generator

    def the(self, thing: Thing, *, without: str = "") -> str:
        """Name a thing, "the red star"; where it can be done, without saying one attribute."""
        names = [said for said in NAMES if self._is_unique(thing, said)]
        names = [said for said in names if without not in said] or names
        return f"the {self._name(thing, choose(self.rng, names))}"

    def _is_unique(self, thing: Thing, said: tuple[str, ...]) -> bool:
        things = self.reference.things.values()
        alike = (all(getattr(t, s) == getattr(thing, s) for s in said) for t in things)
        return sum(alike) == 1

    def _name(self, thing: Thing, said: tuple[str, ...]) -> str:
        words = [thing.color] if "color" in said else []
        if "texture" in said:  # "plain red star", but "red striped star"
            words.insert(len(words) * (thing.texture != "plain"), self.vary(thing.texture))
        return " ".join([*words, self.vary(thing.shape)])

    def vary(self, word: str) -> str:
        """Return the word or, one time in four, a synonym, as captions of scenes do."""
        return world.vary_word(word, self.rng)

    def a(self, thing: Thing, *, size: bool = False) -> str:
        """Name a thing that is new: "a red star", or "another red star" beside a double."""
        if all(t.combination != thing.combination for t in self.reference.things.values()):
            return phrase_thing(thing, self.rng, size=size)
        more = choose(self.rng, ("another", "one more"))
        return f"{more} {phrase_thing(thing, self.rng, size=size, article=False)}"

    def beside(self, after: Thing, before: Thing | None = None) -> list[str]:
        """Say how a thing newly lies to those that stay: "above the heart", "below the ring"."""
        staying = [t for k, t in self.reference.things.items() if self.target.things.get(k) == t]
        return [
            f"{word} {self.the(other)}"
            for other in staying
            if self._is_unique(other, NAMES[-1])
            for word, holds in BESIDE.items()
            if holds(after, other) and not (before and holds(before, other))
        ]


def _some(rng, options: list[str]) -> list[str]:
    """Return one of the options, or none where there are none."""
    return [choose(rng, options)] if options else []


# One writer a kind


def _say_color(change: Change, say: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.color, change.before.color
    return (
        [f"make {say.the(thing)} {new}", f"turn {say.the(thing)} {new}",
         f"paint {say.the(thing)} {new}",
         f"change the color of {say.the(thing, without='color')} to {new}"],
        [f"{say.the(thing)} is {new} now",
         f"{say.the(thing, without='color')} is {new} instead of {old}"],
        [_say_replaced(change, say)],
    )  # fmt: skip


def _say_texture(change: Change, say: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.texture, change.before.texture
    marks = world.WITH_TEXTURE.get(new, world.WITH_TEXTURE.get(old)).removeprefix("with ")
    the = say.the(thing, without="texture")
    give = f"take {marks} off {the}" if new == "plain" else f"give {the} {marks}"
    has = f"{the} has {'no ' if new == 'plain' else ''}{marks.removeprefix('a ')}"
    return (
        [f"make {say.the(thing)} {say.vary(new)}", give],
        [f"{the} is {say.vary(new)} instead of {say.vary(old)}", has],
        [_say_replaced(change, say)],
    )


def _say_shape(change: Change, say: Speaker) -> Wordings:
    thing, shape = change.before, with_article(say.vary(change.after.shape))
    return (
        [f"turn {say.the(thing)} into {shape}",
         f"replace {say.the(thing)} with {say.a(change.after)}",
         f"swap {say.the(thing)} for {say.a(change.after)}"],
        [f"{say.the(thing)} is {shape} now",
         f"there is {say.a(change.after)} where {say.the(thing)} was"],
        [_say_replaced(change, say)],
    )  # fmt: skip


def _say_replaced(change: Change, say: Speaker) -> str:
    return f"has {say.a(change.after)} instead of {say.the(change.before)}"


def _say_ground(change: Change, say: Speaker) -> Wordings:
    new, old = say.vary(change.after), say.vary(change.before)
    return (
        [f"put it all on {new}", f"change the ground to {new}", f"swap the {old} for {new}"],
        [f"everything is on {new}", f"the ground is {new} instead of {old}"],
        [f"is on {new} instead of {old}", f"the same but on {new}", f"on {new}, not on {old}"],
    )


def _say_add(change: Change, say: Speaker) -> Wordings:
    thing, rng = change.after, say.rng
    sized = thing.size != "medium" and rng.random() < 0.25
    new = say.a(thing, size=sized)
    where = choose(rng, [place_in_frame(thing), *_some(rng, say.beside(thing))])
    return (
        [f"add {new}", f"put {new} {where}"],
        [f"there is also {new}", f"there is {new} {where}"],
        [f"has {new} too", f"with {new} added"],
    )


def _say_remove(change: Change, say: Speaker) -> Wordings:
    the = say.the(change.before)
    return (
        [f"remove {the}", f"take away {the}"],
        [f"{the} is gone", f"{the} is not there any more"],
        [f"without {the}", f"no longer has {the}"],
    )


def _say_move(change: Change, say: Speaker) -> Wordings:
    before, after = change.before, change.after
    way, place = name_way(before, after), place_in_frame(after)
    beside = _some(say.rng, say.beside(after, before))
    return (
        [f"move {say.the(before)} {way}",
         *[f"put {say.the(before)} {where}" for where in (place, *beside)]],
        [f"{say.the(before)} is further {way}",
         f"{say.the(before)} is {place} instead of {place_in_frame(before)}",
         *[f"{say.the(before)} is {where} now" for where in beside]],
        [],
    )  # fmt: skip


WRITERS: dict[str, Callable[[Change, Speaker], Wordings]] = {
    "color": _say_color, "texture": _say_texture, "shape": _say_shape, "ground": _say_ground,
    "add": _say_add, "remove": _say_remove, "move": _say_move,
}  # fmt: skip
