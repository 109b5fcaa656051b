"""How the search service bears many clients at once, beside S3's table V.

The service runs as a process of its own; the clients are this one: bare HTTP over asyncio, as
they share the machine with what they measure.
"""

import asyncio
import itertools
import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regionlab.index.index import Index
from regionlab.runs.record import describe_device
from regionlab.service.process import run_service
from regionlab.util import paths
from regionlab.util.timing import summarise_measure

KINDS = ("words", "image", "region")
K = 10
EACH = 6  # questions of each client in a round of a ratio
# S3, table V: milliseconds from and to, 9,630 images, its own machine.
TABLE_V = {"encode": [85, 120], "search": [0, 5], "total": [120, 150]}


@dataclass(frozen=True)
class Asked:
    """A request and how it went.

    Attributes
    ----------
    kind
        "words", "image" or "region".
    seconds
        From the first byte sent to the last one read.
    right
        Whether it was answered by 200, with as many results as asked for and, where the query
        is an image of the collection, that image first.
    parts
        Seconds by stage, as the service tells them.
    """

    kind: str
    seconds: float
    right: bool
    parts: dict[str, float]


@dataclass(frozen=True)
class Question:
    """A search in multipart, and what must stand in its answer."""

    kind: str
    body: bytes
    expected: bytes


