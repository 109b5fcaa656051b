import json

import pytest

from regionlab.runs.report import (
    make_gallery,
    results_table,
    update_marked_runs,
    update_marked_tables,
)

HEAD = "| metric | value | n |\n| --- | --- | --- |\n"
PAGE = "before\n<!-- results:02_search -->\nold\n<!-- /results -->\nafter\n"


def rows(results):
    return results_table(results).splitlines()[2:]


INTERVAL = {"value": 0.7, "ci95": [0.65, 0.75], "n": 9}
RANGE = {"value": 2573.0, "range": [435.3, 2647.0], "n": 5}


@pytest.mark.parametrize(
    ("results", "title"),
    [
        ({"a": INTERVAL, "b": 3}, "value [95 % interval]"),
        ({"a": RANGE}, "value [range]"),
        ({"a": INTERVAL, "b": RANGE}, "value [95 % interval] or [least to greatest]"),
        ({"a": 3, "b": {"value": 0.5}}, "value"),
    ],
)
def test_the_title_of_the_column_names_what_the_brackets_hold(results, title):
    assert results_table(results).splitlines()[0] == f"| metric | {title} | n |"


def test_the_title_is_that_of_the_rows_that_are_shown():
    page = "<!-- results:x rows:b -->\n<!-- /results -->"
    updated = update_marked_tables(page, {"x": {"results": {"a": INTERVAL, "b": RANGE}}})
    assert "value [range]" in updated and "interval" not in updated


def test_a_measured_quantity_shows_its_range_where_it_has_no_interval():
    assert rows({"ms": RANGE}) == ["| ms | 2,573 [435.3 to 2,647] | 5 |"]


def test_a_p_value_that_is_only_bounded_is_shown_as_a_bound():
    gain = INTERVAL | {"p_value": 2 / 2001, "p_holm": 60 / 2001, "p_is_floor": True}
    shown = rows({"gain": gain})
    assert shown[1:] == ["| gain.p_value | ≤ 0.001 |  |", "| gain.p_holm | ≤ 0.03 |  |"]


def test_seconds_of_runs_are_those_of_their_records():
    page = "a\n<!-- runs -->\n```console\n$ old\n```\n<!-- /runs -->\nb\n"
    updated = update_marked_runs(page, {"01_a": 12.6, "02_b": None})
    shown = "$ make figures\n[1/2] 01_a … ok 13 s\n[2/2] 02_b … ok\nsee figures/README.md and "
    shown += "data/runs/toybox/report.html\n$ make test\n"
    assert updated == page.replace("$ old\n", shown)
    assert update_marked_runs(updated, {"01_a": 12.6, "02_b": None}) == updated


def test_a_measured_quantity_has_its_interval_and_count():
    results = {"text": {"hit@1": {"value": 0.7, "ci95": [0.65, 0.75], "n": 1000}}}
    assert rows(results) == ["| text.hit@1 | 0.700 [0.650, 0.750] | 1,000 |"]


def test_further_keys_of_a_measured_quantity_get_rows_of_their_own():
    results = {"map": {"value": 0.5, "ci95": [0.4, 0.6], "n": 9, "n_undefined": 1}}
    assert rows(results)[1] == "| map.n_undefined | 1 |  |"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234, "1,234"),
        (0.00012341, "0.0001234"),
        (1234.6, "1,235"),
        (0.0, "0.000"),
        (True, "True"),
        (None, "–"),
        ("a|b\nc", "a\\|b c"),
        ([1, 2], "1, 2"),
        (list(range(9)), "9 values"),
        ({"value": 2}, "2"),
    ],
)
def test_other_values_are_shown_as_they_are(value, shown):
    assert rows({"x": value}) == [f"| x | {shown} |  |"]


def test_the_table_replaces_what_stood_between_the_markers():
    updated = update_marked_tables(PAGE, {"02_search": {"results": {"n": 3}}})
    assert updated == PAGE.replace("old\n", HEAD + "| n | 3 |  |\n")


def test_filling_a_second_time_changes_nothing():
    results = {"02_search": {"results": {"path": r"a\1"}}}
    updated = update_marked_tables(PAGE, results)
    assert update_marked_tables(updated, results) == updated


def test_a_marker_that_names_no_results_is_refused():
    with pytest.raises(ValueError, match="'02_search'; there are results of \\['01'\\]"):
        update_marked_tables(PAGE, {"01": {"results": {}}})


@pytest.mark.parametrize(
    "text",
    [
        "<!-- results:a -->\n",
        "<!-- /results -->\n",
        "<!-- results:a -->\n<!-- results:a -->\n<!-- /results -->\n",
        "<!-- results:a --> in a line <!-- /results -->\n",
    ],
)
def test_a_marker_without_its_partner_is_refused(text):
    with pytest.raises(ValueError, match="<!-- /results -->"):
        update_marked_tables(text, {"a": {"results": {}}})


def test_marker_with_rows_takes_these_rows_in_their_order():
    saved = {"01_x": {"results": {"a": {"b": 1, "c": 2}, "d": 3}}}
    page = "<!-- results:01_x rows:d a.b -->\nold\n<!-- /results -->"
    lines = update_marked_tables(page, saved).splitlines()
    assert lines[3:5] == ["| d | 3 |  |", "| a.b | 1 |  |"]
    assert len(lines) == 6


def test_marker_with_an_unknown_row_is_told_the_known_ones():
    saved = {"01_x": {"results": {"a": 1}}}
    with pytest.raises(ValueError, match="no result 'z'; there are 1, as a"):
        update_marked_tables("<!-- results:01_x rows:z -->\n<!-- /results -->", saved)


def test_a_value_within_a_line_is_that_of_its_row():
    page = (
        "costs <!-- value:01_x a.b -->old<!-- /value --> at <!-- value:01_x n --><!-- /value -->."
    )
    saved = {"01_x": {"results": {"a": {"b": INTERVAL}, "n": 3}}}
    updated = update_marked_tables(page, saved)
    assert updated == page.replace("old", "0.700 [0.650, 0.750]").replace("--><!", "-->3<!")
    assert update_marked_tables(updated, saved) == updated
    with pytest.raises(ValueError, match="'a.b' of '01_x', which is no result"):
        update_marked_tables(page, {"01_x": {"results": {}}})


def gallery_of(tmp_path, **changes):
    notebook = tmp_path / "01_a.ipynb"
    notebook.write_text(
        json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    table = {"csv": "01_t.csv", "tex": "01_t.tex", "caption": "All.", "order": 0}
    table |= {"head": ["way", "mAP"], "rows": [["a|b", "0.5"]], "numeric": [False, True]}
    saved = {"01_t": {"record": {"run": "01_a"}, "table": table | changes}}
    return make_gallery("tiny", {notebook: ["01_a"]}, saved)


def test_gallery_shows_tables_with_their_files(tmp_path):
    page = gallery_of(tmp_path)
    assert "*All.* ([CSV](01_t.csv), [LaTeX](01_t.tex))\n\n| way | mAP |\n| --- | --: |\n" in page
    assert "| a\\|b | 0.5 |\n" in page


def test_gallery_only_links_long_tables(tmp_path):
    page = gallery_of(tmp_path, rows=[["a", "1"]] * 41, caption="")
    assert "\n[CSV](01_t.csv), [LaTeX](01_t.tex)\n" in page
    assert "| way |" not in page
