"""Regions of an index: what goes in, what killed work leaves, what opening finds out."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regionlab.data.collection import load_folder
from regionlab.data.images import read_image
from regionlab.index.build import add_regions, build_index
from regionlab.index.index import open_index
from regionlab.index.tables import IndexFolderError
from regionlab.models.registry import load_encoder, load_segmenter
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.regions.encodings import encode_regions
from small_pictures import write_picture

IMAGE_FILES = {"images.parquet", "image_vectors.npy", "failures.csv"}
REGION_FILES = {"regions.parquet", "region_vectors.npy", "region_failures.csv"}
FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=4
)
NOTHING = replace(FEW, min_area=10**6)
COUNT = 5


@pytest.fixture(scope="module")
def made(encoder, segmenter, tmp_path_factory):
    """A folder with photos, their index without regions, and the same with them."""
    folder = tmp_path_factory.mktemp("made")
    for i in range(COUNT):
        write_picture(folder / "photos" / f"{i}.png", i, size=(30 + i, 24))
    build_index(load_folder(folder / "photos"), encoder, folder / "plain")
    shutil.copytree(folder / "plain", folder / "whole")
    add_regions(open_index(folder / "whole"), segmenter, encoder, everything=FEW)
    return folder


@pytest.fixture
def work(made, tmp_path):
    """A copy of `made` to be harmed."""
    return Path(shutil.copytree(made, tmp_path / "work"))


@pytest.fixture
def add(encoder, segmenter):
    def add(folder, **options):
        options = {"everything": FEW, **options}
        return add_regions(open_index(folder), segmenter, encoder, **options)

    return add


@pytest.fixture
def segmented(segmenter, monkeypatch):
    """Widths of the images that were segmented, in order."""
    widths = []
    original = segmenter.segment_everything

    def watch(image, **options):
        widths.append(image.shape[1])
        return original(image, **options)

    monkeypatch.setattr(segmenter, "segment_everything", watch)
    return widths


def contents(folder):
    """All of an index but how long its regions took, and the stamps, which are a cache."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files.pop("stamps.json", None)
    manifest = json.loads(files.pop("manifest.json")) | {"checksum": ""}
    manifest["regions"] = manifest["regions"] and manifest["regions"] | {"seconds": 0}
    return manifest, files


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Adding


def test_regions_are_what_segmenter_and_encoder_make_of_each_image(made, encoder, segmenter):
    index = open_index(made / "whole")
    assert len(index.regions) > 2 * COUNT
    assert index.regions.index.tolist() == list(range(len(index.regions)))
    assert index.regions["row"].is_monotonic_increasing
    for row in range(COUNT):
        image = read_image(index.path(row))
        expected = segmenter.segment_everything(image, settings=FEW)
        held = index.regions_of(row)
        table = index.regions.iloc[held]
        assert set(table["row"]) == {row}
        assert set(table["image_id"]) == {index.images["image_id"][row]}
        masks = [index.region_mask(r) for r in range(held.start, held.stop)]
        np.testing.assert_array_equal(masks, [region.mask for region in expected])
        boxes = table[["x0", "y0", "x1", "y1"]].to_numpy()
        np.testing.assert_array_equal(boxes, [region.box for region in expected])
        assert table["area"].tolist() == [mask.sum() for mask in masks]
        np.testing.assert_allclose(table["quality"], [region.quality for region in expected])
        np.testing.assert_allclose(table["stability"], [region.stability for region in expected])
        vectors = encode_regions(encoder, image, masks)
        np.testing.assert_allclose(index.region_vectors[held], vectors, atol=1e-6)


def test_a_region_has_the_id_of_its_image_and_mask(made):
    regions = open_index(made / "whole").regions
    texts = [f"{r.image_id} {r.rle}" for r in regions.itertuples()]
    ids = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    assert regions["region_id"].tolist() == ids


