"""Pictures of strangers are unpacked in processes that can be killed, and nothing is left."""

import asyncio
import time
from io import BytesIO

import numpy as np
import psutil
import pytest
from PIL import Image

from regionlab.data.images import MAX_SCANS, ImageError, count_scans, read_image
from regionlab.service.work import CHEAP, ByteBudget, DecodeError, Decoder, Decoders, begin_work
from service_attacks import make_progressive, make_spaced_ppm, save

GIB = 2**30


# Scans


@pytest.mark.parametrize("scans", [12, 100])
def test_scans_are_counted(scans):
    assert count_scans(make_progressive(scans, side=64)) == scans


def test_counting_ends_above_the_most():
    assert count_scans(make_progressive(5000, side=64)) == MAX_SCANS + 1


def test_a_plain_jpeg_has_one_scan_whatever_its_segments_hold():
    thumbnail = make_progressive(50, side=16)
    data = save("JPEG", 64)
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    assert count_scans(data) == 1
    assert count_scans(data[:2] + segment + data[2:]) == 1
    assert count_scans(data + make_progressive(50, side=16)) == 1  # after its end


def test_counting_takes_linear_time():
    started = time.perf_counter()
    for filler in (b"\xff", b"\xff\x00", b"\xff\xd0", b"\xff\xe1\x00\x02", b"\xff\xe1\x00\x00"):
        count_scans(b"\xff\xd8" + filler * (2**22 // len(filler)) + b"\x00")
    assert time.perf_counter() - started < 5


def test_nobody_reads_a_jpeg_of_too_many_scans(tmp_path):
    data = make_progressive(MAX_SCANS + 1, side=64)
    (tmp_path / "bomb.jpg").write_bytes(data)
    for source in (data, tmp_path / "bomb.jpg"):
        with pytest.raises(ImageError, match="more than 100 progressive scans"):
            read_image(source)
    assert read_image(make_progressive(MAX_SCANS, side=64)).shape == (64, 64, 3)


# One process


@pytest.fixture
def decoder():
    decoder = Decoder(2 * GIB)
    yield decoder
    decoder.close()


def read(decoder, data, seconds=5.0):
    return decoder.ask("read", data, seconds)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "TIFF", "BMP", "PPM"])
def test_pixels_are_those_of_the_library(decoder, format):
    data = save(format, 90)
    told, pixels = read(decoder, data)
    np.testing.assert_array_equal(pixels, read_image(data))
    told, _ = decoder.ask("peek", data, 5.0)
    assert (told["size"], told["scans"], told["format"]) == ([90, 90], 1, format)


def test_a_damaged_file_is_told_and_the_process_goes_on(decoder):
    told, _ = read(decoder, save("PNG", 90)[:500])
    assert told["error"].startswith("damaged")
    process = decoder._process
    assert read(decoder, save("PNG", 20))[1].shape == (20, 20, 3)
    assert decoder._process is process


def test_what_takes_too_long_ends_with_its_process_and_another_goes_on(decoder):
    read(decoder, save("PNG", 20))
    process = decoder._process
    started = time.perf_counter()
    with pytest.raises(DecodeError, match=r"more than 0\.05 seconds of a processor"):
        read(decoder, make_progressive(100, side=3000), 0.05)
    assert process.poll() is not None
    assert time.perf_counter() - started < 10
    assert read(decoder, save("PNG", 20))[1].shape == (20, 20, 3)


def test_a_header_that_takes_too_long_is_no_other_matter(decoder):
    with pytest.raises(DecodeError):
        decoder.ask("peek", make_spaced_ppm(2**24), 0.2)


def test_what_takes_too_much_memory_is_refused():
    decoder = Decoder(GIB // 2)
    try:
        small, large = save("PNG", 20), BytesIO()
        Image.new("RGBA", (12_000, 7_000)).save(large, "PNG", compress_level=1)
        assert read(decoder, small)[1].shape == (20, 20, 3)
        try:
            told, _ = read(decoder, large.getvalue())
        except DecodeError:
            told = {"error": "killed"}
        assert told["error"]
        assert read(decoder, small)[1].shape == (20, 20, 3)
    finally:
        decoder.close()


def test_the_end_leaves_no_process(decoder):
    read(decoder, save("PNG", 20))
    child = psutil.Process(decoder._process.pid)
    decoder.close()
    assert not child.is_running()


# Several


def run(work):
    async def go():
        decoders = Decoders(2 * GIB)
        try:
            return await work(decoders)
        finally:
            await asyncio.to_thread(decoders.close)

    return asyncio.run(go())


def test_large_pictures_leave_a_process_to_small_ones():
    slow, quick = make_progressive(100, side=3000), save("PNG", 20)

    async def work(decoders):
        done = []

        async def ask(name, data, cost):
            await decoders.ask("read", data, cost=cost, seconds=30)
            done.append(name)

        large = [ask(f"large {i}", slow, 10 * CHEAP) for i in range(2)]
        await asyncio.gather(*large, *(ask("small", quick, 400) for _ in range(5)))
        return done

    assert run(work)[:5] == ["small"] * 5


def test_who_gives_up_stops_the_work_and_only_then_gives_back_the_room():
    slow = make_progressive(100, side=4000)

    async def work(decoders):
        room, quick = ByteBudget(100), save("PNG", 20)
        await decoders.ask("read", quick, cost=1, seconds=30)  # it has started

        async def ask():
            with begin_work():
                async with room.hold(100):
                    await decoders.ask("read", slow, cost=CHEAP, seconds=30)

        task = asyncio.create_task(ask())
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        at_once, started = room.free, time.perf_counter()
        while room.free < 100:
            await asyncio.sleep(0.01)
        return at_once, time.perf_counter() - started

    at_once, later = run(work)
    assert at_once == 0
    assert later < 5  # the picture alone would take longer


def test_who_waits_in_line_and_gives_up_takes_no_process():
    async def work(decoders):
        quick = save("PNG", 20)
        slow = [
            asyncio.create_task(decoders.ask("read", make_progressive(60, 2000), cost=1, seconds=9))
            for _ in range(2)
        ]
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(decoders.ask("read", quick, cost=1, seconds=9))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(*slow, waiting, return_exceptions=True)
        both = [decoders.ask("read", quick, cost=1, seconds=9) for _ in range(4)]
        return [pixels.shape for _, pixels in await asyncio.gather(*both)]

    assert run(work) == [(20, 20, 3)] * 4
