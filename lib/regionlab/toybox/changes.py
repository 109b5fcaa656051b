"""Groups of Toybox scenes that differ by one change each, and how a person asks for the change.

A group is six scenes under the same light: a base, and five others that each change one thing
of it. A triplet is a reference, a target of the same group and the words between them, as in
FashionIQ (two captions a triplet) and CIRR (sets of six pictures that look alike).
"""

from dataclasses import dataclass
from itertools import islice, permutations

import numpy as np

from regionlab.toybox.change_words import say_change
from regionlab.toybox.variants import KINDS, Change, Member, can_be_said, differences, make_variant
from regionlab.toybox.world import MAX_THINGS, Thing, sample_scene

COMBINED = "combined"  # the kind of a triplet of two clauses
SPLITS = ("train", "val", "test")
MEMBERS = 6  # of a group: a base and its variants
TRIPLETS = 6  # of a group: four from the base on, two back or across
KEY = 5  # tells our generators from those of `world.scene_rng`, which number splits from 0 to 4


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


def check_split(split: str) -> None:
    """Raise `ValueError` unless the split is one of "train", "val" and "test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r} of changes; known: {', '.join(SPLITS)}")


def change_rng(seed: int, split: str, number: int, member: int = 0) -> np.random.Generator:
    """Return the generator of a group (member 0), or of the ground's grain of a member from 1."""
    check_split(split)
    return np.random.default_rng([seed, KEY, SPLITS.index(split), number, member])


def change_group(seed: int, split: str, number: int) -> ChangeGroup:
    """Draw one group, independent of all others; no thing in it is held out from training.

    Parameters
    ----------
    seed
        Which world.
    split
        "train", "val" or "test".
    number
        Which group of the split, from 0.

    Raises
    ------
    ValueError
        If the split is unknown.
    """
    rng = change_rng(seed, split, number)
    while True:  # some scenes have too little to change, or things that cannot be told apart
        scene = sample_scene(rng)
        base = Member(scene.ground, scene.light, dict(enumerate(scene.things)))
        members = (base, *_sample_variants(base, rng))
        if len(members) == MEMBERS:
            return ChangeGroup(members, _sample_triplets(members, rng))


def _sample_variants(base: Member, rng) -> list[Member]:
    """Change the base in up to five ways, no two the same in words, two of a kind at most."""
    variants: dict[tuple, Member] = {}
    for turn, kind in enumerate(rng.permutation(KINDS * 2)):
        variant = make_variant(base, str(kind), rng, key=MAX_THINGS + turn)
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
    back = ((n, 0) for n in variants[::-1] if _is_clear(members, n, 0))
    across = ((a, b) for a, b in permutations(variants, 2) if _is_clear(members, a, b))
    pairs = [*islice(back, 1), *islice(across, 1)]
    pairs += [(0, n) for n in variants[: TRIPLETS - len(pairs)]]
    return tuple(Triplet(a, b, *say_change(members[a], members[b], rng)) for a, b in sorted(pairs))


def _is_clear(members: tuple[Member, ...], reference: int, target: int) -> bool:
    """Tell whether words can say the way, and lead to no other member of the group."""
    ways = [differences(members[reference], member) for member in members]
    told = [tuple(map(_key_in_words, way)) for way in ways]
    return can_be_said(ways[target], members[reference]) and told.count(told[target]) == 1