def test_the_table_has_the_types_it_promises(made):
    regions = open_index(made / "whole").regions
    assert {name: str(dtype) for name, dtype in regions.dtypes.items()} == {
        "region_id": "str",
        "image_id": "str",
        "row": "int64",
        **dict.fromkeys(["x0", "y0", "x1", "y1"], "float64"),
        "area": "int64",
        "quality": "float32",
        "stability": "float32",
        "rle": "str",
    }


def test_the_index_is_the_same_but_for_its_regions(made):
    plain, whole = open_index(made / "plain"), open_index(made / "whole")
    assert whole.id == plain.id
    assert whole.root == plain.root
    files = {path.name for path in whole.folder.iterdir()}
    assert files == {"manifest.json", "stamps.json"} | IMAGE_FILES | REGION_FILES
    for name in IMAGE_FILES:
        assert (whole.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    own = {"regions": None, "checksum": "", "files": plain.manifest["files"]}
    assert whole.manifest | own == plain.manifest | {"checksum": ""}
    assert whole.manifest["files"].items() > plain.manifest["files"].items()
    assert repr(plain) == "<Index photos: 5 images by toyclip/random.safetensors>"
    n = len(whole.regions)
    assert repr(whole) == f"<Index photos: 5 images, {n} regions by toyclip/random.safetensors>"
    assert isinstance(whole.region_vectors, np.memmap)
    assert hidden(made) == []


def test_the_manifest_says_how_the_regions_were_made(made, segmenter, encoder):
    index = open_index(made / "whole")
    regions = index.manifest["regions"]
    assert regions["segmenter"] == segmenter.fingerprint
    assert regions["model"] == encoder.fingerprint
    assert MaskGeneratorConfig(**regions["everything"]) == FEW
    assert regions["encoding"] == "crop_erase"
    assert regions["count"] == len(index.regions)
    assert regions["images_without"] == regions["failures"] == 0
    assert regions["seconds"] > 0
    assert index.regions_id == regions["id"]


def test_the_segmenters_own_settings_are_used_unless_others_are_given(
    work, add, segmenter, monkeypatch
):
    monkeypatch.setattr(segmenter, "everything", replace(FEW, max_regions=1))
    index = add(work / "plain", everything=None)
    assert index.manifest["regions"]["everything"]["max_regions"] == 1
    assert len(index.regions) == COUNT


def test_regions_are_the_same_bytes_by_any_number_of_threads(made, work, add, threads):
    threads(3)
    add(work / "plain")
    assert contents(work / "plain") == contents(made / "whole")


def test_regions_made_alike_are_not_made_again(work, add, segmented):
    before = contents(work / "whole")
    index = add(work / "whole", shard_size=2)
    assert segmented == []
    assert len(index.regions) > 0
    assert contents(work / "whole") == before
    add(work / "whole", fresh=True)
    assert segmented == [30, 31, 32, 33, 34]
    assert contents(work / "whole") == before


@pytest.mark.parametrize(
    "change", [{"encoding": "erase"}, {"everything": replace(FEW, max_regions=3)}], ids=str
)
def test_regions_made_otherwise_are_replaced(work, add, change):
    old = open_index(work / "whole")
    new = add(work / "whole", **change)
    assert new.regions_id != old.regions_id
    assert new.region_vectors.tolist() != old.region_vectors.tolist()
    fresh = add(work / "plain", **change)
    assert new.regions_id == fresh.regions_id
    pd.testing.assert_frame_equal(new.regions, fresh.regions)
    np.testing.assert_array_equal(new.region_vectors, fresh.region_vectors)
    assert new.id == old.id


def test_another_segmenter_or_precision_replaces(work, encoder, encoder_file, segmenter):
    low = load_segmenter("toysam/untrained", device="cpu", precision="bf16")
    first = add_regions(open_index(work / "whole"), low, encoder, everything=FEW)
    assert first.manifest["regions"]["segmenter"]["precision"] == "bf16"
    low = load_encoder(f"toyclip/{encoder_file}", device="cpu", precision="bf16")
    second = add_regions(open_index(work / "whole"), segmenter, low, everything=FEW)
    assert second.manifest["regions"]["model"]["precision"] == "bf16"
    assert second.manifest["model"]["precision"] == "fp32"
    assert second.regions_id != open_index(work / "plain").id


def test_images_without_regions_are_counted(encoder, tmp_path, add):
    write_picture(tmp_path / "photos" / "0.png", 0, size=(4, 4))
    write_picture(tmp_path / "photos" / "1.png", 1, size=(30, 24))
    write_picture(tmp_path / "photos" / "2.png", 2, size=(1, 1))
    build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "index")
    index = add(tmp_path / "index", everything=replace(FEW, min_area=17))
    assert [index.regions_of(row) for row in (0, 2)] == [slice(0, 0), slice(4, 4)]
    assert set(index.regions["row"]) == {1}
    assert index.manifest["regions"]["images_without"] == 2
    assert len(index.region_failures) == 0