def measure_service(
    *, seconds: float = 60, clients: int = 50, images: int = 1000, rounds: int = 3
) -> dict[str, Any]:
    """Measure the service under many clients on loopback, and what batching gains.

    The clients ask in turn by words, by a whole picture that they send, and by a box on a
    picture that they send, never the same twice in a row. First all of them for `seconds`, once
    every question has been asked; then in rounds one client alone, and all of them on a service
    with and on one without batching, each as many questions of each kind.

    Parameters
    ----------
    seconds
        Of the long run.
    clients
        How many ask at once.
    images
        Of Toybox, test, that are searched; indexed with their regions on first use.
    rounds
        Of the ratios.

    Returns
    -------
    dict
        `ratio_batched`: requests per second of all clients over those of one that asks one
        query after another; `ratio_vs_unbatched`: over those of all clients without batching.
        `latency_ms` (median and 95th percentile), `requests`, `errors`, `memory_mb` before and
        after, `parts_ms` by kind and stage for one client alone, beside `s3_table_v_ms`.
    """
    index = prepare_index(images)
    questions = make_questions(index)
    with run_service(index.folder, batch=32) as served, run_service(index.folder, batch=1) as plain:
        drive(plain.port, questions, clients, each=EACH)
        # Every question once: after these the caches are as full as they become.
        drive(served.port, questions, clients, each=len(questions) // clients)
        before = served.memory()
        started = time.perf_counter()
        long = drive(served.port, questions, clients, seconds=seconds)
        took = time.perf_counter() - started
        after = served.memory()
        sides = {"alone": (served, 1), "unbatched": (plain, clients), "batched": (served, clients)}
        runs: dict[str, list[list[Asked]]] = {name: [] for name in sides}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number, (name, (service, many)) in itertools.product(range(rounds), sides.items()):
            skip = (number + 1) * len(questions) // (rounds + 1)
            # one client asks a tenth of what all ask together
            each = EACH if many > 1 else EACH * max(1, clients // 10)
            started = time.perf_counter()
            runs[name].append(drive(service.port, questions, many, each=each, skip=skip))
            rates[name].append(len(runs[name][-1]) / (time.perf_counter() - started))
        batches = served.ask_health()["batches"]["images"]
    everything = [long, *itertools.chain(*runs.values())]
    return {
        "ratio_batched": summarise_measure(np.divide(rates["batched"], rates["alone"])),
        "ratio_vs_unbatched": summarise_measure(np.divide(rates["batched"], rates["unbatched"])),
        "requests_per_second": round(len(long) / took, 1),
        "latency_ms": {"all": describe_latency(long), **_by_kind(describe_latency, long)},
        "requests": len(long),
        "errors": sum(not asked.right for run in everything for asked in run),
        "memory_mb": {"before": before, "after": after},
        "images_per_batch": round(batches["items"] / batches["calls"], 2),
        "parts_ms": _by_kind(describe_parts, list(itertools.chain(*runs["alone"]))),
        "s3_table_v_ms": TABLE_V,
        "seconds": seconds,
        "clients": clients,
        "images": len(index),
        "regions": len(index.regions),
        "device": describe_device(),
    }


def prepare_index(images: int) -> Index:
    """Return the index of so many Toybox images with regions, built where it is not there."""
    from regionlab.index.build import add_regions, build_index
    from regionlab.models.registry import (
        load_encoder,  # late: an index that is there needs no torch
        load_segmenter,
    )
    from toybox import load_toybox
    from toybox.disk import SIZES

    encoder, segmenter = load_encoder(), load_segmenter()
    collection = load_toybox(count=images)
    count = None if images == SIZES["test"] else str(images)
    folder = paths.index_folder("toybox", "test", count, encoder.name, "regions")
    return add_regions(build_index(collection, encoder, folder), segmenter, encoder)


# Questions


def make_questions(index: Index) -> list[Question]:
    """Return three questions about each image of an index: by words, by itself, by a region."""
    questions = []
    for row, name in enumerate(index.images["image_id"]):
        picture = index.path(row).read_bytes()
        itself = f'"results":[{{"image_id":"{name}"'.encode()
        box = dict(zip(("x0", "y0", "x1", "y1"), find_box(index, row), strict=True))
        prompts = json.dumps([{"kind": "box", **box}]).encode()
        questions += [
            _make_question("words", b'"rank":10,', words=f"a thing of number {row}".encode()),
            _make_question("image", itself, image=picture),
            _make_question("region", b'"regions":[{', image=picture, prompts=prompts),
        ]
    return questions


def find_box(index: Index, row: int) -> list[float]:
    """Return the box of an image's largest region that is not its ground, XYXY in pixels."""
    image, regions = index.images.iloc[row], index.regions.iloc[index.regions_of(row)]
    things = regions[regions["area"] < image["width"] * image["height"] / 2]
    if not len(things):
        return [0.0, 0.0, float(image["width"]), float(image["height"])]
    return things.loc[things["area"].idxmax(), ["x0", "y0", "x1", "y1"]].astype(float).tolist()


def _make_question(kind: str, expected: bytes, **fields: bytes) -> Question:
    parts = []
    for name, value in {**fields, "k": str(K).encode()}.items():
        file = '; filename="a.jpg"' if name == "image" else ""
        head = f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts += [head.encode(), value, b"\r\n"]
    return Question(kind, b"".join([*parts, b"--x--\r\n"]), expected)


# Clients


def drive(
    port: int,
    questions: Sequence[Question],
    clients: int,
    *,
    each: int | None = None,
    seconds: float = math.inf,
    skip: int = 0,
) -> list[Asked]:
    """Let clients ask one question after another; return all answers.

    Parameters
    ----------
    clients
        Each begins at a place of its own among the questions, and goes round.
    each
        How many questions of each client.
    seconds
        Nobody begins another question after these.
    skip
        Begin so many questions later: what a client has asked of late is remembered.
    """
    questions = _turn(questions, skip % len(questions))
    return asyncio.run(_drive(port, questions, clients, each, time.perf_counter() + seconds))


async def _drive(
    port: int, questions: Sequence[Question], clients: int, each: int | None, end: float
) -> list[Asked]:
    starts = np.linspace(0, len(questions), clients, endpoint=False).astype(int)
    asking = [
        _ask_until(
            end,
            port,
            f"client-{number:012d}",
            itertools.islice(itertools.cycle(_turn(questions, int(start))), each),
        )
        for number, start in enumerate(starts)
    ]
    return list(itertools.chain(*await asyncio.gather(*asking)))


def _turn(questions: Sequence[Question], start: int) -> list[Question]:
    return [*questions[start:], *questions[:start]]


async def _ask_until(
    end: float, port: int, name: str, questions: Iterator[Question]
) -> list[Asked]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = []
    for question in questions:
        if time.perf_counter() >= end:
            break
        asked.append(await _ask(reader, writer, name, question))
    writer.close()
    return asked


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, question: Question
) -> Asked:
    head = (
        f"POST /search HTTP/1.1\r\nHost: localhost\r\nCookie: visitor={name}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(question.body)}\r\n\r\n"
    )
    started = time.perf_counter()
    writer.write(head.encode() + question.body)
    answer = await reader.readuntil(b"\r\n\r\n")
    body = await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
    seconds = time.perf_counter() - started
    right = answer.startswith(b"HTTP/1.1 200") and question.expected in body
    told = re.search(rb'"seconds":(\{[^}]*\})', body)
    return Asked(question.kind, seconds, right, json.loads(told[1]) if told else {})


# Summaries


def _by_kind(describe: Callable[[list[Asked]], Any], asked: Sequence[Asked]) -> dict[str, Any]:
    return {kind: describe([one for one in asked if one.kind == kind]) for kind in KINDS}


def describe_latency(asked: Sequence[Asked]) -> dict[str, Any]:
    """Return median and 95th percentile in milliseconds, and of how many."""
    milliseconds = [1000 * one.seconds for one in asked] or [np.nan]
    median, p95 = (round(float(np.percentile(milliseconds, q)), 1) for q in (50, 95))
    return {"median": median, "p95": p95, "n": len(asked)}


def describe_parts(asked: Sequence[Asked]) -> dict[str, float]:
    """Return the median milliseconds of each stage, and from the client's side."""
    told = [one.parts for one in asked if one.parts]
    stages = told[0] if told else ()
    medians = {stage: statistics.median(parts[stage] for parts in told) for stage in stages}
    row = {stage: round(1000 * value, 2) for stage, value in medians.items()}
    return row | {"client": describe_latency(asked)["median"]}
