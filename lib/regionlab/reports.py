"""Pages from results: HTML of a run, the gallery of figures, tables in the README."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from regionlab.lettering import escape_markdown
from regionlab.parameters import read_notebook
from regionlab.records import write_text

# nbconvert's page asks the network for these; without them it stands on its own.
PAGE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
)
MARKED = re.compile(
    r"(<!-- results:([\w.,=+-]+)(?: rows:([^>]*?))? -->\n).*?(<!-- /results -->)", re.DOTALL
)
MEASURED = ("value", "ci95", "n")
GALLERY_ROWS = 40  # longer tables are only linked
HEADER = "| metric | value [95 % interval] | n |\n| --- | --- | --- |\n"


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
    rows = {
        name: f"| {escape_markdown(name)} | {escape_markdown(value)} | {n} |\n"
        for name, value, n in flatten_results(results)
    }
    if unknown := [name for name in only if name not in rows]:
        near = get_close_matches(unknown[0], rows, n=5) or list(rows)[:20]
        raise ValueError(f"no result {unknown[0]!r}; there are {len(rows)}, as {', '.join(near)}")
    return HEADER + "".join(rows[name] for name in only or rows)


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield each result's dotted name, its value with its interval, and its n, as text."""
    for key, value in results.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            yield name, _text(value), ""
            continue
        if "value" in value:
            yield name, _measured(value), _text(value.get("n", ""))
        rest = {k: v for k, v in value.items() if not ("value" in value and k in MEASURED)}
        yield from flatten_results(rest, f"{name}.")


def _measured(quantity: Mapping[str, Any]) -> str:
    if "ci95" not in quantity:
        return _text(quantity["value"])
    low, high = quantity["ci95"]
    return f"{_text(quantity['value'])} [{_text(low)}, {_text(high)}]"


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

    `<!-- results:NAME rows:a.b c.d -->` takes only the rows of these names.

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
    return updated


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
        f"Written by `python -m regionlab.runs {profile}`; edits here are lost.\n",
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
