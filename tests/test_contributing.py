"""CONTRIBUTING.md is true: its files are there, and who follows a recipe gets what it says."""

import re

from regionlab.util.paths import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LISTED = dict(
    encoding=r"\*\*A region encoding\*\*", segmenter=r"\*\*A segmenter\*\*",
    data=r"\*\*A data set\*\*", formula=r"\*\*The ranking formula\*\*",
    notebook=r"\*\*A notebook\*\*",
)  # fmt: skip
MOST = {"encoding": 1, "segmenter": 2, "data": 3, "formula": 2, "notebook": 3}


def find_files(recipe):
    """Return the files that a recipe says to touch."""
    after = re.split(LISTED[recipe], TEXT)[1]
    block = re.search(r"\n\n((?:\d\. .*\n)+)", after)[1]
    return re.findall(r"^\d\. `([^`]+)`", block, re.MULTILINE)


def test_each_recipe_touches_as_few_files_as_it_says():
    assert {recipe: len(find_files(recipe)) for recipe in LISTED} == MOST


def test_every_file_that_is_named_is_there_or_is_to_be_made():
    named = set(re.findall(r"`((?:lib|notebooks|data|tests|figures)/[^`*]*)`", TEXT))
    made = {name for name in named if "<" in name or "NN_" in name}
    assert len(named) > 10
    assert {name for name in named - made if not (ROOT / name).exists()} == set()
