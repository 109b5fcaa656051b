"""Which modules a notebook depends on, so that `--resume` runs it again only for their changes."""

import shutil

import pytest

from regionlab.runs import record as imports

SEARCHES = "import regionlab as rl\nfrom regionlab.viz import charts\nrl.search_text"


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A copy of the library that a test may change."""
    for name in imports.OURS:
        skip = shutil.ignore_patterns("__pycache__")
        shutil.copytree(imports.LIBRARY / name, tmp_path / name, ignore=skip)
    monkeypatch.setattr(imports, "LIBRARY", tmp_path)
    imports._imports_of_room.cache_clear()
    yield tmp_path
    imports._imports_of_room.cache_clear()


def touch(path):
    path.write_text(path.read_text() + "# a word\n")


@pytest.mark.parametrize("name", ["service/forms.py", "bench/run.py", "cli/app.py"])
def test_a_module_that_is_not_imported_does_not_count(library, name):
    before = imports.hash_imports(SEARCHES)
    touch(library / "regionlab" / name)
    assert imports.hash_imports(SEARCHES) == before


@pytest.mark.parametrize(
    "name",
    ["viz/charts.py", "search/images.py", "index/index.py", "util/paths.py", "data/coco.py"],
)
def test_a_module_that_is_imported_on_the_way_counts(library, name):
    before = imports.hash_imports(SEARCHES)
    touch(library / "regionlab" / name)
    assert imports.hash_imports(SEARCHES) != before


def test_toybox_is_reached_by_the_loader_of_data_sets(library):
    code = "from regionlab import load_collection"
    before = imports.hash_imports(code)
    touch(library / "toybox/render.py")
    assert imports.hash_imports(code) != before


def test_code_that_imports_nothing_of_ours_depends_on_nothing(library):
    before = imports.hash_imports("import numpy as np")
    touch(library / "regionlab/util/paths.py")
    assert imports.hash_imports("import numpy as np") == before
