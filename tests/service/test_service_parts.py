"""The parts of the search service by themselves: batches, outlines, memory, limits."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.path import Path as Outline

from regionlab.data.masks import mask_to_box
from regionlab.data.prompts import Box
from regionlab.service.gallery import mask_to_path
from regionlab.service.inference import Batcher
from regionlab.service.limits import Counters, Limits, RequestLog
from regionlab.service.sessions import Picture, Visitors
from regionlab.service.work import ByteBudget

# Batches


def ask_all(function, items, *, largest=32):
    """Ask for all items at once; return the answers and the batcher."""

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(function, pool, largest=largest)
            asked = [batcher.ask(item) for item in items]
            return await asyncio.gather(*asked, return_exceptions=True), batcher

    return asyncio.run(run())


def double(items):
    return [2 * item for item in items]


def test_each_question_gets_its_own_answer():
    answers, _ = ask_all(double, [3, 1, 2])
    assert answers == [6, 2, 4]


@pytest.mark.parametrize(
    ("largest", "expected"), [(4, [4, 2, 1]), (3, [2, 2, 2, 1]), (8, [4, 2, 1])]
)
def test_questions_that_wait_go_together_by_powers_of_two(largest, expected):
    sizes = []
    ask = lambda items: sizes.append(len(items)) or items  # noqa: E731
    _, batcher = ask_all(ask, range(7), largest=largest)
    assert sizes == expected
    assert (batcher.calls, batcher.items) == (len(expected), 7)


def test_a_question_that_fails_does_not_spoil_the_others():
    def invert(items):
        return [1 / item for item in items]

    answers, _ = ask_all(invert, [2, 0, 4])
    assert [answers[0], answers[2]] == [1 / 2, 1 / 4]
    assert isinstance(answers[1], ZeroDivisionError)


def test_a_question_that_nobody_waits_for_is_not_put():
    seen, gate = [], threading.Event()

    def look(items):
        gate.wait(5)
        seen.extend(items)
        return items

    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(look, pool, largest=1)
            first, second, third = (asyncio.create_task(batcher.ask(i)) for i in range(3))
            await asyncio.sleep(0.05)  # the first is being answered
            second.cancel()
            gate.set()
            await asyncio.gather(first, third)

    asyncio.run(run())
    assert seen == [0, 2]


def test_the_batcher_works_again_after_a_rest():
    async def run():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(double, pool)
            return [await batcher.ask(1), await batcher.ask(2)]

    assert asyncio.run(run()) == [2, 4]


# Outlines


def fill(path, shape):
    """Return the pixels whose centres an SVG path of lines encloses, by the even-odd rule."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for line in path.strip("M").split("M"):
        corners = [tuple(map(float, point.split())) for point in line.strip("Z").split("L")]
        outline = Outline([*corners, corners[0]])
        inside ^= outline.contains_points(np.c_[x.ravel(), y.ravel()]).reshape(shape)
    return inside


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_encloses_the_pixels_of_its_mask(seed):
    mask = np.random.default_rng(seed).random((9, 14)) < 0.6
    np.testing.assert_array_equal(fill(mask_to_path(mask), mask.shape), mask)


def test_the_outline_of_a_full_image_follows_its_edge():
    numbers = mask_to_path(np.ones((4, 6), bool)).strip("MZ").replace("L", " ").split()
    assert {float(n) for n in numbers[::2]} == {0, 0.5, 5.5, 6}
    assert {float(n) for n in numbers[1::2]} == {0, 0.5, 3.5, 4}


def test_a_large_mask_is_outlined_in_coarser_steps_at_its_own_place():
    mask = np.zeros((400, 800), bool)
    mask[97:297, 203:601] = True
    inside = fill(mask_to_path(mask, side=100), mask.shape)
    assert np.abs(mask_to_box(inside) - [203, 97, 601, 297]).max() <= 4  # half a step


