"""Measure speed and write `figures/bench.json`: `regionlab bench [ENTRY ...]`.

Every ratio's two sides are measured in the same run. Entries not measured again are kept.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from regionlab.runs.record import PRIVATE, describe_device, git_state, new_record, redact_paths
from regionlab.util.errors import InputError
from regionlab.util.files import to_json, write_json
from regionlab.util.paths import FIGURES

FILE = FIGURES / "bench.json"
GPU = "gpu"  # under which results on a GPU go, beside those on the processor
OF_AN_ENTRY = ("commit", "dirty", "started", "device")  # what a kept entry brings along


def _late(module: str, function: str) -> Callable[[], dict[str, Any]]:
    """Import what measures when it is called: to list the entries needs no torch."""
    return lambda: getattr(import_module(f"regionlab.bench.{module}"), function)()


ENTRIES: dict[str, Callable[[], dict[str, Any]]] = {
    "index": _late("indexing", "measure_indexing"),
    "prompt_loop": _late("searching", "measure_prompt_loop"),
    "regions": _late("searching", "measure_region_encoding"),
    "regions_build": _late("regions", "measure_regions_build"),
    "combiner": _late("indexing", "measure_combiner"),
    "search": _late("searching", "measure_search"),
    "service": _late("serving", "measure_service"),
    "cold_start": _late("serving", "measure_cold_start"),
}


def run_bench(names: Sequence[str] = (), *, file: Path = FILE) -> dict[str, Any]:
    """Measure entries and write them to a file, beside those that it already holds.

    Parameters
    ----------
    names
        Names in `ENTRIES`; none means all.
    file
        Gets `{"record": {...}, "results": {entry: {...}}}`, on a GPU `{"gpu": {entry: ...}}`;
        the record's `entries` say when and on what each was measured. This is returned.

    Raises
    ------
    InputError
        If an entry is unknown, or the file is there and is none of ours.
    """
    unknown = [name for name in names if name not in ENTRIES]
    if unknown:
        raise InputError(f"unknown entry {unknown[0]!r}; known: {', '.join(ENTRIES)}")
    content = _read(file)
    state = git_state()  # of the start: the file itself changes from here on
    for name in names or ENTRIES:
        record = (
            new_record("bench", run="bench", profile="bench", parameters={"entry": name}) | state
        )
        started = time.perf_counter()
        measured = to_json(ENTRIES[name]())
        seconds = round(time.perf_counter() - started, 1)
        record |= {"status": "ok", "device": describe_device(), "seconds": seconds}
        results, name = _find_place(content["results"], name, record["device"])
        results[name.rpartition("/")[2]] = measured
        record = {key: value for key, value in redact_paths(record).items() if key not in PRIVATE}
        entries = content["record"].get("entries", {})
        record["entries"] = {**entries, name: {key: record[key] for key in OF_AN_ENTRY}}
        content["record"] = record
        write_json(file, content)
    return content


def _find_place(results: dict[str, Any], name: str, device: str) -> tuple[dict[str, Any], str]:
    """Return where an entry's results go, and its name in the record: a GPU has its own."""
    if device.startswith("cuda"):
        return results.setdefault(GPU, {}), f"{GPU}/{name}"
    return results, name


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {"record": dict(content["record"]), "results": dict(content["results"])}
    except FileNotFoundError:
        return {"record": {}, "results": {}}
    except (ValueError, KeyError, TypeError) as e:
        raise InputError(f"{file} is not a file of benchmarks: {e!r}; remove it") from e


def describe_ratios(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the ratios of all entries as a table, one a line."""
    rows = [("entry", "ratio", "median", "range"), *_list_ratios(results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _list_ratios(results: Mapping[str, Any], entry: str = "") -> Iterator[tuple[str, ...]]:
    for name, measure in results.items():
        if not isinstance(measure, dict):
            continue
        if "range" not in measure:
            yield from _list_ratios(measure, f"{entry} {name}".strip())
        elif "ratio_" in f"{entry} {name}" or "_vs_" in f"{entry} {name}":
            low, high = measure["range"]
            yield entry, name, f"{measure['value']:.2f}", f"{low:.2f} to {high:.2f}"
