"""Films of every kind become frames by their own time stamps; broken ones are told apart."""

import os
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from regionlab.data.registry import load_collection
from regionlab.data.video import FilmError, find_films, load_video, read_frames, turn_upright

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


# --- orientation ------------------------------------------------------------------------

UNIT = (1, 0, 0, 1)


def set_matrix(film, a, b, c, d):
    """Write a display matrix into the header of an MP4's first track."""
    data = film.read_bytes()
    start = data.index(matrix_bytes(*UNIT), data.index(b"tkhd"))
    film.write_bytes(data[:start] + matrix_bytes(a, b, c, d) + data[start + 36 :])
    return film


def matrix_bytes(a, b, c, d):
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        (UNIT, lambda lying: lying),
        ((0, 1, -1, 0), lambda lying: np.rot90(lying, -1)),  # a telephone held upright
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda lying: np.rot90(lying, 2)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda lying: lying.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda lying: np.rot90(lying, 2).transpose(1, 0, 2)),
    ],
)
def test_film_is_turned_by_its_display_matrix(tmp_path, matrix, upright):
    film = write_film(tmp_path / "a.mp4", [0, 1])
    (_, lying), *_ = read_frames(film, 1)
    for _, picture in read_frames(set_matrix(film, *matrix), 1):
        assert picture.shape == upright(lying).shape
        assert np.abs(picture.astype(int) - upright(lying)).mean() < 8  # a later one is lighter
    np.testing.assert_array_equal(next(read_frames(film, 1))[1], upright(lying))


def test_display_matrix_moves_each_pixel_where_mp4_says():
    picture = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    for a, b, c, d in [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, 1, 0), (-1, 0, 0, 1)]:
        turned = turn_upright(picture, (a, b, 0, c, d, 0, 0, 0, 1))
        height, width = turned.shape[:2]
        for y, x in np.ndindex(2, 3):
            to_x, to_y = a * x + c * y, b * x + d * y  # negative ones count from the far side
            to_x, to_y = to_x - (a + c < 0), to_y - (b + d < 0)
            assert (turned[to_y % height, to_x % width] == picture[y, x]).all()


def test_turned_film_gives_frames_of_the_turned_size(tmp_path, frames):
    film = set_matrix(write_film(tmp_path / "a.mp4", [0]), 0, 1, -1, 0)
    collection = load_video(film, frames=frames)
    assert collection.images[["width", "height"]].iloc[0].tolist() == [48, 64]
    assert collection.read(collection.images["image_id"].iloc[0]).shape == (64, 48, 3)


def test_slanted_display_matrix_is_taken_for_the_nearest_quarter(tmp_path):
    picture = np.arange(18).reshape(2, 3, 3)
    np.testing.assert_array_equal(turn_upright(picture, (9, 2, 0, -2, 9, 0, 0, 0, 1)), picture)
    assert turn_upright(picture, (2, 9, 0, -9, 2, 0, 0, 0, 1)).shape == (3, 2, 3)


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
    assert collection.title == "films"


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
        ("episode,start,end,label\nb,5,5,y\n", "line 2: start and end"),
        ("episode,start,end,label\nb,zero,1,x\n", "line 2: start and end"),
        ("episode,start,end,label\nc,0,1,x\n", "labels 'c', but the films are b, season 2/a"),
        ("episode,start,end,path\nb,0,1,x\n", "cannot be called path"),
        ("episode,start,end\nb,0,1,x\nb,0,1,x,y\n", "is no CSV file"),
    ],
)
def test_labels_that_cannot_be_read_are_explained(films, frames, text, message):
    (films / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_video(films, frames=frames)


def test_labels_that_fit_nothing_are_left_out_and_listed(films, frames):
    lines = ["b,0,1,x", "b,5,5,y", "c,0,1,z", "b,late,9,w"]
    (films / "labels.csv").write_text("\ufeff" + "\n".join(["episode,start,end,label", *lines]))
    collection = load_video(films, seconds=3, frames=frames)
    assert collection.images["label"].tolist() == ["x", "", "", "", "", ""]
    reasons = dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True))
    assert reasons == {
        ".hidden.mkv": "hidden file",
        "labels.csv, line 3": "start and end must be seconds, in order",
        "labels.csv, line 4": "it labels 'c', but the films are b, season 2/a",
        "labels.csv, line 5": "start and end must be seconds, in order",
    }