def test_an_empty_mask_has_no_outline():
    assert mask_to_path(np.zeros((4, 4), bool)) == ""


# Memory


def make_visitors(**bounds):
    return Visitors(lambda pictures: f"segmenter for {pictures}", Limits(**bounds))


def picture(name, side=10):
    return Picture(name, np.zeros((side, side, 3), np.uint8))


def test_the_picture_not_used_for_longest_is_forgotten():
    visitor = make_visitors(pictures=2).get("ann")
    for name in "ab":
        visitor.keep(picture(name))
    visitor.find("a")
    visitor.keep(picture("c"))
    assert [name for name in "abc" if visitor.find(name)] == ["a", "c"]


def test_the_visitor_not_seen_for_longest_is_forgotten():
    visitors = make_visitors(visitors=2)
    first = visitors.get("ann")
    visitors.get("bob")
    assert visitors.get("ann") is first
    visitors.get("eve")
    assert visitors.get("ann") is first
    assert len(visitors) == 2


def test_visitors_are_forgotten_when_their_pictures_take_too_much_room():
    visitors = make_visitors(cache_bytes=700)  # a picture has 300
    for name in ("ann", "bob", "eve"):
        visitors.get(name).keep(picture("x"))
    visitors.trim()
    assert (len(visitors), visitors.pictures) == (2, 2)


def test_what_the_segmenter_keeps_of_a_picture_counts_too():
    visitors = Visitors(lambda pictures: None, Limits(cache_bytes=1700), encoded_bytes=500)
    for name in ("ann", "bob", "eve"):
        visitors.get(name).keep(picture("x"))  # 300, and 500 encoded
    visitors.trim()
    assert len(visitors) == 2


def test_visitors_do_not_see_each_other_s_pictures():
    visitors = make_visitors()
    visitors.get("ann").keep(picture("x"))
    assert visitors.get("bob").find("x") is None


def test_only_so_many_answers_of_a_picture_are_kept():
    one = picture("x")
    for i in range(1000):
        one.remember(Box(0, 0, 1, 1 + i), "nothing")
    assert len(one.answers) == 64
    assert Box(0, 0, 1, 1000) in one.answers


# Limits and counters


def test_who_finds_no_room_waits_for_it():
    async def run():
        room, order = ByteBudget(100), []

        async def work(name, size, seconds):
            async with room.hold(size):
                order.append(name)
                await asyncio.sleep(seconds)
                order.append(name)

        await asyncio.gather(work("a", 60, 0.05), work("b", 60, 0), work("c", 40, 0))
        return order, room.free

    assert asyncio.run(run()) == (["a", "c", "c", "a", "b", "b"], 100)


def test_who_wants_more_room_than_there_is_gets_it_all():
    async def run():
        room = ByteBudget(100)
        async with room.hold(1000):
            return room.free

    assert asyncio.run(run()) == 0


def test_room_is_given_back_by_who_fails_or_is_given_up():
    async def run():
        room = ByteBudget(100)

        async def fail():
            async with room.hold(100):
                raise KeyError

        async def sleep():
            async with room.hold(100):
                await asyncio.sleep(10)

        with pytest.raises(KeyError):
            await fail()
        tasks = [asyncio.create_task(sleep()) for _ in range(2)]  # one in the room, one waiting
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return room.free

    assert asyncio.run(run()) == 100


def test_a_limit_of_nothing_is_refused():
    with pytest.raises(ValueError, match="seconds must be above 0, not 0"):
        Limits(seconds=0)


def test_unknown_methods_and_paths_do_not_add_up_in_the_counters():
    class Route:
        path, methods = "/search", {"POST"}

    counters = Counters()
    log = RequestLog(None, counters)
    for method in ("POST", "FOO1", "FOO2"):
        log._note({"method": method, "route": Route(), "raw_path": b"/search"}, 200, 0.1, 5)
    assert counters.requests == {"POST /search": 1, "other": 2}
