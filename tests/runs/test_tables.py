"""Tables as CSV, LaTeX and records: numbers, intervals, and text that LaTeX must not run."""

import csv
import json
import re

import numpy as np
import pandas as pd
import pytest

from regionlab.runs.record import Record, new_record, publish
from regionlab.runs.tables import (
    PAGE_ROWS,
    SPECIAL,
    escape_latex,
    flatten_frame,
    number_to_latex,
    save_table,
    show_cell,
)
from regionlab.util import paths

MEASURED = {"value": 2 / 3, "ci95": [0.5, 0.75], "n": 12}
AWKWARD = r"50 % & $5 #1_a {b} ~^ \input{x} <|> [1] * “π”"


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    record = Record(tmp_path / "runs" / "02_search")
    record.update(**new_record("02_search", run="02_search", profile="toybox"))
    return record


def save(record, frame, name="02_table", **options):
    """Save a table; return the rows of its CSV, its LaTeX, and what is in its record."""
    path = save_table(frame, name, record, **options)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    saved = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return rows, path.with_suffix(".tex").read_text(encoding="utf-8"), saved


# --- what is in a cell ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (2 / 3, "0.667"),
        (-0.5, "-0.500"),
        (0.0, "0.000"),
        (0.00012345, "0.0001234"),
        (123.456, "123.5"),
        (1234.56, "1,235"),
        (12345678.9, "12,345,679"),
        (1.5e12, "1.5e+12"),
        (1926, "1,926"),
        (np.int64(1926), "1,926"),
        (np.float32(0.5), "0.500"),
        (np.bool_(True), "yes"),
        (False, "no"),
        (None, "–"),
        (float("nan"), "–"),
        (pd.NA, "–"),
        ("two\n  lines", "two lines"),
        (MEASURED, "0.667 [0.500, 0.750]"),
        ({"value": 3}, "3"),
        ([0.5, 1], "[0.500, 1]"),
        (np.array([0.5, 1.0]), "[0.500, 1.000]"),
    ],
)
def test_cells_are_rounded_sensibly(cell, shown):
    assert show_cell(cell) == shown


def test_digits_can_be_chosen():
    assert show_cell(MEASURED, 1) == "0.7 [0.5, 0.8]"
    assert show_cell(0.04, 1) == "0.04"


@pytest.mark.parametrize("cell", [{"ci95": [0, 1]}, object(), {1, 2}])
def test_a_cell_that_is_no_cell_is_refused(cell):
    with pytest.raises(ValueError, match="cannot be a cell"):
        show_cell(cell)


# --- the table as a whole -------------------------------------------------------------


def test_csv_has_all_digits_and_a_column_for_each_end(record):
    rows, _, _ = save(record, pd.DataFrame({"hit@1": {"text": MEASURED}}))
    assert rows == [
        ["", "hit@1", "hit@1, low", "hit@1, high", "hit@1, n"],
        ["text", str(2 / 3), "0.5", "0.75", "12"],
    ]


def test_csv_leaves_missing_cells_empty(record):
    rows, _, _ = save(record, pd.DataFrame({"a": [MEASURED, None], "b": [1, None]}))
    assert rows[2] == ["", "", "", "", ""]


def test_plain_counting_of_rows_is_no_column(record):
    assert save(record, pd.DataFrame({"a": [1, 2]}))[0] == [["a"], ["1"], ["2"]]


def test_index_and_column_levels_become_plain_names():
    index = pd.MultiIndex.from_tuples([("x", 1)], names=["name", None])
    columns = pd.MultiIndex.from_tuples([("text", "mAP"), ("image", "mAP")])
    flat = flatten_frame(pd.DataFrame([[0.1, 0.2]], index, columns))
    assert list(flat) == ["name", "", "text, mAP", "image, mAP"]
    assert flat.iloc[0].tolist() == ["x", 1, 0.1, 0.2]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame(), "no columns"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are named 'a'"),
        (pd.DataFrame({"a": [1]}, pd.Index(["x"], name="a")), "two columns are named 'a'"),
        (pd.DataFrame({"a": [object()]}), "cannot be a cell"),
    ],
)
def test_a_table_that_cannot_be_saved_leaves_nothing(record, frame, message):
    with pytest.raises(ValueError, match=message):
        save_table(frame, "02_table", record)
    assert list(record.results_folder.iterdir()) == []


def test_an_empty_table_keeps_its_head(record):
    rows, latex, _ = save(record, pd.DataFrame({"a": []}))
    assert rows == [["a"]]
    assert "\\midrule\n\\bottomrule" in latex


def test_record_holds_the_table_as_shown(record):
    frame = pd.DataFrame({"name": ["a|b"], "mAP": [MEASURED], "ok": [True]})
    _, _, saved = save(record, frame, caption="One row.")
    assert saved["record"]["run"] == "02_search"
    assert saved["table"] == {
        "csv": "02_table.csv",
        "tex": "02_table.tex",
        "caption": "One row.",
        "order": 0,
        "head": ["name", "mAP", "ok"],
        "rows": [["a|b", "0.667 [0.500, 0.750]", "yes"]],
        "numeric": [False, True, False],
    }


def test_tables_keep_the_order_in_which_they_were_first_saved(record):
    frame = pd.DataFrame({"a": [1]})
    orders = [save(record, frame, name)[2]["table"]["order"] for name in ("z", "a", "z")]
    assert orders == [0, 1, 0]


