"""Pages from results: HTML of a run, the gallery of figures, tables in the README."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from regionlab.runs.parameters import read_notebook
from regionlab.util.files import write_text
from regionlab.util.lettering import escape_markdown


def show_p(test: Mapping[str, Any], key: str = "p_value") -> str:
    """Write the p-value of `compare_paired` to two digits, as "= 0.012" or "≤ 0.001".

    The second where it is only known to be no larger. `key` may be "p_holm".
    """
    p = test[key]
    if not test.get("p_is_floor") or p == 1:
        return f"= {p:.2g}"
    unit = 10.0 ** (math.floor(math.log10(p)) - 1)
    return f"≤ {math.ceil(p / unit - 1e-9) * unit:.2g}"


def correct_holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values, each corrected for all of them being tried (Holm 1979).

    The chance that any of them is at most x where nothing differs is then at most x.
    """
    order = np.argsort(p_values, kind="stable")
    left = np.arange(len(order), 0, -1)  # tests that are not more significant
    raised = np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * left)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(raised, 1)
    return corrected.tolist()


def correct_tests(results: Any) -> Any:
    """Return a copy of nested results with "p_holm" beside every "p_value" in them.

    All tests of the results are one family, whatever their names, see `correct_holm`.
    """
    corrected = iter(correct_holm(list(_list_p_values(results))))
    return _add_corrected(results, corrected)


def _list_p_values(results: Any) -> Iterator[float]:
    if isinstance(results, Mapping):
        if "p_value" in results:
            yield results["p_value"]
        results = list(results.values())
    for inner in results if isinstance(results, list) else ():
        yield from _list_p_values(inner)


def _add_corrected(results: Any, corrected: Iterator[float]) -> Any:
    if isinstance(results, list):
        return [_add_corrected(inner, corrected) for inner in results]
    if not isinstance(results, Mapping):
        return results
    own = {"p_holm": next(corrected)} if "p_value" in results else {}
    return {key: _add_corrected(inner, corrected) for key, inner in results.items()} | own


# nbconvert's page asks the network for these; without them it stands on its own.
PAGE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
)
MARKED = re.compile(
    r"(<!-- results:([\w.,=+-]+)(?: rows:([^>]*?))? -->\n).*?(<!-- /results -->)", re.DOTALL
)
MEASURED = ("value", "ci95", "range", "n")
VALUE = re.compile(r"(<!-- value:([\w.,=+-]+) (\S+) -->).*?(<!-- /value -->)")
RUNS = re.compile(r"(<!-- runs -->\n```console\n).*?(```\n<!-- /runs -->)", re.DOTALL)
TITLES = {
    frozenset(): "value",
    frozenset({"ci95"}): "value [95 % interval]",
    frozenset({"range"}): "value [range]",
    frozenset({"ci95", "range"}): "value [95 % interval] or [least to greatest]",
}
GALLERY_ROWS = 40  # longer tables are only linked


class Row(NamedTuple):
    """A result as text: its dotted name, its value, its n, and what the brackets hold."""

    name: str
    value: str
    n: str
    spread: str  # "ci95", "range" or ""


def write_html(notebook: Path, page: Path) -> None:
    """Write an executed notebook as one HTML file that needs nothing else."""
    from nbconvert import HTMLExporter  # half a second to import

    exporter = HTMLExporter(raw_template=PAGE, embed_images=True)
    executed = read_notebook(notebook)
    executed.metadata.pop("widgets", None)  # their state needs scripts from the network
    body, _ = exporter.from_notebook_node(executed, {"metadata": {"name": notebook.stem}})
    write_text(page, body)


