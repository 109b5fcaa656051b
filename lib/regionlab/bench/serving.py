"""How the search service bears many clients at once, beside S3's table V.

The service runs as a process of its own; the clients share this one and its machine.
"""

import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice, product
from typing import Any

import httpx
import numpy as np

from regionlab.index.index import Index
from regionlab.runs.record import describe_device
from regionlab.service.process import find_box, prepare_index, run_service
from regionlab.util.progress import summarise_measure, time_interleaved

KINDS = ("words", "image", "region")
K = 10
EACH = 6  # questions of each client in a round of a ratio
# S3, table V: milliseconds from and to, 9,630 images, its own machine.
TABLE_V = {"encode": [85, 120], "search": [0, 5], "total": [120, 150]}


@dataclass(frozen=True)
class Response:
    """A request and how it went."""

    kind: str  # of KINDS
    seconds: float  # from sending it to the last byte of the answer
    right: bool  # answered by 200 and what was expected
    parts: dict[str, float]  # seconds by stage, as the service tells them


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

    The clients ask in turn by words, by an image that they send, and by a box on one, never the
    same twice in a row. First all of them for `seconds`, once every question has been asked;
    then in rounds one client alone, and all of them on a service with and on one without
    batching, each as many questions of each kind. `images` of Toybox's test split are searched.

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
        runs: dict[str, list[list[Response]]] = {name: [] for name in sides}
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number, (name, (service, many)) in product(range(rounds), sides.items()):
            skip = (number + 1) * len(questions) // (rounds + 1)
            # one client asks a tenth of what all ask together
            each = EACH if many > 1 else EACH * max(1, clients // 10)
            started = time.perf_counter()
            runs[name].append(drive(service.port, questions, many, each=each, skip=skip))
            rates[name].append(len(runs[name][-1]) / (time.perf_counter() - started))
        batches = served.ask_health()["batches"]["images"]
    everything = [long, *chain(*runs.values())]
    return {
        "ratio_batched": summarise_measure(np.divide(rates["batched"], rates["alone"])),
        "ratio_vs_unbatched": summarise_measure(np.divide(rates["batched"], rates["unbatched"])),
        "requests_per_second": round(len(long) / took, 1),
        "latency_ms": {"all": describe_latency(long), **_by_kind(describe_latency, long)},
        "requests": len(long),
        "errors": sum(not asked.right for run in everything for asked in run),
        "memory_mb": {"before": before, "after": after},
        "images_per_batch": round(batches["items"] / batches["calls"], 2),
        "parts_ms": _by_kind(describe_parts, list(chain(*runs["alone"]))),
        "s3_table_v_ms": TABLE_V,
        "seconds": seconds,
        "clients": clients,
        "images": len(index),
        "regions": len(index.regions),
        "device": describe_device(),
    }


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
) -> list[Response]:
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
) -> list[Response]:
    starts = np.linspace(0, len(questions), clients, endpoint=False).astype(int)
    asking = [
        _ask_until(end, port, f"client-{number:012d}", islice(cycle(_turn(questions, start)), each))
        for number, start in enumerate(starts)
    ]
    return list(chain(*await asyncio.gather(*asking)))


def _turn(questions: Sequence[Question], start: int) -> list[Question]:
    return [*questions[start:], *questions[:start]]


async def _ask_until(
    end: float, port: int, name: str, questions: Iterator[Question]
) -> list[Response]:
    headers = {"Cookie": f"visitor={name}", "Content-Type": "multipart/form-data; boundary=x"}
    address = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(
        base_url=address, headers=headers, timeout=None, trust_env=False
    ) as client:
        asked = []
        for question in questions:
            if time.perf_counter() >= end:
                break
            asked.append(await _ask(client, question))
        return asked


async def _ask(client: httpx.AsyncClient, question: Question) -> Response:
    started = time.perf_counter()
    answer = await client.post("/search", content=question.body)
    seconds = time.perf_counter() - started
    right = answer.status_code == 200 and question.expected in answer.content
    parts = answer.json()["seconds"] if answer.status_code == 200 else {}
    return Response(question.kind, seconds, right, parts)


# Summaries


def _by_kind(
    describe: Callable[[list[Response]], Any], asked: Sequence[Response]
) -> dict[str, Any]:
    return {kind: describe([one for one in asked if one.kind == kind]) for kind in KINDS}


def describe_latency(asked: Sequence[Response]) -> dict[str, Any]:
    """Return median and 95th percentile in milliseconds, and of how many."""
    milliseconds = [1000 * one.seconds for one in asked] or [np.nan]
    median, p95 = (round(float(np.percentile(milliseconds, q)), 1) for q in (50, 95))
    return {"median": median, "p95": p95, "n": len(asked)}


def describe_parts(asked: Sequence[Response]) -> dict[str, float]:
    """Return the median milliseconds of each stage, and from the client's side."""
    told = [one.parts for one in asked if one.parts]
    stages = told[0] if told else ()
    medians = {stage: statistics.median(parts[stage] for parts in told) for stage in stages}
    row = {stage: round(1000 * value, 2) for stage, value in medians.items()}
    return row | {"client": describe_latency(asked)["median"]}


def measure_cold_start(*, images: int = 200, rounds: int = 5) -> dict[str, Any]:
    """Measure the first answer of `regionlab search` in a new process.

    Returns
    -------
    dict
        `seconds` of the command, and `ratio_vs_import_torch`: to those of `python -c
        "import torch"` in the same round. The files are in the machine's cache.
    """
    folder = str(prepare_index(images).folder)
    asked = [sys.executable, "-m", "regionlab.cli", "search", folder, "a red star"]
    commands = {"search": asked, "torch": [sys.executable, "-c", "import torch"]}
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    sides = {name: partial(run, command) for name, command in commands.items()}
    times = {name: found[1:] for name, found in time_interleaved(sides, rounds + 1).items()}
    ratios = [a / b for a, b in zip(times["search"], times["torch"], strict=True)]
    return {
        "seconds": summarise_measure(times["search"]),
        "ratio_vs_import_torch": summarise_measure(ratios),
        "images": images,
    }