def test_an_index_may_have_no_regions_at_all(work, add):
    index = add(work / "plain", everything=NOTHING)
    assert len(index.regions) == 0
    assert index.region_vectors.shape == (0, index.vectors.shape[1])
    assert index.manifest["regions"]["images_without"] == COUNT
    index.check_regions()
    assert index.regions_of(3) == slice(0, 0)
    assert ", 0 regions by" in repr(index)


# What is refused


def test_an_index_without_regions_says_how_to_add_them(made):
    index = open_index(made / "plain")
    asks = [
        lambda: index.check_regions(),
        lambda: index.region_mask(0),
        lambda: index.regions_of(0),
        lambda: index.regions_id,
    ]
    for ask in asks:
        with pytest.raises(
            IndexFolderError, match=r"plain has no regions: .*add_regions\(index, segmenter, enco"
        ):
            ask()
    open_index(made / "whole").check_regions()


def test_the_mask_of_no_region_is_refused(made):
    index = open_index(made / "whole")
    for row in (-1, len(index.regions)):
        with pytest.raises(IndexError, match=f"no region {row} in an index of"):
            index.region_mask(row)


def test_another_models_encoder_is_refused_before_any_work(made, segmenter, segmented):
    other = load_encoder("toyclip/untrained", device="cpu")
    with pytest.raises(IndexFolderError, match="by toyclip/untrained"):
        add_regions(open_index(made / "plain"), segmenter, other, everything=FEW)
    assert segmented == [] and hidden(made) == []


