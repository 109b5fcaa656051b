"""Parts of a batch are computed in threads with their share of torch's threads, and in order."""

import threading

import numpy as np
import pytest
import torch

from regionlab.models.pipeline import LEAST_PART, SideBySide, map_in_threads

CPU = torch.device("cpu")


def describe(part):
    return list(part), torch.get_num_threads(), threading.current_thread()


@pytest.fixture
def side_by_side(threads):
    made = []

    def make(count, device=CPU):
        threads(count)
        made.append(SideBySide(device))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("count", [64, 70, 79])
def test_parts_follow_each_other_and_come_back_in_order(side_by_side, count):
    parts = [part for part, _, _ in side_by_side(4).map(describe, range(count))]
    assert sum(parts, []) == list(range(count))
    assert len(parts) == 4 and min(map(len, parts)) >= LEAST_PART
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(("count", "shares"), [(64, [1] * 4), (32, [2, 2]), (31, [4])])
def test_the_parts_share_torchs_threads(side_by_side, count, shares):
    assert [share for _, share, _ in side_by_side(4).map(describe, range(count))] == shares


def test_a_share_lasts_over_the_operations_of_a_thread(side_by_side):
    def compute(part):
        torch.rand(300, 300) @ torch.rand(300, 300)
        return torch.get_num_threads()

    model = side_by_side(4)
    assert model.map(compute, range(64)) == model.map(compute, range(64)) == [1] * 4


def test_torchs_threads_stay_as_they_were_here_and_in_threads_to_come(side_by_side):
    side_by_side(4).map(describe, range(64))
    assert torch.get_num_threads() == 4
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [4]


def test_a_small_batch_starts_no_thread(side_by_side):
    [(_, _, thread)] = side_by_side(4).map(describe, range(2 * LEAST_PART - 1))
    assert thread is threading.current_thread()


def test_elsewhere_than_on_a_cpu_a_batch_stays_whole(side_by_side):
    [(part, share, _)] = side_by_side(4, torch.device("cuda")).map(describe, range(64))
    assert len(part) == 64 and share == 4


def test_an_error_in_a_part_reaches_the_caller(side_by_side):
    def fail(part):
        raise FloatingPointError(str(part[0]))

    with pytest.raises(FloatingPointError, match="0"):
        side_by_side(2).map(fail, range(32))


def test_closing_ends_the_threads(side_by_side):
    before = threading.active_count()
    model = side_by_side(2)
    model.map(describe, range(32))
    assert threading.active_count() == before + 2
    model.close()
    assert threading.active_count() == before


def test_vectors_do_not_depend_on_the_threads(encoder, threads):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (2 * LEAST_PART + 1, 40, 50, 3), dtype=np.uint8))
    found = []
    for count in (1, 2):
        threads(count)
        found.append(encoder.encode_images(images))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


# Items one by one, each by a thread of its own


def test_items_come_back_in_order_from_threads_that_each_made_their_function(threads):
    threads(3)
    made = []

    def make():
        made.append(threading.current_thread())
        return lambda item: (item, torch.get_num_threads(), threading.current_thread())

    items, shares, owners = zip(*map_in_threads(make, range(50), CPU), strict=True)
    assert items == tuple(range(50))
    assert set(shares) == {1}
    assert set(owners) == set(made) and len(made) <= 3
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("count", "device"), [(1, CPU), (3, torch.device("cuda"))])
def test_on_one_core_or_a_gpu_nothing_is_done_side_by_side(threads, count, device):
    threads(count)
    owners = set(map_in_threads(lambda: lambda _: threading.current_thread(), range(5), device))
    assert owners == {threading.current_thread()}


def test_few_items_are_taken_ahead_of_what_is_read(threads):
    threads(2)
    taken = []
    found = map_in_threads(
        lambda: lambda item: item, (taken.append(i) or i for i in range(99)), CPU
    )
    assert next(found) == 0
    assert len(taken) <= 2 * 2 + 1
    found.close()


def test_an_error_comes_out_where_its_item_was(threads):
    threads(2)

    def divide(item):
        return 6 // item

    found = map_in_threads(lambda: divide, [1, 2, 0, 3], CPU)
    assert [next(found), next(found)] == [6, 3]
    with pytest.raises(ZeroDivisionError):
        next(found)
