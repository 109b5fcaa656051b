"""The page over all notebooks: whole, safe, and in need of nothing else."""

import base64
import re
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from regionlab.runs.page import make_report
from regionlab.runs.profiles import load_profile
from regionlab.util import paths

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
AWKWARD = "<script>alert('x')</script> & \"q\" {0}"
OK = {"status": "ok", "message": "ok 3 s"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    paths.NOTEBOOKS.mkdir()
    (tmp_path / "figures").mkdir()
    return tmp_path / "figures"


def write_profile(*names, title="What is {}?", parameters="k = 5  # cut-off"):
    """Write notebooks and a profile of them, and load it."""
    for name in names:
        head = new_markdown_cell(f"# {title.format(name)}\n\n> A number & more.")
        cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        nbformat.write(new_notebook(cells=[head, cell]), paths.NOTEBOOKS / f"{name}.ipynb")
    file = paths.NOTEBOOKS / "tiny.yaml"
    file.write_text(f"notebooks: [{', '.join(f'{{notebook: {name}}}' for name in names)}]")
    return load_profile(file)


def record_of(run, **values):
    return {"run": run, "seconds": 3.0, "started": "2026-01-02T03:04:05", "commit": "ab" * 20,
            "dirty": True, "device": "cpu", "versions": {"numpy": "2.4"}, **values}  # fmt: skip


def figure_of(run, name, folder, *, order=0, caption="It falls.", data=PNG):
    (folder / f"{name}.png").write_bytes(data + name.encode())
    figure = {"file": f"{name}.png", "caption": caption, "alt": caption, "order": order}
    return {name: {"record": record_of(run), "figure": figure}}


def table_of(run, name, **values):
    table = {"csv": f"{name}.csv", "tex": f"{name}.tex", "caption": "Rows.", "order": 0,
             "head": ["way", "mAP"], "rows": [["a", "0.5"]], "numeric": [False, True]}  # fmt: skip
    return {name: {"record": record_of(run), "table": {**table, **values}}}


def parse(page):
    """Parse the page strictly, as XML."""
    assert page.startswith("<!DOCTYPE html>\n")
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def section(page, run):
    return next(e for e in parse(page).iter("section") if e.get("id") == f"run-{run}")


@pytest.fixture
def page(folder):
    """Return the page of two notebooks with figures, tables and results."""
    saved = {
        **figure_of("01_a", "01_one", folder, order=1),
        **figure_of("01_a", "01_two", folder, caption="It rises."),
        **figure_of("02_b", "02_one", folder),
        **table_of("02_b", "02_table"),
        "02_b": {"record": record_of("02_b"), "results": {"mAP": {"value": 0.5, "n": 9}}},
    }
    return make_report(write_profile("01_a", "02_b"), saved, folder, {"01_a": OK, "02_b": OK})


def test_page_is_well_formed_and_names_are_unique(page):
    root = parse(page)
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert ids == ["run-01_a", "run-02_b", "versions"]


def test_each_figure_is_in_it_once_as_data_in_the_order_of_saving(page, folder):
    sources = [e.get("src") for e in parse(page).iter("img")]
    kind = "data:image/png;base64,"
    assert all(source.startswith(kind) for source in sources)
    images = [base64.b64decode(source.removeprefix(kind)) for source in sources]
    assert images == [(folder / f"{n}.png").read_bytes() for n in ("01_two", "01_one", "02_one")]


def test_page_asks_for_nothing_outside(page):
    assert not re.search(r"https?:|//\w|@import|url\(|<link|<script|<iframe", page)
    links = [e.get(key) for e in parse(page).iter() for key in ("href", "src") if e.get(key)]
    assert all(link.startswith(("#", "data:")) for link in links)


def test_contents_lead_to_every_notebook(page):
    root = parse(page)
    links = {e.get("href"): text_of(e) for e in root.find("body/nav").iter("a")}
    assert links["#run-01_a"] == "✓ What is 01_a?"
    targets = {f"#{e.get('id')}" for e in root.iter("section")}
    assert set(links) == targets


def test_page_is_made_for_light_and_dark(page):
    assert "prefers-color-scheme: dark" in page
    assert '<meta name="color-scheme" content="light dark"/>' in page


def test_results_tables_parameters_and_record_are_there(page):
    shown = section(page, "02_b")
    rows = [[text_of(cell) for cell in row] for row in shown.iter("tr")]
    for row in (["way", "mAP"], ["a", "0.5"], ["mAP", "0.500", "9"], ["k", "5", "cut-off"],
                ["device", "cpu"], ["commit", "ab" * 20]):  # fmt: skip
        assert row in rows
    assert text_of(next(shown.iter("blockquote"))) == "A number & more."
    assert "Rows. 02_table.csv, 02_table.tex" in text_of(shown)


def test_overview_says_when_how_long_and_from_which_commit(page):
    rows = [[text_of(cell) for cell in row] for row in parse(page).find("body/main").iter("tr")]
    assert rows[0] == ["run", "this time", "results of", "seconds", "device", "commit"]
    assert rows[1] == ["01_a", "ok", "2026-01-02 03:04", "3.0", "cpu", "ababababab + changes"]


def test_numbers_stand_to_the_right(page):
    cells = [e for e in section(page, "02_b").iter("td") if e.text == "0.5"]
    assert [cell.get("class") for cell in cells] == ["number"]


def test_a_long_table_is_folded_up_and_long_text_kept_wide(folder):
    saved = table_of("01_a", "01_table", rows=[["so many words that " * 3, "1"]] * 41)
    shown = section(make_report(write_profile("01_a"), saved, folder, {}), "01_a")
    (folded,) = [e for e in shown.iter("details") if text_of(e).startswith("Rows. (41 rows)")]
    assert {cell.get("class") for cell in folded.iter("td")} == {"long", "number"}


def test_versions_that_differ_are_all_named(folder):
    saved = {
        "01_a": {"record": record_of("01_a"), "results": {}},
        "02_b": {"record": record_of("02_b", versions={"numpy": "2.5"}), "results": {}},
    }
    page = make_report(write_profile("01_a", "02_b"), saved, folder, {})
    versions = next(e for e in parse(page).iter("section") if e.get("id") == "versions")
    assert "numpy2.4, 2.5" in text_of(versions)


def test_text_from_outside_stays_text(folder):
    saved = {
        **figure_of("01_a", "01_one", folder, caption=AWKWARD),
        **table_of("01_a", "01_table", caption=AWKWARD, head=[AWKWARD, "b"], rows=[[AWKWARD, "1"]]),
        "01_a": {"record": record_of("01_a", device=AWKWARD), "results": {AWKWARD: AWKWARD}},
    }
    profile = write_profile("01_a", title="{}? " + AWKWARD.replace("{0}", ""),
                            parameters="k = '<b>'  # <i>")  # fmt: skip
    page = make_report(profile, saved, folder, {"01_a": {"status": "failed", "message": AWKWARD}})
    root = parse(page)
    assert "<script" not in page and not list(root.iter("script"))
    assert next(root.iter("img")).get("alt") == AWKWARD
    assert text_of(next(root.iter("figcaption"))) == AWKWARD


def test_a_failure_is_told_first_and_what_follows_is_dated(folder):
    saved = {"02_b": {"record": record_of("02_b"), "results": {"n": 1}}}
    endings = {
        "01_a": {"status": "failed", "message": "ValueError: no", "cell": "In [3]: x"},
        "02_b": {"status": "skipped", "message": "skipped: it needs 01_a"},
        "03_c": OK,
    }
    page = make_report(write_profile("01_a", "02_b", "03_c"), saved, folder, endings)
    assert "2 of 3 did not succeed." in text_of(parse(page).find("body/main"))
    first, second = (text_of(section(page, run)) for run in ("01_a", "02_b"))
    assert "ValueError: no" in first and "In [3]: x" in first and "No results yet." in first
    assert "skipped: it needs 01_a" in second
    assert "What follows is from 2026-01-02 03:04." in second
    assert "What follows" not in text_of(section(page, "03_c"))


def test_a_run_that_was_not_run_this_time_says_so(folder):
    page = make_report(write_profile("01_a", "02_b"), {}, folder, {"02_b": OK})
    rows = [text_of(row) for row in parse(page).find("body/main").iter("tr")]
    assert any(row.startswith("01_anot run this time") for row in rows)
    assert "None failed." in page


def test_a_figure_that_was_deleted_is_named(folder):
    saved = figure_of("01_a", "01_one", folder)
    (folder / "01_one.png").unlink()
    page = make_report(write_profile("01_a"), saved, folder, {"01_a": OK})
    assert "01_one.png is missing." in page and not list(parse(page).iter("img"))


def test_results_of_other_runs_and_benchmarks_are_left_out(folder):
    saved = {**figure_of("09_z", "09_one", folder), "bench": {"results": {"fast": 1}}}
    page = make_report(write_profile("01_a"), saved, folder, {"01_a": OK})
    assert not list(parse(page).iter("img")) and "fast" not in page


def test_a_sweep_has_a_section_a_run(folder):
    write_profile("01_a")
    file = Path(paths.NOTEBOOKS / "swept.yaml")
    file.write_text("notebooks: [{notebook: 01_a, parameters: {k: [1, 2]}}]")
    page = make_report(load_profile(file), {}, folder, {})
    assert text_of(section(page, "01_a-k=2")).count("01_a-k=2") == 1
    assert "01_a-k=1" in text_of(parse(page).find("body/nav"))
