"""CONTRIBUTING.md is true: its files are there, and who follows a recipe gets what it says."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from regionlab import add_regions, build_index, load_collection, search_regions
from regionlab.models.segmenter import MaskGeneratorConfig
from regionlab.regions import encodings
from regionlab.search.query import Query, part_from_region
from regionlab.util.paths import ROOT
from small_pictures import write_picture

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTED = dict(
    encoding=r"\*\*A region encoding\*\*", segmenter=r"\*\*A segmenter\*\*",
    data=r"\*\*A data set\*\*", formula=r"\*\*The ranking formula\*\*",
    notebook=r"\*\*A notebook\*\*",
)  # fmt: skip
MOST = {"encoding": 1, "segmenter": 2, "data": 3, "formula": 2, "notebook": 3}


def find_files(recipe):
    """Return the files that a recipe says to touch."""
    after = re.split(LISTED[recipe], TEXT)[1]
    block = re.search(r"\n\n((?:\d\. .*\n)+)", after)[1]
    return re.findall(r"^\d\. `([^`]+)`", block, re.MULTILINE)


def test_each_recipe_touches_as_few_files_as_it_says():
    assert {recipe: len(find_files(recipe)) for recipe in LISTED} == MOST


def test_every_file_that_is_named_is_there_or_is_to_be_made():
    named = set(re.findall(r"`((?:lib|notebooks|data|tests|figures)/[^`*]*)`", TEXT))
    made = {name for name in named if "<" in name or "NN_" in name}
    assert len(named) > 10
    assert {name for name in named - made if not (ROOT / name).exists()} == set()


def test_an_encoding_that_is_in_the_table_is_indexed_and_searched(
    encoder, segmenter, tmp_path, monkeypatch
):
    def show_in_gray(image, mask, mean_color):
        gray = np.where(mask[..., None], image, image.mean(2, keepdims=True)).astype(np.uint8)
        return Image.fromarray(gray).resize((64, 64))

    crop = encodings.REGION_ENCODINGS["crop_erase"]
    ours = replace(crop, name="gray_around", summary="all else in gray", show=show_in_gray)
    monkeypatch.setitem(encodings.REGION_ENCODINGS, ours.name, ours)

    for number in range(3):
        write_picture(tmp_path / "photos" / f"{number}.png", number)
    few = MaskGeneratorConfig(2, pred_iou_thresh=0, stability_score_thresh=0, max_regions=3)
    index = build_index(load_collection("folder", tmp_path / "photos"), encoder, tmp_path / "index")
    index = add_regions(index, segmenter, encoder, encoding=ours.name, everything=few)
    assert index.manifest["regions"]["encoding"] == ours.name

    image = np.asarray(Image.open(index.path(1)))
    region = segmenter.segment_everything(image, settings=few)[0]
    part = part_from_region(encoder, image, region, encoding=ours.name)
    assert search_regions(index, Query([part]), k=1).rows.tolist() == [[1]]
    with pytest.raises(ValueError, match="'gray_around'"):
        search_regions(index, Query([part_from_region(encoder, image, region)]))
