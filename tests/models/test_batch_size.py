"""The batch size is measured, within a time, and stays small where large ones bring nothing."""

import numpy as np
import pytest
import torch

from regionlab.models import pipeline as module
from regionlab.models.pipeline import choose_batch_size, resolve_batch_size


@pytest.fixture
def rates(monkeypatch):
    """Pictures per second of each size, made up; sizes that are not in it do not fit."""
    table = {1: 1e9}

    def measure(encoder, model, size):
        if size not in table:
            raise torch.OutOfMemoryError
        return table[size]

    monkeypatch.setattr(module, "_measure_rate", measure)
    return table


def test_the_smallest_size_within_five_percent_of_the_best_is_chosen(encoder, rates):
    rates |= {2: 100.0, 4: 189.0, 8: 191.0, 16: 200.0, 32: 180.0}
    assert choose_batch_size(encoder, sizes=[2, 4, 8, 16, 32]) == 8


def test_sizes_that_do_not_fit_in_memory_end_the_search(encoder, rates):
    rates |= {2: 100.0, 4: 200.0, 16: 900.0}
    assert choose_batch_size(encoder, sizes=[2, 4, 8, 16]) == 4


def test_without_time_the_first_size_is_the_answer(encoder):
    assert choose_batch_size(encoder, sizes=[3, 64], seconds=0) == 3


def test_a_size_that_would_take_too_long_is_not_tried(encoder, rates):
    rates |= {1: 10.0, 2: 20.0, 4: 40.0, 64: 4000.0}
    assert choose_batch_size(encoder, sizes=[2, 4, 64], seconds=1.0) == 4


def test_real_measurements_give_one_of_the_sizes(encoder):
    assert choose_batch_size(encoder, sizes=[1, 2], seconds=5) in (1, 2)


def test_default_sizes_give_each_thread_a_part(encoder, threads, rates):
    for count, first in ((1, 16), (2, 32), (3, 64), (64, 512)):
        threads(count)
        assert choose_batch_size(encoder, seconds=0) == first


@pytest.mark.parametrize("sizes", [[], [0, 2]])
def test_sizes_that_are_none_are_refused(encoder, sizes):
    with pytest.raises(ValueError, match="sizes must be one or more numbers from 1 on"):
        choose_batch_size(encoder, sizes=sizes)


def test_auto_is_what_was_measured_and_numbers_stay(encoder, rates):
    rates |= {size: 1.0 for size in module.SIZES} | {64: 50.0}
    assert resolve_batch_size(encoder, "auto") == 64
    assert resolve_batch_size(encoder, 7) == 7


def test_pictures_are_encoded_with_an_automatic_size_too(encoder):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 30, 40, 3), dtype=np.uint8))
    vectors = encoder.encode_images(images, batch_size="auto")
    np.testing.assert_allclose(vectors, encoder.encode_images(images), atol=1e-5)


def test_another_word_is_refused(encoder):
    with pytest.raises(ValueError, match="""must be a number or "auto", got 'best'"""):
        encoder.encode_stream([], batch_size="best")