def test_a_table_takes_no_name_of_a_figure(record):
    record.results_folder.mkdir()
    (record.results_folder / "02_map.png").touch()
    with pytest.raises(ValueError, match="'02_map' is a figure already"):
        save_table(pd.DataFrame({"a": [1]}), "02_map", record)
    save_table(pd.DataFrame({"a": [1]}), "02_other", record)
    with pytest.raises(ValueError, match="'02_other' is a table already"):
        record.path_for("02_other", ".png")


def test_publishing_removes_a_table_that_is_no_longer_made(record, tmp_path):
    save(record, pd.DataFrame({"a": [1]}), "02_old")
    publish(record, tmp_path / "figures")
    for path in record.results_folder.iterdir():
        path.unlink()
    save(record, pd.DataFrame({"a": [1]}), "02_new")
    publish(record, tmp_path / "figures")
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"02_new.csv", "02_new.tex", "02_new.json"}


# --- LaTeX ----------------------------------------------------------------------------

# What escaped text may consist of: plain characters, and these commands.
SAFE = re.compile(
    r"(?:[^\\{}$&#%_^~<>|\[\]*\"]|\\[{}$&#%_]|\\text\w+\{\}|\\dots\{\}|\{[\[\]*]\}"
    r"|\$(?:\\\w+|-|\^[23])\$)*"
)


@pytest.mark.parametrize("text", [AWKWARD, "".join(map(chr, range(32, 127))), "\\\\", "$$", "%"])
def test_escaped_text_holds_nothing_that_latex_runs(text):
    assert SAFE.fullmatch(escape_latex(text))
    assert not SAFE.fullmatch("a_b") and not SAFE.fullmatch("\\input{x}")


def test_every_sign_with_a_replacement_is_safe():
    assert all(SAFE.fullmatch(escape_latex(chr(sign))) for sign in SPECIAL)


def test_escaping_keeps_letters_and_is_done_once():
    assert escape_latex("Größe 5 %") == r"Größe 5 \%"
    assert escape_latex("\\{") == r"\textbackslash{}\{"
    assert escape_latex("a\nb") == "a b"


@pytest.mark.parametrize(
    ("number", "latex"),
    [
        ("0.667 [0.500, 0.750]", "0.667 {[}0.500, 0.750{]}"),
        ("-0.5 [-1.0, 0.0]", "$-$0.5 {[}$-$1.0, 0.0{]}"),
        ("1.5e+12", r"1.5$\times10^{12}$"),
        ("-1.2e-05", r"$-$1.2$\times10^{-5}$"),
        ("–", "--"),
        ("1,926", "1,926"),
    ],
)
def test_numbers_get_minus_and_powers_of_ten(number, latex):
    assert number_to_latex(number) == latex


def test_latex_table_is_booktabs_with_numbers_to_the_right(record):
    frame = pd.DataFrame({"mAP": {"a_b": MEASURED}, "kind": {"a_b": "x & y"}})
    _, latex, _ = save(record, frame, caption="50 %, of all.")
    assert latex == (
        "% \\usepackage{booktabs}\n"
        "\\begin{table}\n"
        "\\centering\n"
        "\\caption{50 \\%, of all.}\n"
        "\\label{tab:02_table}\n"
        "\\begin{tabular}{lrl}\n"
        "\\toprule\n"
        " & mAP & kind \\\\\n"
        "\\midrule\n"
        "a\\_b & 0.667 {[}0.500, 0.750{]} & x \\& y \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\end{table}\n"
    )


def test_only_numbers_get_a_minus_sign(record):
    _, latex, _ = save(record, pd.DataFrame({"name": ["x -1"], "change": [-0.5]}))
    assert "x -1 & $-$0.500" in latex


def test_long_text_is_broken_into_lines_and_long_tables_into_pages(record):
    frame = pd.DataFrame({"n": range(PAGE_ROWS + 1), "reason": "so many words that " * 3})
    _, latex, _ = save(record, frame)
    assert r"\begin{longtable}{rp{0.80\linewidth}}" in latex
    assert "booktabs,longtable" in latex and r"\endhead" in latex
    assert latex.count(r"\\") == PAGE_ROWS + 3  # rows, head and caption


@pytest.mark.parametrize("rows", [3, PAGE_ROWS + 5])
def test_every_environment_and_brace_is_closed(record, rows):
    _, latex, _ = save(record, pd.DataFrame({AWKWARD: [AWKWARD] * rows}), caption=AWKWARD)
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", latex) for word in ("begin", "end"))
    assert begun == ended[::-1]
    bare = re.sub(r"\\[{}]", "", latex)
    assert bare.count("{") == bare.count("}")
    body = latex.split(r"\midrule")[1]
    assert len(re.findall(r"(?<!\\)&", body)) == 0  # one column


def test_names_of_any_kind_are_saved_and_read_again(record):
    names = ["a\rb", "a\r\nb", "bell\x07", "half \ud83d", 'quote " , comma', "猫"]
    rows, latex, saved = save(record, pd.DataFrame({"name": names}, dtype=object))
    read = ["a\nb", "a\nb", "bell\x07", "half \\ud83d", 'quote " , comma', "猫"]
    assert [row[0] for row in rows[1:]] == read
    shown = ["a b", "a b", "bell", "half \ufffd", 'quote " , comma', "猫"]
    assert [row[0] for row in saved["table"]["rows"]] == shown
    assert not set("\x07\r") & set(latex)