def results_table(results: Mapping[str, Any], *, only: Sequence[str] = ()) -> str:
    """Return results as a Markdown table, nested names joined with dots.

    Parameters
    ----------
    results
        As saved by `Record.save_results`.
    only
        Names of the rows wanted, in order; all if empty.

    Raises
    ------
    ValueError
        If a name is not among the results.
    """
    rows = {row.name: row for row in flatten_results(results)}
    if unknown := [name for name in only if name not in rows]:
        near = get_close_matches(unknown[0], rows, n=5) or list(rows)[:20]
        raise ValueError(f"no result {unknown[0]!r}; there are {len(rows)}, as {', '.join(near)}")
    shown = [rows[name] for name in only or rows]
    lines = [("metric", title_values(shown), "n"), ("---", "---", "---")]
    lines += [(escape_markdown(row.name), escape_markdown(row.value), row.n) for row in shown]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def title_values(rows: Sequence[Row]) -> str:
    """Return the title of the column of values: "value", and what stands in its brackets."""
    return TITLES[frozenset(row.spread for row in rows) - {""}]


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Yield each result; a measured quantity with its interval or range and its n."""
    for key, value in results.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            yield Row(name, _text(value), "", "")
            continue
        if "value" in value:
            spread = next((kind for kind in ("ci95", "range") if kind in value), "")
            yield Row(name, _measured(value, spread), _text(value.get("n", "")), spread)
        rest = {k: v for k, v in value.items() if not ("value" in value and k in MEASURED)}
        if "p_is_floor" in rest:
            bounded = {k: show_p(value, k) for k in ("p_value", "p_holm") if k in value}
            rest = {k: bounded.get(k, v) for k, v in rest.items() if k != "p_is_floor"}
        yield from flatten_results(rest, f"{name}.")


def _measured(quantity: Mapping[str, Any], spread: str) -> str:
    if not spread or quantity[spread] is None:
        return _text(quantity["value"])
    between = {"ci95": ", ", "range": " to "}[spread]
    return f"{_text(quantity['value'])} [{between.join(map(_text, quantity[spread]))}]"


def _text(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if value == 0 or 0.001 <= abs(value) < 100 else f"{value:,.4g}"
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > 8 else ", ".join(map(_text, value))
    return "–" if value is None else json.dumps(value)


def update_marked_tables(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    """Fill `<!-- results:NAME -->` to `<!-- /results -->` with the table of that name.

    `<!-- results:NAME rows:a.b c.d -->` takes only the rows of these names, and
    `<!-- value:NAME a.b -->` to `<!-- /value -->`, within a line, the value of that row.

    Parameters
    ----------
    text
        A Markdown page.
    results
        The content of result files, by file name without ending.

    Raises
    ------
    ValueError
        If a marker names no result file or row, or is not closed.
    """

    def fill(match: re.Match) -> str:
        start, name, rows, end = match.groups()
        if name not in results:
            raise ValueError(f"marker names {name!r}; there are results of {sorted(results)}")
        if "<!-- results:" in match[0][len(start) :]:
            raise ValueError(f"the marker of {name!r} is not closed by <!-- /results -->")
        return start + results_table(results[name]["results"], only=(rows or "").split()) + end

    updated, count = MARKED.subn(fill, text)
    if count != text.count("<!-- results:") or count != text.count("<!-- /results -->"):
        raise ValueError("every <!-- results:NAME --> line needs one <!-- /results -->")
    return _update_values(updated, results)


def _update_values(text: str, results: Mapping[str, Mapping[str, Any]]) -> str:
    def fill(match: re.Match) -> str:
        start, name, wanted, end = match.groups()
        rows = flatten_results(results.get(name, {}).get("results", {}))
        value = {row.name: row.value for row in rows}.get(wanted)
        if value is None:
            raise ValueError(f"a marker names {wanted!r} of {name!r}, which is no result")
        return start + value + end

    return VALUE.sub(fill, text)


def update_marked_runs(text: str, runs: Mapping[str, float | None]) -> str:
    """Fill `<!-- runs -->` to `<!-- /runs -->`, a console, with the two commands of the README.

    Below `make figures` stands what it prints, with the seconds of the runs' records.

    Parameters
    ----------
    text
        A Markdown page.
    runs
        Each run, in order, and the seconds that it took by its record.
    """
    lines = ["$ make figures"]
    for number, (name, seconds) in enumerate(runs.items(), 1):
        took = "" if seconds is None else f" {seconds:.0f} s"
        lines.append(f"[{number}/{len(runs)}] {name} … ok{took}")
    lines += ["see figures/README.md and data/runs/toybox/report.html", "$ make test"]
    return RUNS.sub(lambda match: match[1] + "\n".join([*lines, match[2]]), text)


def read_saved(folder: Path) -> dict[str, dict[str, Any]]:
    """Return results, figures and tables of a folder, by file name without ending."""
    files = sorted(folder.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def make_gallery(
    profile: str, notebooks: Mapping[Path, Sequence[str]], saved: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return the gallery page: each notebook's question, figures, tables and headline results.

    Parameters
    ----------
    profile
        Its name, for the title.
    notebooks
        The notebook files in order, each with the names of its runs.
    saved
        What `read_saved` found in the folder that the page is for.
    """
    parts = [
        f"# Figures and results: {profile}\n",
        f"Written by `regionlab run {profile}`; edits here are lost.\n",
    ]
    for path, runs in notebooks.items():
        title, subtitle = read_question(path)
        parts.append(f"## {title}\n")
        parts += [f"> {subtitle}\n"] if subtitle else []
        parts.append(f"Notebook `{path.stem}`\n")
        for run in runs:
            parts += [f"### {run}\n"] if len(runs) > 1 else []
            parts += _gallery_of_run(run, saved) or ["No results yet.\n"]
    return "\n".join(parts)


def _gallery_of_run(run: str, saved: Mapping[str, Mapping[str, Any]]) -> list[str]:
    own = own_results(saved, run)
    parts = []
    for figure in own_parts(own, "figure"):
        parts.append(f"![{_alt(figure['alt'])}]({figure['file']})\n")
        parts += [f"*{escape_markdown(figure['caption'])}*\n"] if figure["caption"] else []
    for table in own_parts(own, "table"):
        parts += _gallery_table(table)
    for name, content in own.items():
        if "results" in content:
            parts.append(results_table(content["results"]))
            parts.append(f"[Results and record]({name}.json)\n")
    return parts


def own_results(saved: Mapping[str, Mapping[str, Any]], run: str) -> dict[str, Mapping[str, Any]]:
    """Return what a run saved, by file name without ending."""
    return {n: c for n, c in saved.items() if c.get("record", {}).get("run") == run}


def own_parts(own: Mapping[str, Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Return the figures or tables among what a run saved, in the order of saving."""
    parts = (content[kind] for content in own.values() if kind in content)
    return sorted(parts, key=lambda part: part["order"])


def _gallery_table(table: Mapping[str, Any]) -> list[str]:
    links = f"[CSV]({table['csv']}), [LaTeX]({table['tex']})"
    caption = escape_markdown(table["caption"])
    parts = [f"*{caption}* ({links})\n" if caption else f"{links}\n"]
    if len(table["rows"]) > GALLERY_ROWS:
        return parts
    lines = [table["head"], ["--:" if number else "---" for number in table["numeric"]]]
    lines += table["rows"]
    return [*parts, "".join(f"| {' | '.join(map(escape_markdown, line))} |\n" for line in lines)]


def _alt(text: str) -> str:
    return escape_markdown(text.replace("[", "(").replace("]", ")"))


def read_question(path: Path) -> tuple[str, str]:
    """Return a notebook's title and blockquote; its file name where it has no title."""
    cells = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]
    text = cells[0] if cells else ""
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    subtitle = re.search(r"^> (.+)$", text, re.MULTILINE)
    return (title[1] if title else path.stem), (subtitle[1] if subtitle else "")
