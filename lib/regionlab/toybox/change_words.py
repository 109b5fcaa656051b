"""Say what changes from one Toybox scene to another, as a person would ask for it.

Each kind of change has orders ("make the red star blue"), facts ("the red star is blue now")
and notes as in FashionIQ ("is on sand instead of grass"). The words are those of `captions`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from regionlab.toybox.captions import (
    RELATIONS,
    SYNONYMS,
    WITH_TEXTURE,
    phrase_thing,
    place_in_frame,
)
from regionlab.toybox.variants import Change, Member, differences, name_way
from regionlab.toybox.world import Thing

NAMES = (("shape",), ("color", "shape"), ("texture", "shape"), ("color", "texture", "shape"))
BESIDE = {word: holds for word, holds in RELATIONS.items() if "than" not in word}

Wordings = tuple[list[str], list[str], list[str]]  # orders, facts, notes


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
    captions = [" and ".join(_choose(rng, words) for words in style) for style in (orders, facts)]
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
        return f"the {self._name(thing, _choose(self.rng, names))}"

    def _is_unique(self, thing: Thing, said: tuple[str, ...]) -> bool:
        alike = [
            t
            for t in self.reference.things.values()
            if all(getattr(t, s) == getattr(thing, s) for s in said)
        ]
        return len(alike) == 1

    def _name(self, thing: Thing, said: tuple[str, ...]) -> str:
        words = [thing.color] if "color" in said else []
        if "texture" in said:  # "plain red star", but "red striped star"
            words.insert(len(words) * (thing.texture != "plain"), self.vary(thing.texture))
        return " ".join([*words, self.vary(thing.shape)])

    def vary(self, word: str) -> str:
        """Return the word or, one time in four, a synonym, as captions of scenes do."""
        options = SYNONYMS.get(word, ())
        return _choose(self.rng, options) if options and self.rng.random() < 0.25 else word

    def a(self, thing: Thing, *, size: bool = False) -> str:
        """Name a thing that is new: "a red star", or "another red star" beside a double."""
        if all(t.combination != thing.combination for t in self.reference.things.values()):
            return phrase_thing(thing, self.rng, size=size)
        more = _choose(self.rng, ("another", "one more"))
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


def _choose(rng, options):
    return options[int(rng.integers(len(options)))]


def _some(rng, options: list[str]) -> list[str]:
    """Return one of the options, or none where there are none."""
    return [_choose(rng, options)] if options else []


def _an(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


# One writer a kind


def _say_color(change: Change, speaker: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.color, change.before.color
    return (
        [
            f"make {speaker.the(thing)} {new}",
            f"turn {speaker.the(thing)} {new}",
            f"paint {speaker.the(thing)} {new}",
            f"change the color of {speaker.the(thing, without='color')} to {new}",
        ],
        [
            f"{speaker.the(thing)} is {new} now",
            f"{speaker.the(thing, without='color')} is {new} instead of {old}",
        ],
        [_say_replaced(change, speaker)],
    )


def _say_texture(change: Change, speaker: Speaker) -> Wordings:
    thing, new, old = change.before, change.after.texture, change.before.texture
    marks = WITH_TEXTURE.get(new, WITH_TEXTURE.get(old)).removeprefix("with ")
    the = speaker.the(thing, without="texture")
    give = f"take {marks} off {the}" if new == "plain" else f"give {the} {marks}"
    has = f"{the} has {'no ' if new == 'plain' else ''}{marks.removeprefix('a ')}"
    return (
        [f"make {speaker.the(thing)} {speaker.vary(new)}", give],
        [f"{the} is {speaker.vary(new)} instead of {speaker.vary(old)}", has],
        [_say_replaced(change, speaker)],
    )


def _say_shape(change: Change, speaker: Speaker) -> Wordings:
    thing, shape = change.before, _an(speaker.vary(change.after.shape))
    return (
        [
            f"turn {speaker.the(thing)} into {shape}",
            f"replace {speaker.the(thing)} with {speaker.a(change.after)}",
            f"swap {speaker.the(thing)} for {speaker.a(change.after)}",
        ],
        [
            f"{speaker.the(thing)} is {shape} now",
            f"there is {speaker.a(change.after)} where {speaker.the(thing)} was",
        ],
        [_say_replaced(change, speaker)],
    )


def _say_replaced(change: Change, speaker: Speaker) -> str:
    return f"has {speaker.a(change.after)} instead of {speaker.the(change.before)}"


def _say_ground(change: Change, speaker: Speaker) -> Wordings:
    new, old = speaker.vary(change.after), speaker.vary(change.before)
    return (
        [f"put it all on {new}", f"change the ground to {new}", f"swap the {old} for {new}"],
        [f"everything is on {new}", f"the ground is {new} instead of {old}"],
        [f"is on {new} instead of {old}", f"the same but on {new}", f"on {new}, not on {old}"],
    )


def _say_add(change: Change, speaker: Speaker) -> Wordings:
    thing, rng = change.after, speaker.rng
    sized = thing.size != "medium" and rng.random() < 0.25
    new = speaker.a(thing, size=sized)
    where = _choose(rng, [place_in_frame(thing), *_some(rng, speaker.beside(thing))])
    return (
        [f"add {new}", f"put {new} {where}"],
        [f"there is also {new}", f"there is {new} {where}"],
        [f"has {new} too", f"with {new} added"],
    )


def _say_remove(change: Change, speaker: Speaker) -> Wordings:
    the = speaker.the(change.before)
    return (
        [f"remove {the}", f"take away {the}"],
        [f"{the} is gone", f"{the} is not there any more"],
        [f"without {the}", f"no longer has {the}"],
    )


def _say_move(change: Change, speaker: Speaker) -> Wordings:
    before, after = change.before, change.after
    way, place = name_way(before, after), place_in_frame(after)
    beside = _some(speaker.rng, speaker.beside(after, before))
    return (
        [
            f"move {speaker.the(before)} {way}",
            *[f"put {speaker.the(before)} {where}" for where in (place, *beside)],
        ],
        [
            f"{speaker.the(before)} is further {way}",
            f"{speaker.the(before)} is {place} instead of {place_in_frame(before)}",
            *[f"{speaker.the(before)} is {where} now" for where in beside],
        ],
        [],
    )


WRITERS: dict[str, Callable[[Change, Speaker], Wordings]] = {
    "color": _say_color, "texture": _say_texture, "shape": _say_shape, "ground": _say_ground,
    "add": _say_add, "remove": _say_remove, "move": _say_move,
}  # fmt: skip