@pytest.mark.parametrize(
    "option, message",
    [
        ({"encoding": "crpo"}, "unknown region encoding 'crpo'; known: erase"),
        ({"shard_size": 0}, "shard_size must be at least 1, got 0"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_any_work(made, add, segmented, option, message):
    with pytest.raises(ValueError, match=message):
        add(made / "plain", **option)
    assert segmented == [] and hidden(made) == []


def test_an_index_built_again_since_it_was_opened_is_refused(work, encoder, segmenter):
    index = open_index(work / "plain")
    write_picture(work / "photos" / "5.png", 5)
    build_index(load_folder(work / "photos"), encoder, work / "plain")
    with pytest.raises(IndexFolderError, match="built again since this one was opened"):
        add_regions(index, segmenter, encoder, everything=FEW)


# Images that can no longer be read


@pytest.fixture
def harmed(work):
    (work / "photos" / "0.png").unlink()
    write_picture(work / "photos" / "2.png", 22, size=(32, 24))
    cut = (work / "photos" / "3.png").read_bytes()[:-100]
    (work / "photos" / "3.png").write_bytes(cut)
    return work


def test_images_that_went_or_changed_are_listed_and_the_rest_goes_on(harmed, made, add):
    with pytest.warns(UserWarning, match="3 images have no regions, the first: 0.png: file not"):
        add(harmed / "plain", shard_size=2)
    index, whole = open_index(harmed / "plain"), open_index(made / "whole")
    assert index.region_failures["path"].tolist() == ["0.png", "2.png", "3.png"]
    ids = whole.images["image_id"][[0, 2, 3]]
    assert index.region_failures["image_id"].tolist() == ids.tolist()
    reasons = index.region_failures["reason"].tolist()
    assert reasons[:2] == ["file not found", "changed since it was indexed"]
    assert reasons[2].startswith("damaged")
    rest = whole.regions["row"].isin([1, 4])
    pd.testing.assert_frame_equal(index.regions, whole.regions[rest].reset_index(drop=True))
    np.testing.assert_array_equal(index.region_vectors, whole.region_vectors[rest])
    assert index.manifest["regions"]["failures"] == 3
    assert index.manifest["regions"]["images_without"] == 0
    assert len(index) == COUNT and len(index.failures) == 0


def test_failures_warn_each_time_and_are_tried_again_when_asked(
    harmed, made, add, segmented, encoder, segmenter
):
    with pytest.warns(UserWarning, match="3 images"):
        add(harmed / "plain")
    shutil.copytree(made / "photos", harmed / "photos", dirs_exist_ok=True)
    segmented.clear()
    with pytest.warns(UserWarning, match="fresh=True tries them again") as caught:
        add_regions(open_index(harmed / "plain"), segmenter, encoder, everything=FEW)
    assert caught[0].filename == __file__
    assert segmented == []
    index = add(harmed / "plain", fresh=True)
    assert index.regions_id == open_index(made / "whole").regions_id


def test_if_no_image_can_be_read_the_index_stays_as_it_was(work, add):
    before = contents(work / "whole")
    (work / "photos").rename(work / "away")
    (work / "photos").mkdir()  # a folder that is gone would be looked for where it was before
    with pytest.raises(ValueError, match="not one of the 5 images .*0.png: file not found"):
        add(work / "whole", fresh=True)
    assert contents(work / "whole") == before
    (work / "photos").rmdir()
    shutil.copytree(work / "away", work / "photos", dirs_exist_ok=True)
    index = add(work / "whole", encoding="erase")
    assert len(index.region_failures) == 0


# Killed work


class Killed(BaseException):
    """Stands for a killed process: nothing may catch it."""


@pytest.fixture
def dies_after(segmenter, monkeypatch):
    """Let the segmenter die after some images, within a `with`."""

    def arm(images):
        patch = monkeypatch.context()
        original, seen = segmenter.segment_everything, []

        def stop(image, **options):
            seen.append(image)
            if len(seen) > images:
                raise Killed
            return original(image, **options)

        class Armed:
            def __enter__(self):
                patch.__enter__().setattr(segmenter, "segment_everything", stop)

            def __exit__(self, kind, error, trace):
                patch.__exit__(None, None, None)
                assert kind is Killed
                return True

        return Armed()

    return arm


@pytest.mark.parametrize("images", [0, 1, 2, 4])
def test_work_killed_at_any_image_goes_on_where_it_stopped(
    work, made, add, segmented, dies_after, images
):
    before = contents(work / "plain")
    with dies_after(images):
        add(work / "plain", shard_size=2)
    assert contents(work / "plain") == before
    segmented.clear()
    add(work / "plain", shard_size=2)
    assert len(segmented) == COUNT - images // 2 * 2
    assert contents(work / "plain")[1] == contents(made / "whole")[1]
    ids = [open_index(f).regions_id for f in (work / "plain", made / "whole")]
    assert ids[0] == ids[1]
    assert hidden(work) == []


@pytest.mark.parametrize(
    "other", [{"shard_size": 1}, {"encoding": "erase"}, {"everything": NOTHING}], ids=str
)
def test_what_other_work_left_is_not_mixed_in(work, made, add, dies_after, other):
    with dies_after(4):
        add(work / "plain", **{"shard_size": 2, **other})
    add(work / "plain", shard_size=2)
    assert contents(work / "plain")[1] == contents(made / "whole")[1]


def test_what_was_left_for_another_index_is_not_mixed_in(work, add, encoder, dies_after):
    with dies_after(4):
        add(work / "plain", shard_size=2)
    write_picture(work / "photos" / "0.png", 99, size=(30, 24))
    build_index(load_folder(work / "photos"), encoder, work / "plain")
    add(work / "plain", shard_size=2)
    build_index(load_folder(work / "photos"), encoder, work / "other")
    assert contents(work / "plain")[1] == contents(add(work / "other").folder)[1]


def test_an_image_that_is_back_when_the_work_goes_on_gets_its_regions(work, made, add, dies_after):
    (work / "photos" / "0.png").rename(work / "away.png")
    with dies_after(2):
        add(work / "plain", shard_size=2)
    (work / "away.png").rename(work / "photos" / "0.png")
    index = add(work / "plain", shard_size=2)
    assert len(index.region_failures) == 0
    assert contents(work / "plain")[1] == contents(made / "whole")[1]


def test_killed_work_outlives_a_look_at_the_images(work, add, encoder, segmented, dies_after):
    with dies_after(4):
        add(work / "plain", shard_size=2)
    build_index(load_folder(work / "photos"), encoder, work / "plain")
    segmented.clear()
    add(work / "plain", shard_size=2)
    assert segmented == [34]


def every_step(patch, steps):
    """Count each change of the file system, and die before the one that `steps` comes to."""
    count = []

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            count.append(name)
            if len(count) > steps:
                raise Killed
            return original(*args, **kwargs)

        patch.setattr(owner, name, wrapped)

    for name in ("rename", "mkdir", "write_text"):
        wrap(Path, name)
    wrap(shutil, "rmtree")
    for name in ("link", "unlink", "rmdir"):
        wrap(os, name)
    return count


def test_work_killed_before_any_change_on_disk_recovers(
    encoder, segmenter, tmp_path, monkeypatch, dies_after
):
    one = replace(FEW, points_per_side=1)
    options = {"everything": one, "encoding": "tokens", "shard_size": 1}
    for i in range(2):
        write_picture(tmp_path / "photos" / f"{i}.png", i)
    start = build_index(load_folder(tmp_path / "photos"), encoder, tmp_path / "start")
    expected = Path(shutil.copytree(start.folder, tmp_path / "expected"))
    new = add_regions(open_index(expected), segmenter, encoder, **options)
    old = add_regions(start, segmenter, encoder, everything=replace(one, max_regions=1))
    # Work begun before left a shard that is to be done again: its image is back.
    (tmp_path / "photos" / "0.png").rename(tmp_path / "away.png")
    with dies_after(0):
        add_regions(old, segmenter, encoder, **options)
    (tmp_path / "away.png").rename(tmp_path / "photos" / "0.png")
    assert hidden(tmp_path) == [".start.regions"]

    for steps in range(100):
        folder = tmp_path / "indexes" / str(steps)
        shutil.copytree(start.folder, folder)
        shutil.copytree(tmp_path / ".start.regions", folder.with_name(f".{steps}.regions"))
        with monkeypatch.context() as patch:
            every_step(patch, steps)
            try:
                add_regions(open_index(folder), segmenter, encoder, **options)
                break
            except Killed:
                pass
        # Whoever opens it now finds a whole index, with the old regions or the new.
        assert open_index(folder).regions_id in (old.regions_id, new.regions_id)
        index = add_regions(open_index(folder), segmenter, encoder, **options)
        assert index.regions_id == new.regions_id
        assert contents(folder)[1] == contents(expected)[1]
        # A lock that its owner could not put away blocks nobody.
        assert [name for name in hidden(folder.parent) if not name.endswith(".lock")] == []
    assert 15 < steps < 99


def test_files_are_copied_where_there_are_no_hard_links(work, made, add, monkeypatch):
    def refuse(*args):
        raise OSError("not supported")

    monkeypatch.setattr(os, "link", refuse)
    add(work / "plain")
    assert contents(work / "plain")[1] == contents(made / "whole")[1]


# Building the images again


def test_building_the_same_images_again_keeps_the_regions(work, encoder):
    before = contents(work / "plain"), contents(work / "whole")
    # Sizes and times alike: `plain` was built from the very same photos.
    index = build_index(load_folder(open_index(work / "whole").root), encoder, work / "whole")
    assert len(index.regions) > 0
    assert (contents(work / "plain"), contents(work / "whole")) == before


def test_building_with_further_images_keeps_the_regions(work, encoder):
    before = open_index(work / "whole").regions
    write_picture(work / "photos" / "5.png", 5)
    index = build_index(load_folder(work / "photos"), encoder, work / "whole")
    pd.testing.assert_frame_equal(index.regions, before)
    assert index.region_failures["path"].tolist() == ["5.png"]


def test_building_by_another_model_drops_the_regions(work):
    other = load_encoder("toyclip/untrained", device="cpu", precision="fp32")
    index = build_index(load_folder(work / "photos"), other, work / "whole")
    assert index.regions is None
    assert not REGION_FILES & {path.name for path in index.folder.iterdir()}


# Opening


@pytest.mark.parametrize("name", sorted(REGION_FILES))
@pytest.mark.parametrize("harm", ["missing", "empty", "cut", "garbage"])
def test_a_damaged_file_is_found(work, name, harm):
    path = work / "whole" / name
    content = path.read_bytes()
    harmed = {"empty": b"", "cut": content[:-20], "garbage": b"\x00garbage" * 100}
    path.unlink() if harm == "missing" else path.write_bytes(harmed[harm])
    with pytest.raises(IndexFolderError, match="is damaged: .*build it again"):
        open_index(work / "whole")


def test_an_index_with_damaged_regions_can_be_built_again(work, encoder):
    (work / "whole" / "regions.parquet").write_bytes(b"garbage")
    index = build_index(load_folder(work / "photos"), encoder, work / "whole")
    assert len(index) == COUNT and index.regions is None


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.iloc[:-1], "regions of .* dimensions, the table has"),
        (lambda t: t.assign(row=t["row"] + 1), "do not ascend within the 5 images"),
        (lambda t: t.assign(row=t["row"] - 1), "do not ascend within the 5 images"),
        (lambda t: t.iloc[::-1].reset_index(drop=True), "do not ascend within the 5 images"),
        (lambda t: t.assign(region_id="a"), "holds a region_id twice"),
        (lambda t: t.assign(image_id="a"), "belongs to other images"),
        (lambda t: t.assign(rle="a"), "is not the table that was written"),
        (lambda t: t.assign(x0=t["x0"] + 1), "is not the table that was written"),
        (lambda t: t.assign(quality=t["quality"] * 2), "is not the table that was written"),
        (lambda t: t.drop(columns="rle"), "rle"),
    ],
    ids=range(10),
)
def test_a_table_that_is_not_the_vectors_own_is_found(work, change, message):
    path = work / "whole" / "regions.parquet"
    change(pd.read_parquet(path)).to_parquet(path)
    with pytest.raises(IndexFolderError, match=f"is damaged: .*{message}"):
        open_index(work / "whole")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda v: v[:-1], r"the vectors are \(\d+, \d+\)"),
        (lambda v: v[:, :-1], r"the vectors are \(\d+, \d+\)"),
        (lambda v: v.astype(np.float64), "float64"),
        (lambda v: v[::-1], "is not the file that was written"),
    ],
    ids=["a row lost", "a column lost", "double", "turned round"],
)
def test_vectors_that_are_not_the_tables_own_are_found(work, change, message):
    path = work / "whole" / "region_vectors.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(IndexFolderError, match=f"is damaged: .*{message}"):
        open_index(work / "whole")


def test_failures_that_are_not_its_own_are_found(work):
    path = work / "whole" / "region_failures.csv"
    path.write_text("image_id,path,reason\na,b,c\n")
    with pytest.raises(IndexFolderError, match="region_failures.csv does not list 0 files"):
        open_index(work / "whole")
