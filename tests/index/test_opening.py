"""Opening an index, and building what is not there yet."""

import numpy as np
import pytest

import regionlab as rl
from regionlab import RegionlabError
from regionlab.data.collection import load_folder
from regionlab.models.segmenter import MaskGeneratorConfig
from small_pictures import write_picture

FEW = MaskGeneratorConfig(
    2, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1, max_regions=2
)


@pytest.fixture
def collection(tmp_path):
    for seed in range(3):
        write_picture(tmp_path / f"images/{seed}.png", seed)
    return load_folder(tmp_path / "images")


def test_what_is_absent_is_built_and_then_opened(
    collection, encoder, segmenter, tmp_path, monkeypatch
):
    folder, given = tmp_path / "index", {"collection": collection, "encoder": encoder}
    plain = rl.open_index(folder, **given)
    assert plain.regions is None
    ask = given | {"segmenter": segmenter, "regions": "crop", "everything": FEW}
    index = rl.open_index(folder, **ask)
    assert set(index.regions["row"]) == {0, 1, 2}
    np.testing.assert_array_equal(index.vectors, plain.vectors)
    assert rl.open_index(folder).regions_id == index.regions_id
    monkeypatch.setattr(encoder, "encode_images", None)  # what is there needs no model
    assert rl.open_index(folder, **ask).regions_id == index.regions_id


def test_a_segmenter_is_loaded_only_for_regions(collection, encoder, segmenter, tmp_path):
    loaded = []

    def load():
        loaded.append(1)
        return segmenter

    given = {"collection": collection, "encoder": encoder, "segmenter": load}
    rl.open_index(tmp_path / "index", **given)
    assert loaded == []
    index = rl.open_index(tmp_path / "index", **given, regions="crop", everything=FEW)
    assert loaded == [1] and len(index.regions) > 0


def test_half_of_what_a_build_needs_is_refused(collection, encoder, tmp_path):
    with pytest.raises(RegionlabError, match="give both or none"):
        rl.open_index(tmp_path / "index", collection=collection)
    with pytest.raises(RegionlabError, match="regions='crop' needs a collection, an encoder and"):
        rl.open_index(tmp_path / "i", collection=collection, encoder=encoder, regions="crop")
    with pytest.raises(RegionlabError, match="no index"):
        rl.open_index(tmp_path / "index")
