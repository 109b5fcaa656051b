"""Benchmarks measure both sides of a ratio, and keep what was measured before."""

import json

import numpy as np
import pytest

from regionlab.bench import indexing as bench_index
from regionlab.bench import run as bench
from regionlab.bench.indexing import embed_as_s3, measure_indexing, write_images
from regionlab.cli import main
from regionlab.data.images import read_image
from regionlab.data.listing import list_images
from regionlab.models.clip import register_toyclip
from regionlab.models.registry import load_encoder
from regionlab.util.progress import time_interleaved

SMALL = {"value": 2.0, "range": [1.5, 2.5], "n": 3}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of benchmarks to be, and entries that take no time."""
    monkeypatch.setattr(bench, "FILE", tmp_path / "figures/bench.json")
    entries = {name: lambda: {"ratio_vs_slow": SMALL, "images": 3} for name in ("index", "search")}
    monkeypatch.setattr(bench, "ENTRIES", entries)
    return tmp_path / "figures/bench.json"


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


# --- the file and the command -----------------------------------------------------------


def test_every_entry_is_measured_and_written_with_a_record(file):
    assert main(["bench"]) == 0
    content = read(file)
    assert set(content) == {"record", "results"}
    assert content["results"]["index"] == {"ratio_vs_slow": SMALL, "images": 3}
    assert list(content["results"]) == list(content["record"]["entries"]) == ["index", "search"]
    record = content["record"]
    assert record["status"] == "ok" and record["run"] == "bench"
    assert record["versions"]["torch"] and record["device"]


def test_record_names_no_place_of_this_machine(file):
    main(["bench"])
    assert "python" not in read(file)["record"]
    assert str(bench.FIGURES.parent) not in file.read_text(encoding="utf-8")


def test_entries_that_are_not_measured_again_are_kept(file):
    main(["bench", "search"])
    before = read(file)
    main(["bench", "index"])
    after = read(file)
    assert after["results"]["search"] == before["results"]["search"]
    assert after["record"]["entries"]["search"] == before["record"]["entries"]["search"]
    assert set(after["results"]) == {"index", "search"}


def test_failing_entry_loses_no_other(file, monkeypatch):
    def fail():
        raise RuntimeError("no memory")

    monkeypatch.setitem(bench.ENTRIES, "search", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        main(["bench"])
    assert list(read(file)["results"]) == ["index"]


def test_ratios_are_shown_as_a_table(file, capsys):
    main(["bench", "index"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["index", "ratio_vs_slow", "2.00", "1.50", "to", "2.50"] in lines


def test_results_of_a_gpu_stand_beside_those_of_the_processor(file, monkeypatch, capsys):
    main(["bench", "index"])
    monkeypatch.setattr(bench, "describe_device", lambda: "cuda (a GPU)")
    main(["bench", "index"])
    content = read(file)
    assert set(content["results"]) == {"index", "gpu"}
    assert content["results"]["gpu"] == {"index": content["results"]["index"]}
    assert content["record"]["entries"]["gpu/index"]["device"] == "cuda (a GPU)"
    assert content["record"]["entries"]["index"]["device"] != "cuda (a GPU)"
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["gpu", "index", "ratio_vs_slow", "2.00", "1.50", "to", "2.50"] in lines


def test_unknown_entry_is_told_the_known_ones(file, capsys):
    assert main(["bench", "index", "serch"]) == 2
    assert "unknown entry 'serch'; known: index, search" in capsys.readouterr().err
    assert not file.exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"results": {}}'])
def test_file_of_another_kind_is_not_overwritten(file, capsys, text):
    file.parent.mkdir()
    file.write_text(text)
    assert main(["bench"]) == 2
    assert "bench.json is not a file of benchmarks" in capsys.readouterr().err
    assert file.read_text() == text


def test_indexing_is_an_entry():
    assert "index" in bench.ENTRIES


# --- indexing ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    register_toyclip()
    return load_encoder("toyclip/untrained", precision="fp32")


def test_indexing_is_measured_against_the_model_and_against_s3(encoder):
    measured = measure_indexing("toyclip/untrained", count=5, rounds=2, batch_size=2)
    speeds = measured["images_per_second"]
    assert set(speeds) == {"index", "forward", "split_forward", "s3"}
    ratios = [measured[f"ratio_vs_{name}"] for name in ("forward", "split_forward", "s3")]
    for value in (*ratios, *speeds.values()):
        low, high = value["range"]
        assert 0 < low <= value["value"] <= high
        assert value["n"] == 2
    assert measured["cosine_worst"] > 0.99
    assert (measured["images"], measured["batch_size"]) == (5, 2)
    assert measured["threads"] >= 1 and measured["device"]


def test_ratios_are_of_rates_within_a_round(monkeypatch, encoder):
    times = {"index": [2.0, 4.0, 2.0], "forward": [1.0, 3.0, 1.0], "s3": [8.0, 8.0, 6.0]}
    times["split_forward"] = [1.0, 1.0, 1.0]
    monkeypatch.setattr(bench_index, "time_interleaved", lambda sides, rounds: times)
    measured = measure_indexing("toyclip/untrained", count=2)
    assert measured["ratio_vs_forward"] == {"value": 1 / 2, "range": [1 / 2, 3 / 4], "n": 3}
    assert measured["ratio_vs_split_forward"]["range"] == [1 / 4, 1 / 2]
    assert measured["ratio_vs_s3"] == {"value": 6 / 2, "range": [8 / 4, 8 / 2], "n": 3}
    index = {"value": 2 / 2, "range": [2 / 4, 2 / 2], "n": 3}
    assert measured["images_per_second"]["index"] == index


def test_sides_are_timed_in_turn():
    order = []
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    times = time_interleaved(sides, 2)
    assert order == list("abcabc")
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_pictures_are_of_cocos_size_and_from_the_seed(tmp_path):
    folders = [write_images(tmp_path / name, 2, seed) for name, seed in (("a", 0), ("b", 0))]
    first, again = ([path.read_bytes() for path in list_images(folder)] for folder in folders)
    assert first == again and len(set(first)) == 2
    assert read_image(list_images(folders[0])[0]).shape == (480, 640, 3)
    other = list_images(write_images(tmp_path / "c", 2, 1))
    assert other[0].read_bytes() != first[0]


def test_s3s_way_gives_the_encoders_vectors(tmp_path, encoder):
    paths = list_images(write_images(tmp_path / "pictures", 18, 0))  # more than one batch
    vectors = embed_as_s3(encoder, paths)
    np.testing.assert_allclose(vectors, encoder.encode_images(paths), atol=1e-5)
