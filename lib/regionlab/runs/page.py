"""One HTML page over all notebooks of a profile, which needs nothing but itself."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
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

OPEN_ROWS = 40  # longer tables are folded up
LONG_TEXT = 40  # characters from which a cell is kept wide, and broken where it must be
MARKS = {"ok": "✓", "kept": "✓", "failed": "✗", "skipped": "✗"}


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
    sections = [
        _section(run, own_results(saved, run.name), folder, endings) for run in profile.runs
    ]
    records = [_record_of(own_results(saved, run.name)) for run in profile.runs]
    body = [
        f"<h1>{escape(profile.name)}: report of {len(profile.runs)} runs</h1>",
        _overview(profile.runs, records, endings),
        *sections,
        "<section id='versions'><h2>Versions</h2>",
        _rows(["", "version"], _versions(records)),
        "</section>",
    ]
    return PAGE.format(
        title=f"regionlab: {escape(profile.name)}",
        style=STYLE,
        contents=_contents(profile.runs, endings),
        body="\n".join(body),
    )


def _section(
    run: Run, own: Mapping[str, Any], folder: Path, endings: Mapping[str, Mapping[str, Any]]
) -> str:
    title, subtitle = read_question(run.path)
    record = _record_of(own)
    parts = [
        f"<section id='{_anchor(run)}'><h2>{escape(title)}</h2>",
        f"<blockquote>{escape(subtitle)}</blockquote>" if subtitle else "",
        f"<p class='quiet'>{escape(run.name)}</p>",
        _failure(endings.get(run.name, {}), record),
        *(_figure(figure, folder) for figure in own_parts(own, "figure")),
        *(_table(table) for table in own_parts(own, "table")),
        *(_results(content["results"]) for content in own.values() if "results" in content),
        "" if own else "<p>No results yet.</p>",
        _details("Parameters", _parameters(run)),
        _details("Record", _rows(["", "value"], _facts(record))) if record else "",
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _record_of(own: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((content["record"] for content in own.values()), {})


def _anchor(run: Run) -> str:
    return f"run-{escape(run.name)}"


def _contents(runs: Sequence[Run], endings: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for run in runs:
        mark = MARKS.get(endings.get(run.name, {}).get("status", ""), "·")
        title = escape(read_question(run.path)[0])
        name = f" <small>{escape(run.name)}</small>" if run.name != run.notebook else ""
        lines.append(f"<li><a href='#{_anchor(run)}'>{mark} {title}</a>{name}</li>")
    return "\n".join([*lines, "<li><a href='#versions'>Versions</a></li>"])


def _overview(
    runs: Sequence[Run],
    records: Sequence[Mapping[str, Any]],
    endings: Mapping[str, Mapping[str, Any]],
) -> str:
    rows = []
    for run, record in zip(runs, records, strict=True):
        status = endings.get(run.name, {}).get("status", "not run this time")
        commit = (record.get("commit") or "–")[:10] + (" + changes" if record.get("dirty") else "")
        shown = [str(record.get(key, "–")) for key in ("seconds", "device")]
        rows.append([run.name, status, _date_of(record), *shown, commit])
    bad = sum(ending["status"] in ("failed", "skipped") for ending in endings.values())
    told = f"{bad} of {len(endings)} did not succeed." if bad else "None failed."
    head = ["run", "this time", "results of", "seconds", "device", "commit"]
    return f"<p><strong>{told}</strong></p>{_rows(head, rows)}"


def _failure(ending: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    if ending.get("status") not in ("failed", "skipped"):
        return ""
    lines = [ending["status"], ending.get("message", ""), ending.get("cell", "")]
    told = "<br/>".join(escape(line) for line in lines if line)
    since = f"<p>What follows is from {_date_of(record)}.</p>" if record else ""
    return f"<div class='failure'><p>{told}</p>{since}</div>"


def _date_of(record: Mapping[str, Any]) -> str:
    """Return when a run started, in UTC as records are, to the minute."""
    return escape(str(record.get("started", "–"))[:16].replace("T", " "))


def _figure(figure: Mapping[str, Any], folder: Path) -> str:
    path = folder / figure["file"]
    caption = f"<figcaption>{escape(figure['caption'])}</figcaption>"
    if not path.is_file():
        return f"<figure><p>{escape(figure['file'])} is missing.</p>{caption}</figure>"
    data = base64.b64encode(path.read_bytes()).decode()
    image = f"<img alt='{escape(figure['alt'])}' src='data:image/png;base64,{data}'/>"
    return f"<figure>{image}{caption}</figure>"


def _table(table: Mapping[str, Any]) -> str:
    files = f"{table['csv']}, {table['tex']}"
    caption = f"{escape(table['caption'])} <small>{escape(files)}</small>"
    shown = _rows(table["head"], table["rows"], table["numeric"], caption=caption)
    if len(table["rows"]) <= OPEN_ROWS:
        return shown
    return _details(f"{table['caption'] or files} ({len(table['rows'])} rows)", shown)


def _results(results: Mapping[str, Any]) -> str:
    found = list(flatten_results(results))
    head = ["metric", title_values(found), "n"]
    rows = [[row.name, row.value, row.n] for row in found]
    return _details(f"All results ({len(rows)})", _rows(head, rows, [False, True, True]))


def _parameters(run: Run) -> str:
    rows = [
        [name, json.dumps(run.parameters[name], ensure_ascii=False), parameter.comment]
        for name, parameter in run.declared.items()
    ]
    return _rows(["parameter", "value", "meaning"], rows)


def _facts(record: Mapping[str, Any]) -> list[list[str]]:
    left_out = ("parameters", "versions", "notebook", "run", "profile")
    facts = {key: value for key, value in record.items() if key not in left_out}
    return [
        [key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)]
        for key, value in {**facts, **facts.pop("extras", {})}.items()
    ]


def _versions(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return each package with its version, or versions if the runs differ."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for package, version in record.get("versions", {}).items():
            found.setdefault(package, {})[str(version)] = None
    return [[package, ", ".join(versions)] for package, versions in found.items()]


def _details(title: str, inside: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inside}</details>"


def _rows(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    numeric: Sequence[bool] | None = None,
    *,
    caption: str = "",
) -> str:
    """Return an HTML table of plain text; the caption is HTML already."""
    numeric = numeric or [False] * len(head)
    title = f"<caption>{caption}</caption>" if caption else ""
    body = "\n".join(_line("td", row, numeric) for row in rows)
    return (
        f"<div class='wide'><table>{title}<thead>{_line('th', head, numeric)}</thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _line(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    kinds = [
        "number" if number else "long" if len(cell) > LONG_TEXT else ""
        for cell, number in zip(cells, numeric, strict=True)
    ]
    inside = "".join(
        f"<{tag} class='{kind}'>{escape(cell)}</{tag}>"
        if kind
        else f"<{tag}>{escape(cell)}</{tag}>"
        for cell, kind in zip(cells, kinds, strict=True)
    )
    return f"<tr>{inside}</tr>"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav aria-label="Contents"><ol>
{contents}
</ol></nav>
<main>
{body}
</main>
</body>
</html>
"""

