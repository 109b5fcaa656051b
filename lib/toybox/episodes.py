"""Short films of Toybox: four characters, two at a time, doing one thing after another.

Each film lists what happens when, so that a search over its frames can be judged.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regionlab.util.errors import InputError
from regionlab.util.files import write_json
from regionlab.util.paths import DATA, expand
from toybox.disk import in_parallel, is_written, make_empty
from toybox.render import render_scene
from toybox.world import GROUNDS, SIDE, Scene, Thing

EPISODES = DATA / "toybox" / "episodes"
VERSION = 1  # raised whenever the same seed would give another film
RATE = 4  # frames a second
SPAN = (6.0, 14.0)  # seconds that one action lasts
FLOOR = 0.78 * SIDE  # where things stand, y of their centres

# shape, color, texture, radius: none of them is held out from training
CHARACTERS = {
    "star": ("star", "yellow", "plain", 38.0),
    "heart": ("heart", "red", "dotted", 34.0),
    "ring": ("ring", "blue", "plain", 36.0),
    "flower": ("flower", "purple", "striped", 32.0),
}


@dataclass(frozen=True)
class Shot:
    """One action: from `start` to `end` seconds two characters do it on a ground.

    `way` is (4,) random numbers in [0, 1) by which one chase differs from another.
    """

    start: float
    end: float
    action: str
    cast: tuple[str, str]
    ground: str
    light: float
    way: tuple[float, ...]

    @property
    def characters(self) -> str:
        """The two by name, in a fixed order."""
        return " and ".join(sorted(self.cast))


Pose = tuple[float, float, float]  # x, y in pixels, angle in radians


def _chase(time: float, shot: Shot) -> tuple[Pose, Pose]:
    """Run round and round, the second after the first, both leaning forward."""
    turn = -1 if shot.way[0] < 0.5 else 1
    ahead = 2 * np.pi * (shot.way[1] + turn * time / 4.3)
    return _on_track(ahead, turn), _on_track(ahead - turn * 1.1, turn)


def _on_track(angle: float, turn: int) -> Pose:
    x, y = SIDE / 2 + 80 * np.cos(angle), SIDE / 2 + 62 * np.sin(angle)
    return x, y, 0.5 * np.sign(-turn * np.sin(angle))


def _bounce(time: float, shot: Shot) -> tuple[Pose, Pose]:
    """Jump up and down on one side, while the second looks on."""
    side = -1 if shot.way[0] < 0.5 else 1
    height = 130 * abs(np.sin(np.pi * (time / 1.9 + shot.way[1])))
    return (_beside(side, 55), FLOOR - height, 0.0), (_beside(-side, 60), FLOOR, 0.0)


def _rest(time: float, shot: Shot) -> tuple[Pose, Pose]:
    """Both lie on their sides, apart, and breathe a little."""
    breath = 0.06 * np.sin(2 * np.pi * time / 4)
    side = -1 if shot.way[0] < 0.5 else 1
    far = 55 + 20 * shot.way[1]
    return (
        (_beside(side, far), FLOOR, np.pi / 2 + breath),
        (_beside(-side, far), FLOOR, -np.pi / 2 - breath),
    )


def _meet(time: float, shot: Shot) -> tuple[Pose, Pose]:
    """Come from both sides in two seconds, and stay close together in the middle."""
    gap = 34 + 40 * max(1 - time / 2, 0)
    middle = SIDE / 2 + 30 * (shot.way[1] - 0.5)
    level = FLOOR - 60 * shot.way[2]
    return (middle - gap, level, 0.15), (middle + gap, level, -0.15)


def _beside(side: int, far: float) -> float:
    return SIDE / 2 + side * far


ACTIONS: dict[str, Callable[[float, Shot], tuple[Pose, Pose]]] = {
    "chase": _chase,
    "bounce": _bounce,
    "rest": _rest,
    "meet": _meet,
}


def sample_episode(seed: int, number: int, seconds: float) -> list[Shot]:
    """Draw what happens in a film: shots one after another, no action twice in a row.

    Each film has two grounds of its own, between which its shots change.
    """
    rng = np.random.default_rng([seed, VERSION, number])
    grounds = rng.permutation(GROUNDS)[:2]
    shots: list[Shot] = []
    start = 0.0
    while start < seconds:
        last = shots[-1].action if shots else None
        end = round(start + rng.uniform(*SPAN), 1)
        action = str(rng.choice([name for name in ACTIONS if name != last]))
        cast = tuple(str(name) for name in rng.permutation(list(CHARACTERS))[:2])
        ground, light = str(rng.choice(grounds)), float(rng.uniform(0, 2 * np.pi))
        way = tuple(rng.random(4).tolist())
        shots.append(Shot(start, min(end, seconds), action, cast, ground, light, way))
        start = end
    return shots


def place_things(shot: Shot, second: float) -> Scene:
    """Return the scene at a time of the film, in seconds from its start."""
    places = ACTIONS[shot.action](second - shot.start, shot)
    things = []
    for name, (x, y, angle) in zip(shot.cast, places, strict=True):
        shape, color, texture, radius = CHARACTERS[name]
        place = (float(x), float(y), radius, float(angle))
        things.append(Thing(shape, color, texture, "medium", *place))
    return Scene(shot.ground, shot.light, tuple(things))


def render_episode(shots: list[Shot]) -> Iterator[np.ndarray]:
    """Yield the frames of a film, (256, 256, 3) uint8 RGB, `RATE` a second."""
    for number in range(round(RATE * shots[-1].end)):
        second = number / RATE
        row, shot = next((i, s) for i, s in enumerate(shots) if second < s.end)
        still = np.random.default_rng(row)  # the ground keeps still within a shot
        yield render_scene(place_things(shot, second), still)[0]


def write_episodes(
    root: Path | str = EPISODES, *, count: int = 6, seconds: float = 120.0, seed: int = 0
) -> Path:
    """Write films of `seconds` and what happens in them, unless they lie there already.

    `root`, which is returned for `load_video`, gets `episode_1.mp4` and so on, and `labels.csv`
    with a row a shot: `episode`, `start`, `end` (seconds), `label` (the action), `characters` and
    `ground`. Raises InputError if `count` or `seconds` is not positive, or other data lies in it.
    """
    if count < 1 or not seconds >= 1 / RATE:
        raise InputError(f"films need count and seconds above 0, got {count} and {seconds}")
    root = expand(root)
    ours = {"description": "Toybox episodes", "version": VERSION}
    info = ours | {"seed": seed, "count": count, "seconds": seconds}
    marker = root / "episodes.json"
    if is_written(marker, info):
        return root
    if root.exists() and not marker.exists() and any(root.iterdir()):
        raise InputError(f"{root} holds other files: choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"info": ours})  # from here on it is ours, but not complete
    make_empty(root, "episode_*.mp4")
    films = {f"episode_{i + 1}": sample_episode(seed, i, seconds) for i in range(count)}
    jobs = [(root / f"{name}.mp4", shots) for name, shots in films.items()]
    list(in_parallel(_write_film, jobs, "toybox films"))
    _write_labels(root / "labels.csv", films)
    write_json(marker, {"info": info})
    return root


def _write_film(job: tuple[Path, list[Shot]]) -> None:
    import av  # late: FFmpeg is for those who have films

    path, shots = job
    with av.open(str(path), "w") as container:
        # An encoder that every build of FFmpeg has.
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.bit_rate = 600_000
        for image in render_episode(shots):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _write_labels(path: Path, films: dict[str, list[Shot]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["episode", "start", "end", "label", "characters", "ground"])
        for episode, shots in films.items():
            for s in shots:
                writer.writerow([episode, s.start, s.end, s.action, s.characters, s.ground])
