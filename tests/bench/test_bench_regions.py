"""The benchmarks of region search: every step is timed, and both sides of a ratio."""

import json

import numpy as np
import pandas as pd
import pytest

from regionlab.bench import run as bench
from regionlab.bench import searching as bench_prompts
from regionlab.bench import searching as bench_regions
from regionlab.bench.regions import build_by_sam
from regionlab.bench.searching import (
    IMAGE_SIZE,
    STEPS,
    measure_prompt_loop,
    measure_region_encoding,
    read_quality,
    sample_regions,
    time_prompts,
)
from regionlab.data.registry import load_collection
from regionlab.index.build import add_regions, build_index
from regionlab.models.registry import load_segmenter
from regionlab.models.segmenter import EmptyMaskError
from regionlab.regions.encodings import DEFAULT_ENCODING, REGION_ENCODINGS

MAP = {"value": 0.5, "ci95": [0.4, 0.6], "n": 10}


def check_measure(measure, n):
    low, high = measure["range"]
    assert 0 < low <= measure["value"] <= high
    assert measure["n"] == n


def test_prompts_and_regions_are_entries():
    assert {"prompt_loop", "regions"} <= set(bench.ENTRIES)


# --- prompt_loop ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    return load_collection("toybox", tmp_path_factory.mktemp("world"), count=6)