STYLE = """
:root { --text: #1c1e21; --quiet: #5a6068; --ground: #fff; --band: #f3f5f7; --line: #d5dae0;
  --link: #0a5fb4; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e6e9; --quiet: #a2a9b2;
  --ground: #16181b; --band: #202429; --line: #3a4048; --link: #7ab8f5; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); background: var(--ground);
  font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
nav { padding: 1rem 1.5rem; font-size: 0.875rem; background: var(--band); }
nav ol { margin: 0; padding: 0; list-style: none; }
nav li { margin: 0.3rem 0; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
h1 { line-height: 1.2; }
h2 { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); line-height: 1.25; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); }
figure { margin: 1.5rem 0; }
figure img { display: block; max-width: min(100%, 58rem); height: auto; padding: 0.5rem;
  background: #fff; border-radius: 4px; }
figcaption, caption, .quiet, small { color: var(--quiet); font-size: 0.875rem; }
caption { text-align: left; padding-bottom: 0.4rem; }
.wide { overflow-x: auto; margin: 1.5rem 0; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
thead tr { border-top: 2px solid var(--text); border-bottom: 1px solid var(--text); }
tbody { border-bottom: 2px solid var(--text); }
tbody tr:nth-child(even) { background: var(--band); }
th, td { padding: 0.3rem 0.7rem; text-align: left; vertical-align: top; }
.long { min-width: 14rem; overflow-wrap: anywhere; }
.number { text-align: right; white-space: nowrap; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
.failure { padding: 0.2rem 1rem; border-left: 4px solid var(--bad); background: var(--band); }
@media (min-width: 80rem) {
  body { display: grid; grid-template-columns: 19rem 1fr; }
  nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; }
  main { margin: 0; padding-left: 3rem; }
}
@media print { nav { display: none; } }
"""
