"""What the README and the committed figures say is so: records, intervals, sentences."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from regionlab.runs.report import (
    MARKED,
    VALUE,
    read_saved,
    update_marked_runs,
    update_marked_tables,
)
from regionlab.studies.claims.table import load_claims, value_of
from result_intervals import EXCUSED, list_bare, list_unexcused

ROOT = Path(__file__).resolve().parents[1]
SAVED = read_saved(ROOT / "figures")
RESULTS = {name: content for name, content in SAVED.items() if "results" in content}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def git(*arguments):
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)


@pytest.mark.skipif(git("ls-files", "figures").stdout == "", reason="not a git checkout")
def test_no_committed_record_is_of_a_dirty_tree():
    """Of what is committed or about to be: a run on changed files may lie here uncommitted."""
    dirty = git("grep", "--cached", "-l", '"dirty": true', "--", "figures/*.json").stdout
    assert dirty.split() == [], "run these again in a checkout without changes"


@pytest.mark.parametrize("notebook", [name for name in sorted(RESULTS) if name[:2].isdigit()])
def test_results_have_an_interval_or_are_excused_from_it(notebook):
    assert list_unexcused(notebook, RESULTS[notebook]["results"]) == []


def test_floats_and_quantities_without_interval_are_found():
    measured = {"value": 0.5, "ci95": [0.4, 0.6], "n": 9, "p_value": 0.01}
    bare = {"value": 0.5, "n": 9}
    results = {"a": measured, "b": {"c": bare, "d": 0.5, "e": 3}, "f": {"value": 1.0, "n": 1}}
    results |= {"g": [0.5, 0.25], "h": ["text"]}
    assert list(list_bare(results)) == ["b.c", "b.d", "g"]
    assert list_unexcused("05_compare_region_encodings", {"encodings": {"x": {"mAP": 0.5}}})
    assert not list_unexcused(
        "05_compare_region_encodings", {"encodings": {"x": {"milliseconds": 2.0}}}
    )
    assert set(EXCUSED) <= {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def test_tables_and_numbers_of_the_readme_are_those_of_their_files():
    assert update_marked_tables(README, RESULTS) == README


def test_seconds_in_the_readme_are_those_of_the_records():
    names = re.findall(r"^\[\d+/\d+\] (\w+) … ok", README, re.MULTILINE)
    seconds = {name: RESULTS[name]["record"]["seconds"] for name in names}
    assert len(names) == len(list((ROOT / "notebooks").glob("*.ipynb")))
    assert update_marked_runs(README, seconds) == README


def test_no_measured_number_is_typed_into_the_readme():
    prose = VALUE.sub("", MARKED.sub("", README))
    prose = re.sub(r"<!-- runs -->.*?<!-- /runs -->", "", prose, flags=re.DOTALL)
    prose = re.sub(r"```.*?```", "", prose, flags=re.DOTALL)
    kept = {"0.5", "3.11"}  # a level, and a version of Python
    typed = re.findall(r"(?<![\w.=-])\d+\.\d+(?![\w.])|\d+ passed|\b\d+ (?:seconds|minutes)", prose)
    assert set(typed) - kept == set()


def test_whole_images_are_indifferent_to_ground_and_object_as_the_readme_says():
    wins = RESULTS["04_compare_prompts"]["results"]["wrong_ground_wins"]
    low, high = wins["image_to_image"]["ci95"]
    assert low < 0.5 < high
    assert wins["region_to_region"]["ci95"][1] < 0.1


def test_the_papers_way_swings_most_and_near_the_top_as_the_readme_says():
    times = RESULTS["bench"]["results"]["search"]["milliseconds"]
    swing = {name: one["range"][1] / one["range"][0] for name, one in times.items()}
    assert max(swing, key=swing.get) == "sklearn"
    low, high = times["sklearn"]["range"]
    assert times["sklearn"]["value"] > (low + high) / 2


def test_held_out_combinations_cost_more_where_the_object_is_alone_as_the_readme_says():
    found = RESULTS["02_search_text_and_image"]["results"]
    all_of = [found["generalization"][f"{kind}_combinations"]["hit@1"]["value"]
              for kind in ("held-out", "usual")]  # fmt: skip
    alone = found["generalization_one_object"]["difference"]["hit@1"]
    assert alone["value"] < all_of[0] - all_of[1] < 0
    assert alone["ci95"][1] < 0


def significant(number):
    """Return how many digits of a number as it is written count."""
    return len(re.sub(r"[._]", "", number).strip("0"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_take_the_papers_numbers_from_the_table_of_claims(path):
    table = load_claims()
    known = {float(printed) for printed in table["printed"] if significant(printed) > 2}
    known |= {value_of(table, *place) for place in table.index if table.at[place, "value"] in known}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code" and not cell["metadata"]]
    text = "\n".join("".join(cell["source"]) for cell in code)
    written = re.findall(r"(?<![\w.])\d[\d_]*(?:\.\d+)?(?![\w.])", text)
    assert [n for n in written if significant(n) > 2 and float(n) in known] == []
