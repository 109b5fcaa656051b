"""Scenes made from one another by one change each, and what differs between two of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from toybox.captions import place_in_frame
from toybox.world import (
    COLORS,
    GROUNDS,
    MAX_THINGS,
    SEEN,
    SHAPES,
    SIDE,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    is_held_out,
)

VALUES = {"color": tuple(COLORS), "texture": TEXTURES, "shape": SHAPES}
KINDS = (*VALUES, "ground", "add", "remove", "move")

FAR, STILL = 48, 16  # pixels along an axis from which a move counts, and up to which it does not
TRIES = 40  # places tried for a thing


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


def make_variant(base: Member, kind: str, rng: np.random.Generator, *, key: int) -> Member | None:
    """Change one thing of a scene.

    Parameters
    ----------
    base
        The scene to change.
    kind
        One of `KINDS`.
    rng
        Draws which thing is changed, and to what.
    key
        The key of a thing that is added.

    Returns
    -------
    Member or None
        None where the scene allows no such change: no room, or no thing to spare.
    """
    return MAKERS[kind](base, kind, rng, key)


def _change_attribute(base: Member, kind: str, rng, key: int) -> Member | None:
    chosen = _choose_thing(base, rng)
    if chosen is None or (kind == "texture" and base.things[chosen].size == "small"):
        return None  # too small to tell dots from checks
    thing = base.things[chosen]
    others = [replace(thing, **{kind: v}) for v in VALUES[kind] if v != getattr(thing, kind)]
    after = _choose(rng, [t for t in others if not is_held_out(t.combination)])
    return replace(base, things={**base.things, chosen: after})


def _change_ground(base: Member, kind: str, rng, key: int) -> Member:
    return replace(base, ground=_choose(rng, [g for g in GROUNDS if g != base.ground]))


def _add(base: Member, kind: str, rng, key: int) -> Member | None:
    """Add a thing, one time in four a double of one that is there."""
    if len(base.things) == MAX_THINGS:
        return None
    double = rng.random() < 1 / 4
    known = [t.combination for t in base.things.values()]
    shape, color, texture = _choose(rng, known if double else SEEN)
    size = _choose(rng, list(SIZES))
    radius, angle = float(rng.uniform(*SIZES[size])), float(rng.uniform(-0.35, 0.35))
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


def _choose(rng, options):
    return options[int(rng.integers(len(options)))]


def _choose_thing(base: Member, rng) -> int | None:
    """Choose a thing that stands clear, so that its change is seen; None if all touch another."""
    clear = [k for k, thing in base.things.items() if _is_clear(thing, _without(base, k))]
    return _choose(rng, clear) if clear else None


def _without(base: Member, key: int) -> dict[int, Thing]:
    return {k: thing for k, thing in base.things.items() if k != key}


def _put_anywhere(thing: Thing, rng) -> Thing:
    x, y = rng.uniform(thing.radius * 1.02, SIDE - thing.radius * 1.02, 2)
    return replace(thing, x=float(x), y=float(y))


def _is_clear(thing: Thing, others: Mapping[int, Thing]) -> bool:
    return all(
        np.hypot(thing.x - t.x, thing.y - t.y) > thing.radius + t.radius for t in others.values()
    )
