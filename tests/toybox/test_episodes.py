"""Toybox's films: what the labels say is what happens, and the same seed gives the same film."""

from dataclasses import replace

import av
import numpy as np
import pandas as pd
import pytest

from regionlab.data.video import load_video
from toybox.episodes import (
    ACTIONS,
    CHARACTERS,
    RATE,
    Shot,
    place_things,
    render_episode,
    sample_episode,
    write_episodes,
)
from toybox.world import GROUNDS, SIDE, is_held_out


def make_shot(action, way=(0.2, 0.3, 0.4, 0.5)):
    return Shot(0.0, 12.0, action, ("star", "ring"), "sand", 0.0, way)


def watch(action, **options):
    """Positions (t, 2 things, 2) of one shot, four times a second."""
    shot = make_shot(action, **options)
    scenes = [place_things(shot, t) for t in np.arange(0, 12, 0.25)]
    return np.array([[(thing.x, thing.y) for thing in scene.things] for scene in scenes])


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return write_episodes(tmp_path_factory.mktemp("toybox") / "films", count=2, seconds=15)


# --- what happens -----------------------------------------------------------------------


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("way", [(0.0, 0.0, 0.0, 0.0), (0.99, 0.99, 0.99, 0.99)])
def test_characters_stay_in_the_picture(action, way):
    largest = max(radius for *_, radius in CHARACTERS.values())
    places = watch(action, way=way)
    assert places.min() >= largest
    assert places.max() <= SIDE - largest


def test_chase_goes_round_with_the_second_behind():
    first, second = watch("chase").transpose(1, 0, 2)
    assert np.ptp(first, axis=0).min() > 100
    late = [np.abs(first - np.roll(second, -i, axis=0))[:30].max() for i in range(17)]
    assert 0 < np.argmin(late) < 8  # some frames later it is where the first was
    assert min(late) < 25


def test_bounce_is_up_and_down_of_the_first_alone():
    first, second = watch("bounce").transpose(1, 0, 2)
    assert np.ptp(first[:, 1]) > 100
    assert np.ptp(first[:, 0]) == 0
    assert np.ptp(second, axis=0).max() == 0


def test_rest_is_without_moving_and_apart():
    first, second = watch("rest").transpose(1, 0, 2)
    assert np.ptp(first, axis=0).max() == np.ptp(second, axis=0).max() == 0
    assert abs(first[0, 0] - second[0, 0]) > 100


def test_meet_brings_both_together():
    first, second = watch("meet").transpose(1, 0, 2)
    gaps = np.abs(first - second)[:, 0]
    assert gaps[0] > 140 and gaps[8:].max() < 80


# --- films ------------------------------------------------------------------------------


def test_shots_follow_one_another_to_the_end():
    for number in range(20):
        shots = sample_episode(0, number, 60)
        assert shots[0].start == 0 and shots[-1].end == 60
        assert [s.end for s in shots[:-1]] == [s.start for s in shots[1:]]
        assert all(a.action != b.action for a, b in zip(shots, shots[1:], strict=False))
        assert all(len(set(s.cast)) == 2 for s in shots)
        assert len({s.ground for s in shots}) <= 2


def test_films_differ_and_a_seed_repeats_them():
    assert sample_episode(0, 1, 60) == sample_episode(0, 1, 60)
    assert sample_episode(0, 1, 60) != sample_episode(0, 2, 60)
    assert sample_episode(0, 1, 60) != sample_episode(1, 1, 60)
    shots = [shot for number in range(40) for shot in sample_episode(0, number, 60)]
    assert {s.action for s in shots} == {*ACTIONS}
    assert {name for s in shots for name in s.cast} == {*CHARACTERS}
    assert {s.ground for s in shots} == {*GROUNDS}


def test_characters_are_of_combinations_seen_in_training():
    assert not any(is_held_out(character[:3]) for character in CHARACTERS.values())


def test_ground_keeps_still_within_a_shot():
    images = list(
        render_episode([Shot(0.0, 1.0, "rest", ("star", "ring"), "gravel", 0.0, (0.2,) * 4)])
    )
    assert len(images) == RATE
    np.testing.assert_array_equal(images[0][:40], images[-1][:40])


def test_shot_ends_before_its_end():
    shot = Shot(0.0, 0.5, "rest", ("star", "ring"), "snow", 0.0, (0.2,) * 4)
    images = list(render_episode([shot, replace(shot, start=0.5, end=1.0, ground="grass")]))
    is_snow = [image[:40].mean() > 150 for image in images]
    assert is_snow == [True, True, False, False]


def test_films_are_written_with_their_labels(films):
    labels = pd.read_csv(films / "labels.csv")
    assert labels.columns.tolist() == ["episode", "start", "end", "label", "characters", "ground"]
    assert labels["episode"].unique().tolist() == ["episode_1", "episode_2"]
    shots = sample_episode(0, 1, 15)
    assert labels.query("episode == 'episode_2'")["label"].tolist() == [s.action for s in shots]
    assert labels["characters"].iloc[0] == " and ".join(sorted(sample_episode(0, 0, 15)[0].cast))
    with av.open(str(films / "episode_1.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 15 * RATE


def test_frames_of_a_film_show_what_its_labels_say(films, tmp_path):
    collection = load_video(films, seconds=2.5, frames=tmp_path)
    assert collection.images["second"].tolist() == [0, 2.5, 5, 7.5, 10, 12.5] * 2
    drawn = list(render_episode(sample_episode(0, 0, 15)))
    for row in collection.images.iloc[:6].itertuples():
        shot = next(s for s in sample_episode(0, 0, 15) if row.second < s.end)
        assert (row.label, row.characters, row.ground) == (
            shot.action,
            shot.characters,
            shot.ground,
        )
        exact = drawn[round(row.second * RATE)].astype(float)
        assert np.abs(collection.read(row.image_id) - exact).mean() < 12


def test_films_are_written_once(films):
    before = {path: path.stat().st_mtime_ns for path in films.iterdir()}
    write_episodes(films, count=2, seconds=15)
    assert {path: path.stat().st_mtime_ns for path in films.iterdir()} == before


def test_other_films_replace_those_that_lie_there(tmp_path):
    write_episodes(tmp_path / "films", count=2, seconds=1)
    write_episodes(tmp_path / "films", count=1, seconds=1)
    assert [path.name for path in (tmp_path / "films").glob("*.mp4")] == ["episode_1.mp4"]


def test_films_of_others_are_let_be(tmp_path):
    (tmp_path / "episode_1.mp4").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: choose another folder"):
        write_episodes(tmp_path, count=1, seconds=1)
    assert (tmp_path / "episode_1.mp4").read_text() == "mine"


@pytest.mark.parametrize(("count", "seconds"), [(0, 1), (1, 0), (1, float("nan"))])
def test_no_films_are_refused(tmp_path, count, seconds):
    with pytest.raises(ValueError, match="count and seconds above 0"):
        write_episodes(tmp_path / "films", count=count, seconds=seconds)