@pytest.fixture(scope="module")
def segmenter():
    return load_segmenter("toysam", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def index(collection, segmenter, encoder, tmp_path_factory):
    index = build_index(collection, encoder, tmp_path_factory.mktemp("index") / "index")
    return add_regions(index, segmenter, encoder)


def test_every_prompt_is_timed_step_by_step(collection, index, segmenter, encoder):
    laps = time_prompts(collection, index, segmenter, encoder, 3, 4, k=2)
    assert len(laps) == 3 * 4
    assert laps["image_id"].nunique() == 3
    assert list(laps["prompt"]) == ["box", "point"] * 6
    assert (laps[["embed", *STEPS]] > 0).all(axis=None)
    assert laps["found"].mean() > 0.5
    assert (laps.groupby("image_id")["embed"].nunique() == 1).all()


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now, self.monkeypatch = 0.0, monkeypatch
        monkeypatch.setattr(bench_prompts.time, "perf_counter", lambda: self.now)

    def slow_down(self, owner, name, seconds):
        original = getattr(owner, name)

        def slowly(*args, **options):
            self.now += seconds
            return original(*args, **options)

        self.monkeypatch.setattr(owner, name, slowly)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_each_step_gets_its_own_time(collection, index, segmenter, encoder, clock):
    clock.slow_down(segmenter, "segment", 1)
    clock.slow_down(bench_prompts, "part_from_region", 2)
    clock.slow_down(bench_prompts, "search_regions", 4)
    laps = time_prompts(collection, index, segmenter, encoder, 1, 2)
    assert (laps[list(STEPS)] == [1, 2, 4]).all(axis=None)
    assert (laps["embed"] == 0).all()


def test_the_image_is_encoded_before_its_first_prompt(collection, index, encoder, clock):
    fresh = load_segmenter("toysam", device="cpu", precision="fp32")
    clock.slow_down(fresh.predictor, "_encode", 8)
    laps = time_prompts(collection, index, fresh, encoder, 2, 2)
    assert (laps["embed"] == 8).all()
    assert (laps[list(STEPS)] == 0).all(axis=None)
    assert clock.now == 8 * (2 + 1)  # one image to warm up


def test_where_there_is_no_mask_the_whole_image_is_searched_for(
    collection, index, segmenter, encoder, monkeypatch
):
    def find_nothing(image, prompt):
        raise EmptyMaskError("nothing")

    searched, original = [], bench_prompts.part_from_region

    def watch(encoder, image, region, **options):
        searched.append(region.mask.all())
        return original(encoder, image, region, **options)

    monkeypatch.setattr(segmenter, "segment", find_nothing)
    monkeypatch.setattr(bench_prompts, "part_from_region", watch)
    laps = time_prompts(collection, index, segmenter, encoder, 1, 2)
    assert not laps["found"].any()
    assert searched == [True] * 4


def test_prompts_are_of_the_seed(collection, index, segmenter, encoder, monkeypatch):
    asked, original = [], segmenter.segment

    def watch(image, prompt):
        asked.append(prompt)
        return original(image, prompt)

    monkeypatch.setattr(segmenter, "segment", watch)
    for seed in (0, 0, 1):
        time_prompts(collection, index, segmenter, encoder, 1, 2, seed=seed)
    assert asked[:4] == asked[4:8] != asked[8:]


def test_too_few_images_are_refused(collection, index, segmenter, encoder):
    with pytest.raises(ValueError, match="8 images with objects are needed, .* has 6"):
        time_prompts(collection, index, segmenter, encoder, 7, 1)


def test_the_loop_is_measured_for_each_segmenter(collection, tmp_path):
    loops = {"toysam": (2, 4), "toysam/untrained": (1, 2)}
    few = collection.subset(collection.images["image_id"][:4])
    measured = measure_prompt_loop(few, tmp_path / "index", loops=loops, k=3)
    for name, (images, prompts) in loops.items():
        found = measured[name]
        assert (found["images"], found["prompts"]) == (images, images * prompts)
        assert set(found["milliseconds"]) == {"whole", "box", "point", "embed", *STEPS}
        counts = {"embed": images, "box": images * prompts // 2, "point": images * prompts // 2}
        for step, measure in found["milliseconds"].items():
            check_measure(measure, counts.get(step, images * prompts))
        assert sum(found["share"].values()) == pytest.approx(1, abs=0.002)
        assert found["precision"] in ("bf16", "fp32")
    assert (measured["gallery"], measured["k"]) == (4, 3)
    assert measured["regions"] > 0
    assert measured["threads"] >= 1 and measured["device"]
    assert measured["ratio_first_vs_next_toysam"]["value"] > 1


def test_figures_are_worked_from_the_laps(collection, tmp_path, monkeypatch):
    laps = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "b"],
            "prompt": ["box", "point"] * 2,
            "found": [True, True, True, False],
            "embed": [0.6, 0.6, 0.8, 0.8],
            "mask": [0.01, 0.03, 0.01, 0.01],
            "vector": [0.02, 0.01, 0.02, 0.02],
            "search": [0.03, 0.02, 0.01, 0.01],
        }
    )  # whole: 60, 60, 40, 40 milliseconds
    monkeypatch.setattr(bench_prompts, "time_prompts", lambda *args, **options: laps)
    monkeypatch.setattr(bench_prompts, "add_regions", lambda index, *args: index)
    monkeypatch.setattr(
        bench_prompts, "build_index", lambda *args: type("I", (list,), {"regions": []})()
    )
    measured = measure_prompt_loop(collection, tmp_path, loops={"toysam": (2, 2)})
    found = measured["toysam"]
    milliseconds = {name: m["value"] for name, m in found["milliseconds"].items()}
    assert milliseconds == {
        "whole": 50, "box": 50, "point": 50, "mask": 10, "vector": 20, "search": 15, "embed": 700
    }  # fmt: skip
    assert found["milliseconds"]["whole"]["range"] == [40, 60]
    assert found["share"] == {"mask": 0.3, "vector": 0.35, "search": 0.35}
    assert (found["images"], found["prompts"], found["found_nothing"]) == (2, 4, 1)
    # (600 + 60) / 60 and (800 + 40) / 40
    assert measured["ratio_first_vs_next_toysam"] == {"value": 16, "range": [11, 21], "n": 2}


# --- regions ----------------------------------------------------------------------------


