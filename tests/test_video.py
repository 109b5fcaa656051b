"""Films of every kind become frames by their own time stamps; broken ones are told apart."""

from fractions import Fraction

import av
import numpy as np
import pytest

from regionlab.datasets import load_collection
from regionlab.datasets.films import FilmError, find_films, read_frames
from regionlab.datasets.video import load_video

NOISE = np.random.default_rng(0).integers(0, 60, (48, 64, 3), dtype=np.uint8)


def write_film(path, times, *, codec="mpeg4", audio=False, **options):
    """A film with a frame at each time in seconds, each of another brightness: 40, 46, 52..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=1000)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.gop_size, stream.bit_rate = 1, 4_000_000
        container.start_encoding()
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(NOISE // 4 + brightness(number), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def brightness(number):
    return np.uint8(30 + 6 * (number % 35))


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every(step, until):
    return np.arange(0, until, step)


def taken(collection, frames=35):
    """Which of the written frames each row shows, by its brightness."""
    levels = [collection.read(i).mean() - NOISE.mean() / 4 for i in collection.images["image_id"]]
    return [int(np.argmin([abs(x - brightness(n)) for n in range(frames)])) for x in levels]


@pytest.fixture
def frames(tmp_path):
    return tmp_path / "frames"


# --- time -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
def test_constant_rate_gives_a_frame_at_each_multiple(tmp_path, frames, suffix):
    film = write_film(tmp_path / f"a.{suffix}", every(0.5, 13))
    collection = load_video(film, seconds=5, frames=frames)
    assert collection.images["second"].tolist() == pytest.approx([0, 5, 10])
    assert taken(collection) == [0, 10, 20]
    assert collection.skipped.empty


def test_rate_that_fits_no_multiple_gives_the_first_frame_after_it(tmp_path, frames):
    film = write_film(tmp_path / "a.mkv", every(0.7, 7))
    collection = load_video(film, seconds=2, frames=frames)
    assert collection.images["second"].tolist() == [0, 2.1, 4.2, 6.3]
    assert taken(collection) == [0, 3, 6, 9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_goes_by_time_and_not_by_count(tmp_path, frames, suffix):
    times = [0, 0.1, 0.2, 0.3, 4.9, 5.2, 5.3, 9.999, 10, 10.1, 31, 31.5, 36]
    film = write_film(tmp_path / f"a.{suffix}", times)
    collection = load_video(film, seconds=5, frames=frames)
    assert collection.images["second"].tolist() == [0, 5.2, 10, 31, 36]
    assert taken(collection) == [0, 5, 8, 10, 12]


def test_multiples_are_counted_from_zero_and_not_from_the_last_frame(tmp_path):
    film = write_film(tmp_path / "a.mkv", [0, 6, 9, 10, 14.9, 15])
    assert [second for second, _ in read_frames(film, 5)] == [0, 6, 10, 15]


def test_time_begins_with_the_first_frame(tmp_path):
    film = write_film(tmp_path / "a.mkv", [100, 102, 104, 105, 107])
    assert [second for second, _ in read_frames(film, 5)] == [0, 5]


def test_fractions_of_a_second_are_exact(tmp_path):
    film = write_film(tmp_path / "a.mkv", every(0.1, 3))
    assert [float(second) for second, _ in read_frames(film, 0.3)] == pytest.approx(every(0.3, 3))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_impossible_step_is_refused(tmp_path, seconds):
    with pytest.raises(ValueError, match="above 0 and finite"):
        load_video(write_film(tmp_path / "a.mkv", [0]), seconds=seconds)


# --- broken films -----------------------------------------------------------------------


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


@pytest.mark.parametrize(("suffix", "options"), [("mkv", {}), ("mp4", {"movflags": "faststart"})])
def test_film_cut_short_ends_with_what_was_read(tmp_path, frames, suffix, options):
    film = cut(write_film(tmp_path / f"a.{suffix}", every(0.5, 16), **options), 0.6)
    collection = load_video(film, seconds=2, frames=frames)
    assert collection.images["second"].tolist() == pytest.approx([0, 2, 4, 6, 8])
    assert taken(collection) == [0, 4, 8, 12, 16]
    assert collection.skipped["path"].tolist() == [f"a.{suffix}"]
    assert collection.skipped["reason"].str.contains(r"cut short|damaged").all()


@pytest.mark.parametrize("share", [0.3, 0.38, 0.6, 0.9])
def test_torn_frame_at_the_end_is_left_out(tmp_path, share):
    film = cut(write_film(tmp_path / "a.mp4", every(0.5, 17), movflags="faststart"), share)
    pictures = []
    with pytest.raises(FilmError, match="cut short"):
        for _, picture in read_frames(film, 0.5):
            pictures.append(picture)
    assert len(pictures) > 5
    for number, picture in enumerate(pictures):
        drawn = NOISE // 4 + brightness(number)
        assert np.abs(picture.astype(int) - drawn).mean() < 4


def test_film_that_cannot_be_opened_is_skipped_beside_others(tmp_path, frames):
    write_film(tmp_path / "films/a.mkv", [0, 1])
    cut(write_film(tmp_path / "films/b.mp4", every(0.5, 9)), 0.6)  # its table was at the end
    (tmp_path / "films/c.mp4").write_text("no film")
    (tmp_path / "films/d.mp4").touch()
    write_sound(tmp_path / "films/e.mkv")
    collection = load_video(tmp_path / "films", frames=frames)
    assert collection.images["episode"].tolist() == ["a"]
    reasons = dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True))
    assert sorted(reasons) == ["b.mp4", "c.mp4", "d.mp4", "e.mkv"]
    assert "damaged or no film: Invalid data" in reasons["c.mp4"]
    assert "holds no video" in reasons["e.mkv"]


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("avi", "holds no frames"), ("mp4", "holds no video"), ("mkv", "damaged")],
)
def test_video_without_frames_is_explained(tmp_path, frames, suffix, reason):
    with pytest.raises(ValueError, match=rf"no frames in .*a\.{suffix}: it .*{reason}"):
        load_video(write_film(tmp_path / f"a.{suffix}", []), frames=frames)


def test_sound_alone_is_no_film(tmp_path):
    with pytest.raises(FilmError, match="holds no video"):
        list(read_frames(write_sound(tmp_path / "a.mkv"), 1))


def test_missing_film_and_folder_without_films_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such film.*nowhere\.mp4"):
        load_video(tmp_path / "nowhere.mp4")
    (tmp_path / "film.txt").touch()
    with pytest.raises(ValueError, match=r"looked for .*\.mp4.* holds film\.txt"):
        load_video(tmp_path)


# --- episodes and labels ----------------------------------------------------------------


@pytest.fixture
def films(tmp_path):
    for name in ("b.mkv", "season 2/a.MP4", ".hidden.mkv"):
        write_film(tmp_path / "films" / name, every(1, 7))
    return tmp_path / "films"


def test_films_of_a_folder_are_episodes(films, frames):
    collection = load_collection("video", films, seconds=3, frames=frames)
    assert collection.images["episode"].tolist() == ["b"] * 3 + ["season 2/a"] * 3
    assert collection.images["path"].iloc[4] == "season 2/a/000003000.jpg"
    assert collection.images[["width", "height"]].iloc[0].tolist() == [64, 48]
    assert collection.missing_files().empty
    assert collection.name == "films"


def test_two_films_of_one_episode_are_refused(films):
    write_film(films / "b.mp4", [0])
    with pytest.raises(ValueError, match="one episode, b"):
        find_films(films)


def test_labels_hold_from_start_to_before_the_end(films, frames):
    (films / "labels.csv").write_text(
        "episode,start,end,label,who\nb,0,3,chase,cat\nb,3,5.5,rest,\nseason 2/a,6,9,NA,dog\n"
    )
    images = load_video(films, seconds=3, frames=frames).images
    assert images["label"].tolist() == ["chase", "rest", "", "", "", "NA"]
    assert images["who"].tolist() == ["cat", "", "", "", "", "dog"]


def test_labels_of_one_film_can_be_named(films, frames):
    (films / "mine.csv").write_text("episode,start,end,label\nb,0,1,first\n")
    images = load_video(films / "b.mkv", labels="mine.csv", frames=frames).images
    assert images["label"].tolist() == ["first", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("episode,start,label\nb,0,x\n", "no column 'end', only"),
        ("episode,start,end,label\nb,0,1,x\nb,5,5,y\n", "line 3: start and end"),
        ("episode,start,end,label\nb,zero,1,x\n", "line 2: start and end"),
        ("episode,start,end,label\nc,0,1,x\n", "labels 'c', but the films are b, season 2/a"),
        ("episode,start,end,path\nb,0,1,x\n", "cannot be called path"),
    ],
)
def test_labels_that_cannot_be_read_are_explained(films, frames, text, message):
    (films / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_video(films, frames=frames)


def test_missing_labels_are_named(films, frames):
    with pytest.raises(FileNotFoundError, match=r"no such file of labels: .*mine\.csv"):
        load_video(films, labels="mine.csv", frames=frames)


# --- frames on disk ---------------------------------------------------------------------


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}


def test_frames_are_written_once(films, frames):
    first = load_video(films, seconds=3, frames=frames)
    before = written(frames)
    again = load_video(films, seconds=3, frames=frames)
    assert written(frames) == before
    assert again.images.equals(first.images)


def test_another_film_of_the_name_or_another_step_gives_other_frames(films, frames):
    load_video(films, seconds=3, frames=frames)
    write_film(films / "b.mkv", every(1, 11))
    assert len(load_video(films, seconds=3, frames=frames)) == 4 + 3
    assert len(load_video(films, seconds=6, frames=frames)) == 2 + 2
    assert len(written(frames)) == 4


def test_lost_frame_is_written_again(films, frames):
    collection = load_video(films, seconds=3, frames=frames)
    (frames / collection.images["path"].iloc[1]).unlink()
    assert load_video(films, seconds=3, frames=frames).missing_files().empty


def test_reading_cut_off_half_way_is_begun_again(films, frames, monkeypatch):
    def stop(path, image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("regionlab.datasets.video.write_image", stop)
        load_video(films, seconds=3, frames=frames)
    assert len(load_video(films, seconds=3, frames=frames)) == 6


def test_by_default_each_root_and_step_has_a_folder_of_its_own(films, tmp_path, monkeypatch):
    monkeypatch.setattr("regionlab.datasets.video.DATA", tmp_path / "data")
    roots = [load_video(films, seconds=s).root for s in (3, 4)]
    roots.append(load_video(films / "b.mkv", seconds=3).root)
    assert len(set(roots)) == 3
    assert {root.parent for root in roots} == {tmp_path / "data/frames"}
