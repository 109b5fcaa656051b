"""What `verify_index` finds in a harmed index, and that it says what to do."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from regionlab.cli import main
from regionlab.data.collection import load_folder
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.index.staging import lock_index
from regionlab.index.tables import IndexFolderError, digest_sample, read_manifest, write_manifest
from regionlab.index.update import remove_images, update_index
from regionlab.index.verify import verify_index
from regionlab.models.registry import load_encoder
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.util.files import hash_file

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=3
)
COUNT = 6
FILES = ["images.parquet", "image_vectors.npy", "failures.csv"]
REGION_FILES = ["regions.parquet", "region_vectors.npy", "region_failures.csv"]


@pytest.fixture(scope="module")
def made(encoder, segmenter, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 30 + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{i}.png")
    index = build_index(load_folder(folder / "photos"), encoder, folder / "index")
    add_regions(index, segmenter, encoder, everything=FEW)
    return folder


@pytest.fixture
def work(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture
def index(work):
    return work / "index"


def bless(folder, *names):
    """Let the checksums of files be those that they have now, so that other checks are heard."""
    manifest = read_manifest(folder)
    for name in names:
        manifest["files"][name] = hash_file(folder / name)
    write_manifest(folder, manifest)


def change_table(folder, name, change):
    change(pd.read_parquet(folder / name)).to_parquet(folder / name)
    bless(folder, name)


def change_vectors(folder, name, change):
    np.save(folder / name, change(np.load(folder / name)))
    bless(folder, name)


def words(found):
    return [f"{finding.where}: {finding.what}" for finding in found if finding.harm]


def assert_found(folder, pattern, **options):
    found = words(verify_index(folder, **options))
    assert any(re.search(pattern, text) for text in found), found


def test_nothing_is_found_in_a_whole_index(index, encoder):
    before = {path.name: path.read_bytes() for path in index.iterdir()}
    assert verify_index(index) == []
    assert verify_index(str(index), encoder=encoder, quick=True) == []
    assert {path.name: path.read_bytes() for path in index.iterdir()} == before


# Files


@pytest.mark.parametrize("name", FILES + REGION_FILES)
def test_one_changed_bit_is_found_in_any_file(index, name):
    content = bytearray((index / name).read_bytes())
    content[len(content) // 2] ^= 1
    (index / name).write_bytes(content)
    found = verify_index(index, quick=True)
    assert f"{name}: not what was written: its checksum is another" in words(found)
    expected = "add_regions" if name in REGION_FILES else "Build the index again with fresh=True"
    assert expected in found[0].advice


def test_one_changed_word_is_found_in_the_manifest(index):
    text = (index / "manifest.json").read_text()
    (index / "manifest.json").write_text(
        text.replace('"encoding": "crop_erase"', '"encoding": "crop"')
    )
    open_index(index)  # does not see it
    assert_found(index, "manifest.json: not what was written")


@pytest.mark.parametrize("name", FILES + REGION_FILES)
def test_a_missing_file_is_named(index, name):
    (index / name).unlink()
    assert words(verify_index(index, quick=True)) == [f"{name}: missing"]


@pytest.mark.parametrize("name", ["images.parquet", "image_vectors.npy", "regions.parquet"])
def test_a_file_that_cannot_be_read_is_named(index, name):
    (index / name).write_bytes(b"garbage")
    assert_found(index, f"{name}: cannot be read: ")


def test_several_files_are_found_at_once(index):
    (index / "failures.csv").unlink()
    (index / "region_vectors.npy").write_bytes(b"garbage")
    assert len({finding.where for finding in verify_index(index)}) == 2


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"schema": 99}'])
def test_a_manifest_that_cannot_be_read_is_the_finding(index, text):
    (index / "manifest.json").write_text(text)
    (found,) = verify_index(index)
    assert found.where == "manifest.json" and "uild" in found.advice


def test_no_index_is_a_finding(tmp_path):
    (found,) = verify_index(tmp_path / "nowhere")
    assert "no index at" in found.what


def test_a_file_of_somebody_else_is_named(index):
    (index / "notes.txt").write_text("mine")
    assert words(verify_index(index, quick=True)) == ["notes.txt: no part of an index"]


def test_what_a_killed_build_left_is_named(index):
    (index.parent / ".index.building").mkdir()
    (found,) = verify_index(index, quick=True)
    assert str(found).startswith(".index.building: work that was cut off. Run the same call again")


def test_a_build_that_goes_on_is_no_harm(index):
    (index.parent / ".index.building").mkdir()
    with lock_index(index):
        (found,) = verify_index(index, quick=True)
    assert not found.harm
    assert re.match(r"note: index: is being written by process \d+ on .*Wait for it", str(found))


def test_an_index_from_before_checksums_opens_and_says_so(work, index, encoder, segmenter):
    manifest = json.loads((index / "manifest.json").read_text())
    del manifest["files"], manifest["checksum"]
    (index / "manifest.json").write_text(json.dumps(manifest))
    assert len(open_index(index)) == COUNT
    (found,) = verify_index(index)
    assert not found.harm
    assert "written before checksums: cannot tell" in found.what
    # It can be changed as any other; what is written now has checksums.
    opened = add_regions(open_index(index), segmenter, encoder, everything=FEW, fresh=True)
    assert set(opened.manifest["files"]) == set(REGION_FILES)
    (found,) = verify_index(index)
    assert found.where == ", ".join(FILES)
    opened = remove_images(opened, opened.images["image_id"][:1])
    assert verify_index(index) == []
    assert (
        len(update_index(opened, load_folder(work / "photos"), encoder, segmenter=segmenter)) == 6
    )


# Tables


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.iloc[:-1], "holds 5 rows, not 6"),
        (lambda t: t.assign(image_id=t["image_id"].iloc[0]), "holds an image_id twice"),
        (lambda t: t.assign(sha256=["", *t["sha256"][1:]]), "1 rows have no SHA-256, the first: 0"),
        (lambda t: t.assign(width=[*t["width"][:5], -1]), "1 rows have no size, the first: 5"),
        (lambda t: t.drop(columns="path"), "has no column 'path'"),
        (lambda t: t.iloc[::-1].reset_index(drop=True), "name another image than they point to"),
        (lambda t: t.assign(path=t["path"] + "x"), "the index: .*not the table that was written"),
    ],
    ids=range(7),
)
def test_a_table_of_images_that_cannot_be_right_is_found(index, change, message):
    change_table(index, "images.parquet", change)
    assert_found(index, message)


@pytest.mark.parametrize("name", ["image_vectors.npy", "region_vectors.npy"])
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v[:-1], r"holds \(\d+, 192\) float32, not \(\d+, 192\) float32"),
        (lambda v: v.astype(np.float64), "float64, not"),
        (
            lambda v: np.where(np.arange(len(v))[:, None] == 3, np.nan, v),
            "1 rows are not finite, .*: 3",
        ),
        (lambda v: v * [[2.0]] * np.ones(1, np.float32), "float64"),
        (
            lambda v: v * np.where(np.arange(len(v)) < 4, 1, 1.01)[:, None].astype(np.float32),
            r"rows are not of unit length, the first: 4",
        ),
    ],
    ids=["a row lost", "double", "not a number", "both", "longer"],
)
def test_vectors_that_cannot_be_right_are_found(index, name, change, message):
    change_vectors(index, name, change)
    assert_found(index, f"{name}: .*{message}", quick=True)


def test_vectors_are_checked_beyond_the_first_block(index, monkeypatch):
    monkeypatch.setattr("regionlab.index.verify.BLOCK", 2)
    change_vectors(index, "image_vectors.npy", lambda v: np.where(np.arange(6)[:, None] == 5, 0, v))
    assert_found(index, "1 rows are not of unit length, the first: 5", quick=True)


def replace_first(column, value):
    return lambda t: t.assign(**{column: [value, *t[column][1:]]})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.iloc[:-1], r"holds \d+ rows, not \d+"),
        (lambda t: t.assign(row=t["row"] + 1), "rows point outside of the 6 images"),
        (replace_first("row", -1), "1 rows point outside of the 6 images, the first: 0"),
        (lambda t: t.iloc[::-1].reset_index(drop=True), "its rows do not ascend"),
        (lambda t: t.assign(region_id="a"), "holds a region_id twice"),
        (replace_first("image_id", "a"), "1 rows name another image"),
        (replace_first("x0", -1.0), "1 rows have a box outside"),
        (replace_first("x1", 1000.0), "1 rows have a box outside"),
        (replace_first("y1", np.nan), "1 rows have a box outside"),
        (replace_first("y0", 24.0), "1 rows have a box outside"),
        (lambda t: t.drop(columns="rle"), "has no column 'rle'"),
        (replace_first("rle", "~~~"), "1 rows have a mask that cannot be decoded, the first: 0"),
        (replace_first("rle", "0"), "1 rows have a mask that cannot be decoded"),
        (replace_first("area", 3), "1 rows have a mask of another area"),
        (lambda t: replace_first("x0", t["x0"][0] + 0.5)(t), "1 rows have a mask with another box"),
        (replace_first("region_id", "a"), "1 rows have a mask with another id"),
    ],
    ids=range(16),
)
def test_a_table_of_regions_that_cannot_be_right_is_found(index, change, message):
    change_table(index, "regions.parquet", change)
    assert_found(index, f"regions.parquet: .*{message}")


def test_a_quick_look_leaves_masks_and_pictures_out(work, index, monkeypatch):
    monkeypatch.delattr("regionlab.index.verify.check_masks")
    (work / "photos" / "2.png").write_bytes(b"changed")
    assert verify_index(index, quick=True) == []


# Pictures


def test_pictures_that_have_gone_or_changed_are_counted(work, index):
    (work / "photos" / "2.png").unlink()
    (work / "photos" / "3.png").write_bytes(b"changed")
    (work / "photos" / "4.png").write_bytes(b"changed")
    gone, changed = verify_index(index)
    assert re.match(r"1 images are not on disk, the first: \S+2.png", gone.what)
    assert re.match(r"2 images have changed since, the first: \S+3.png", changed.what)
    assert "update_index" in gone.advice and "update_index" in changed.advice


def test_vectors_of_other_images_show_when_some_are_computed_again(tmp_path):
    encoder = load_encoder("toyclip", device="cpu", precision="fp32")  # a model that sees
    (tmp_path / "photos").mkdir()
    for i, color in enumerate(["red", "green", "blue", "white"]):
        Image.new("RGB", (30, 24), color).save(tmp_path / "photos" / f"{i}.png")
    index = build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index").folder
    assert verify_index(index, encoder=encoder) == []
    change_vectors(index, "image_vectors.npy", lambda v: v[[0, 2, 1, 3]])
    sample = digest_sample(np.load(index / "image_vectors.npy"))
    write_manifest(index, read_manifest(index) | {"vectors_sample": sample})
    assert verify_index(index) == []  # each is a good vector in itself
    message = r"2 of 4 vectors computed again are others \(cosine .*that of 1.png, 0\.\d+$"
    assert_found(index, message, encoder=encoder)


def test_another_models_encoder_cannot_verify(index):
    with pytest.raises(IndexFolderError, match="by toyclip/untrained"):
        verify_index(index, encoder=load_encoder("toyclip/untrained", device="cpu"))


def write_large_jpegs(folder):
    """Fine textures, which a decoder at reduced scale does not give as a large one resized."""
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", quality=95)
    return load_folder(folder)


@pytest.mark.parametrize("fast", [True, False], ids=["reduced", "full"])
def test_large_jpegs_are_read_again_as_they_were_for_the_index(tmp_path, monkeypatch, fast):
    monkeypatch.setattr("regionlab.index.verify.ALIKE_FP32", 0.999998)
    photos = write_large_jpegs(tmp_path / "photos")
    one, other = (
        load_encoder("toyclip", device="cpu", precision="fp32", fast_decode=f) for f in (fast, True)
    )
    index = build_index(photos, one, tmp_path / "index")
    full = one.encode_images([np.asarray(Image.open(index.path(row))) for row in range(3)])
    cosines = (full * index.vectors).sum(axis=1)
    assert (cosines < 0.999998).any() == fast  # as arrays they would be called damaged
    assert verify_index(index.folder, encoder=one) == []
    assert verify_index(index.folder, encoder=other) == []
    assert other.fast_decode


# The command


def test_the_command_says_what_it_finds(index, capsys):
    assert main(["verify", str(index)]) == 0
    assert capsys.readouterr().out.endswith(f"{index}: nothing wrong\n")
    (index / "failures.csv").unlink()
    (index / "region_failures.csv").unlink()
    assert main(["verify", str(index), "--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("failures.csv: missing. Build the index again")
    assert lines[-1] == f"{index}: 2 findings"


def test_the_command_compares_vectors_when_given_the_model(index, encoder_file, capsys):
    assert main(["verify", str(index), "--encoder", f"toyclip/{encoder_file}"]) == 0
    assert main(["verify", str(index), "--encoder", "toyclip/untrained"]) == 2
    assert main(["verify", str(index), "--encoder", "nothing"]) == 2
    assert "error: unknown encoder 'nothing'" in capsys.readouterr().err


def test_the_command_takes_padding_and_precision(tmp_path, encoder_file, capsys):
    name = f"toyclip/{encoder_file}"
    encoder = load_encoder(name, device="cpu", precision="fp32", padding="target")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 24), "red").save(tmp_path / "photos" / "1.png")
    folder = str(build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index").folder)
    assert main(["verify", folder, "--encoder", name]) == 2
    assert "is by toyclip" in capsys.readouterr().err
    more = ["--encoder", name, "--padding", "target", "--precision", "fp32"]
    assert main(["verify", folder, *more]) == 0


def test_the_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "regionlab.cli", "verify", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and "no index at" in ended.stdout