def test_missing_labels_are_named(films, frames):
    with pytest.raises(FileNotFoundError, match=r"no such file of labels: .*mine\.csv"):
        load_video(films, labels="mine.csv", frames=frames)


# --- folders as they are ------------------------------------------------------------------


def test_films_of_cameras_are_found(tmp_path, frames):
    for name in ("a.3gp", "b.MTS", "c.m2ts"):
        write_film(tmp_path / "films" / name, [0, 1])
    collection = load_video(tmp_path / "films", frames=frames)
    assert collection.images["episode"].unique().tolist() == ["a", "b", "c"]
    assert collection.skipped.empty


def test_films_left_out_are_listed(tmp_path, frames):
    write_film(tmp_path / "films/a.mkv", [0])
    for name in ("b.braw", "@eaDir/a.mkv/SYNOVIDEO.mp4", ".c.mp4", "notes.txt"):
        (tmp_path / "films" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "films" / name).touch()
    (tmp_path / "films/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    collection = load_video(tmp_path / "films", frames=frames)
    assert collection.images["episode"].tolist() == ["a"]
    reasons = dict(zip(collection.skipped["path"], collection.skipped["reason"], strict=True))
    assert reasons == {
        "b.braw": "this kind of film is not read: save it as .mp4 or .mkv",
        "@eaDir": "system folder: 1 file in it",
        ".c.mp4": "hidden file",
        "gone.mp4": "it cannot be read: No such file or directory",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_film_whose_name_is_no_utf8_is_listed(tmp_path, frames):
    write_film(tmp_path / "films/a.mkv", [0])
    (tmp_path / "films" / os.fsdecode(b"caf\xe9.mkv")).touch()
    collection = load_video(tmp_path / "films", frames=frames)
    assert collection.skipped["path"].tolist() == ["caf\\udce9.mkv"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_one_film_whose_name_is_no_utf8_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("regionlab.data.video.DATA", tmp_path / "data")
    film = tmp_path / os.fsdecode(b"caf\xe9.mkv")
    write_film(tmp_path / "a.mkv", [0]).rename(film)
    collection = load_video(film)
    assert collection.images["episode"].tolist() == ["caf\\udce9"]
    assert collection.missing_files().empty


# --- frames on disk ---------------------------------------------------------------------


def written(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}


@pytest.mark.parametrize("name", ["x" * 251, "長い" * 41, "d" * 255 + "/" + "e" * 250])
def test_longest_legal_name_of_a_film_is_taken(tmp_path, frames, name):
    film = write_film(tmp_path / "films" / f"{name}.mkv", [0, 5])
    first, again = (load_video(film.parent, seconds=5, frames=frames) for _ in range(2))
    assert first.images["episode"].tolist() == [film.stem] * 2
    assert first.missing_files().empty
    assert again.images.equals(first.images)


def test_long_names_that_begin_alike_have_frames_of_their_own(tmp_path, frames):
    for end in "ab":
        write_film(tmp_path / "films" / f"{'x' * 240}{end}.mkv", [0])
    assert load_video(tmp_path / "films", frames=frames).images["path"].is_unique


def test_longest_name_of_a_folder_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("regionlab.data.video.DATA", tmp_path / "data")
    write_film(tmp_path / ("長" * 85) / "a.mkv", [0])
    assert load_video(tmp_path / ("長" * 85)).missing_files().empty


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
        patch.setattr("regionlab.data.video.write_image", stop)
        load_video(films, seconds=3, frames=frames)
    assert len(load_video(films, seconds=3, frames=frames)) == 6


def test_by_default_each_root_and_step_has_a_folder_of_its_own(films, tmp_path, monkeypatch):
    monkeypatch.setattr("regionlab.data.video.DATA", tmp_path / "data")
    roots = [load_video(films, seconds=s).root for s in (3, 4)]
    roots.append(load_video(films / "b.mkv", seconds=3).root)
    assert len(set(roots)) == 3
    assert {root.parent for root in roots} == {tmp_path / "data/frames"}