def test_pooled_tokens_are_measured_against_passes(tmp_path):
    measured = measure_region_encoding(
        ["toyclip/untrained"], count=3, rounds=2, quality=tmp_path / "no"
    )
    check_measure(measured["ratio_vs_passes_toyclip"], 2)
    assert set(measured["milliseconds"]) == {"toyclip/untrained"}
    sides = measured["milliseconds"]["toyclip/untrained"]
    assert list(sides) == ["tokens", DEFAULT_ENCODING]
    for measure in sides.values():
        check_measure(measure, 2)
    assert measured["regions"] == 3 and measured["encoding"] == DEFAULT_ENCODING
    assert measured["map"] == {"tokens": None, DEFAULT_ENCODING: None}
    assert measured["device"] and measured["threads"] >= 1


def test_above_1_pooled_tokens_are_faster(monkeypatch, tmp_path):
    times = {"tokens": [1.0, 2.0, 1.0], DEFAULT_ENCODING: [8.0, 8.0, 6.0]}
    monkeypatch.setattr(bench_regions, "time_interleaved", lambda sides, rounds: times)
    measured = measure_region_encoding(["toyclip/untrained"], count=1)
    assert measured["ratio_vs_passes_toyclip"] == {"value": 6, "range": [4, 8], "n": 3}
    tokens = {"value": 1000, "range": [1000, 2000], "n": 3}
    assert measured["milliseconds"]["toyclip/untrained"]["tokens"] == tokens


def test_the_sides_are_one_pass_and_one_batch_of_all_regions(monkeypatch, tmp_path):
    asked = []

    def watch(encoder, image, masks, **options):
        asked.append((len(masks), options["encoding"], options["batch_size"]))

    monkeypatch.setattr(bench_regions, "encode_regions", watch)
    measure_region_encoding(["toyclip/untrained"], count=5, rounds=1, encoding="blur")
    assert asked == [(5, "tokens", 5), (5, "blur", 5)] * 2


def test_the_default_encoding_takes_a_pass_for_each_region():
    assert REGION_ENCODINGS[DEFAULT_ENCODING].passes == "one per region"
    assert REGION_ENCODINGS[bench_regions.POOLED].passes == "one per image"


def test_quality_is_that_of_the_notebook(tmp_path):
    file = tmp_path / "05.json"
    file.write_text(json.dumps({"results": {"encodings": {"tokens": {"mAP": MAP, "ndcg@5": 1}}}}))
    quality = read_quality(file, ["tokens", "erase"])
    assert quality == {"map": {"tokens": MAP, "erase": None}, "map_from": "05.json"}


def test_missing_quality_is_said_in_a_word(tmp_path):
    quality = read_quality(tmp_path / "05.json", ["tokens"])
    assert quality == {"map": {"tokens": None}, "map_from": "missing: no 05.json"}


def test_regions_are_drawn_from_the_seed():
    image, masks = sample_regions(40, 0)
    again, other = sample_regions(40, 0), sample_regions(40, 1)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(masks, again[1])
    assert (image != other[0]).any() and (masks[0] != other[1][0]).any()
    assert image.shape == (*IMAGE_SIZE, 3) and image.dtype == np.uint8
    assert all(mask.shape == IMAGE_SIZE and mask.dtype == bool and mask.any() for mask in masks)
    shares = [mask.mean() for mask in masks]
    assert min(shares) < 0.02 and 0.1 < max(shares) < 0.29


# --- regions_build ----------------------------------------------------------------------


def test_sams_own_way_finds_and_encodes_the_same_regions(collection, segmenter, encoder, index):
    images = [collection.read(image_id) for image_id in index.images["image_id"][:3]]
    found = build_by_sam(images, segmenter, encoder, segmenter.everything)
    for row, vectors in enumerate(found):
        own = index.region_vectors[index.regions_of(row)]
        assert len(vectors) == len(own) > 0
        assert (vectors @ own.T).max(axis=1).min() > 0.999


def test_building_regions_is_an_entry():
    assert "regions_build" in bench.ENTRIES
