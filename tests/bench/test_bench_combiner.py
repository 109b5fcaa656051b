"""The bench of the Combiner: what is timed, and what it is compared with."""

import numpy as np
import pytest
import torch

from regionlab.bench import indexing as bench_combiner
from regionlab.bench import run as bench
from regionlab.bench.indexing import measure_combiner, sample_triplets
from regionlab.models.encoder import Encoder

KEYS = {"value", "range", "n"}


@pytest.fixture(scope="module")
def found(encoder_file):
    return measure_combiner(
        triplets=50, batch=16, encoder_name=f"toyclip/{encoder_file}", pictures=2, rounds=2
    )


def test_the_combiner_is_an_entry():
    assert "combiner" in bench.ENTRIES


def test_an_epoch_of_whole_batches_is_timed(found):
    assert (found["triplets"], found["batch"], found["width"]) == (48, 16, 192)
    seconds = found["seconds_per_epoch"]
    assert set(seconds) == KEYS
    assert seconds["n"] == 2
    assert 0 < seconds["range"][0] <= seconds["value"] <= seconds["range"][1]


def test_the_combiner_has_the_size_of_s4(found):
    d = 192
    projections = 2 * (4 * d * d + 4 * d)
    assert found["parameters"] == projections + 2 * (8 * d * 8 * d + 8 * d) + (
        d * 8 * d + d + 8 * d + 1
    )


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now, self.monkeypatch = 0.0, monkeypatch
        monkeypatch.setattr(bench_combiner.time, "perf_counter", lambda: self.now)

    def slow_down(self, owner, name, seconds):
        original = getattr(owner, name)

        def slowly(*args, **options):
            self.now += seconds
            return original(*args, **options)

        self.monkeypatch.setattr(owner, name, slowly)


def test_an_epoch_is_compared_with_one_that_encodes_each_triplet_anew(encoder_file, monkeypatch):
    clock = Clock(monkeypatch)
    clock.slow_down(Encoder, "encode_images", 4.0)
    clock.slow_down(Encoder, "encode_texts", 1.0)
    clock.slow_down(bench_combiner, "take_epoch", 30.0)
    found = measure_combiner(
        triplets=20, batch=8, encoder_name=f"toyclip/{encoder_file}", pictures=2
    )
    assert found["seconds_per_epoch"]["value"] == 30
    triplet = (2 * 4.0 + 1.0) / 2
    assert found["ratio_features_once"] == {
        "value": 1 + 16 * triplet / 30, "range": [1 + 16 * triplet / 30] * 2, "n": 3,
    }  # fmt: skip


def test_random_features_are_as_long_as_those_of_clip():
    training_set = sample_triplets(100, 64, np.random.default_rng(0))
    assert len(training_set) == 100
    assert training_set.texts.shape == (100, 4, 64)
    for features in (training_set.references, training_set.targets, training_set.texts):
        assert features.dtype == torch.float32
        assert features.norm(dim=-1).mean().item() == pytest.approx(10, abs=0.5)
