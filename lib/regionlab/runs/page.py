"""One HTML page over all notebooks of a profile, which needs nothing but itself."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regionlab.runs.profiles import Profile, Run
from regionlab.runs.report import (
    flatten_results,
    own_parts,
    own_results,
    read_question,
    title_values,
)

TEMPLATE = Path(__file__).with_name("page.html.jinja")
OPEN_ROWS = 40  # longer tables are folded up
LONG_TEXT = 40  # characters from which a cell is kept wide, and broken where it must be
MARKS = {"ok": "✓", "kept": "✓", "failed": "✗", "skipped": "✗"}
BAD = ("failed", "skipped")
LEFT_OUT = ("parameters", "versions", "notebook", "run", "profile")  # of a record's facts

Record = Mapping[str, Any]


def make_report(
    profile: Profile,
    saved: Mapping[str, Mapping[str, Any]],
    folder: Path,
    endings: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the page: what ran and what failed, then each notebook's results and record.

    Parameters
    ----------
    profile
        With all its runs.
    saved
        What `read_saved` found in `folder`.
    folder
        Where the published figures are.
    endings
        Name of a run to `{"status", "message", "cell"}`, how it ended this time; of runs
        that are not in it, what is shown is from before.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                       undefined=StrictUndefined)  # fmt: skip
    own = {run.name: own_results(saved, run.name) for run in profile.runs}
    records = {name: next((c["record"] for c in of.values()), {}) for name, of in own.items()}
    bad = sum(ending["status"] in BAD for ending in endings.values())
    return page.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        name=profile.name,
        told=f"{bad} of {len(endings)} did not succeed." if bad else "None failed.",
        overview=[_summarise(run.name, records[run.name], endings) for run in profile.runs],
        runs=[
            _describe(run, own[run.name], records[run.name], folder, endings.get(run.name, {}))
            for run in profile.runs
        ],
        versions=_versions(records.values()),
        open_rows=OPEN_ROWS,
        long_text=LONG_TEXT,
    )


def _summarise(name: str, record: Record, endings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    status = endings.get(name, {}).get("status", "not run this time")
    commit = (record.get("commit") or "–")[:10] + (" + changes" if record.get("dirty") else "")
    shown = [str(record.get(key, "–")) for key in ("seconds", "device")]
    return [name, status, _date_of(record), *shown, commit]


def _date_of(record: Record) -> str:
    """Return when a run started, in UTC as records are, to the minute."""
    return str(record.get("started", "–"))[:16].replace("T", " ")


def _describe(
    run: Run, own: Mapping[str, Any], record: Record, folder: Path, ending: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the page says of a run."""
    title, subtitle = read_question(run.path)
    failed = ending.get("status") in BAD
    told = [ending.get(key, "") for key in ("status", "message", "cell")] if failed else []
    return {
        "name": run.name,
        "notebook": run.notebook,
        "title": title,
        "subtitle": subtitle,
        "mark": MARKS.get(ending.get("status", ""), "·"),
        "failure": [line for line in told if line],
        "date": _date_of(record),
        "figures": [{**one, "data": _read_image(folder / one["file"])}
                    for one in own_parts(own, "figure")],
        "tables": own_parts(own, "table"),
        "results": [_list_results(c["results"]) for c in own.values() if "results" in c],
        "known": bool(own),
        "parameters": [
            [name, json.dumps(run.parameters[name], ensure_ascii=False), parameter.comment]
            for name, parameter in run.declared.items()
        ],
        "facts": _list_facts(record),
    }  # fmt: skip


def _read_image(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


def _list_results(results: Mapping[str, Any]) -> dict[str, Any]:
    found = list(flatten_results(results))
    return {"title": title_values(found), "rows": [[row.name, row.value, row.n] for row in found]}


def _list_facts(record: Record) -> list[list[str]]:
    facts = {key: value for key, value in record.items() if key not in LEFT_OUT}
    return [
        [key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in {**facts, **facts.pop("extras", {})}.items()
    ]


def _versions(records: Iterable[Record]) -> list[list[str]]:
    """Return each package with its version, or versions if the runs differ."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in record.get("versions", {}).items():
            found.setdefault(package, {})[str(version)] = None
    return [[package, ", ".join(versions)] for package, versions in found.items()]
