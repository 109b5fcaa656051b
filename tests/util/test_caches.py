"""Libraries that want to write find a place where there is no home, and nothing is hidden."""

import os
import subprocess
import sys
import tempfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from regionlab.runs import runner as execution
from regionlab.runs.profiles import Run
from regionlab.util import paths
from regionlab.util import paths as caches

NOWHERE = "/dev/null"  # a home in which not even root can make a folder


@pytest.fixture
def temporary(monkeypatch, tmp_path):
    """Let temporary folders lie in one of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    caches.make_folder.cache_clear()
    yield tmp_path / "t"
    caches.make_folder.cache_clear()


def test_nothing_is_set_where_the_home_can_be_written_to(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert caches.find_places({}) == {}
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_each_library_gets_a_folder_of_ours(monkeypatch, temporary):
    monkeypatch.setenv("HOME", NOWHERE)
    found = caches.find_places({})
    assert found.keys() == caches.PLACES.keys()
    assert all(
        os.path.isdir(place) and place.startswith(str(temporary)) for place in found.values()
    )


def test_what_is_set_by_the_user_is_kept(monkeypatch, temporary):
    monkeypatch.setenv("HOME", NOWHERE)
    assert "MPLCONFIGDIR" not in caches.find_places({"MPLCONFIGDIR": "/mine"})


def test_a_cache_that_can_only_be_read_is_not_hidden(monkeypatch, tmp_path, temporary):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(caches, "can_write", lambda place: False)
    (tmp_path / ".cache").mkdir()
    assert "XDG_CACHE_HOME" not in caches.find_places({})


def test_a_home_that_is_not_known_cannot_be_written_to(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert not caches.can_write("~/.cache")


def test_the_folder_is_the_same_each_time_and_private(temporary):
    folder = caches.make_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    caches.make_folder.cache_clear()
    assert caches.make_folder() == folder


@pytest.mark.parametrize("kind", ["open to all", "a link", "a file"])
def test_a_folder_that_others_may_have_made_is_not_taken(temporary, kind):
    place = temporary / f"regionlab-{os.getuid()}"
    if kind == "open to all":
        place.mkdir()
        place.chmod(0o777)
    elif kind == "a link":
        (temporary / "theirs").mkdir(mode=0o700)
        place.symlink_to(temporary / "theirs")
    else:
        place.write_text("")
    folder = caches.make_folder()
    assert folder != place
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_notebook_runs_without_a_home(monkeypatch, tmp_path, temporary):
    monkeypatch.setenv("HOME", NOWHERE)
    for variable in caches.PLACES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    cell = new_code_cell("a = 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell, new_code_cell("print(a)")]), tmp_path / "one.ipynb")
    execution.execute(Run("one", "one", {"a": 7}, {}), tmp_path / "done.ipynb", timeout_s=60)
    assert "7" in (tmp_path / "done.ipynb").read_text()
    assert "MPLCONFIGDIR" not in os.environ


CACHES = """
import os, stat, sys, tempfile
from importlib.util import find_spec
import numba
from regionlab.util import paths as caches
umap = find_spec("umap").submodule_search_locations[0] + "/layouts.py"
os.environ["HOME"] = "/dev/null"
{become}
code = compile("def rdist(): pass", umap, "exec")
exec(code, names := {{}})
try:
    numba.njit(cache=True)(names["rdist"])
    sys.exit("numba can write to the environment")
except RuntimeError:
    pass
caches.let_numba_cache()
numba.njit(cache=True)(names["rdist"])
assert os.environ["NUMBA_CACHE_DIR"].startswith(tempfile.gettempdir())
"""
PRETEND = """
from numba.core import caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
"""


def run_python(code, folder):
    surroundings = {**os.environ, "TMPDIR": str(folder)}
    surroundings.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=surroundings, capture_output=True, text=True)


def test_numba_caches_elsewhere_where_it_finds_no_place(tmp_path):
    done = run_python(CACHES.format(become=PRETEND), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid(), reason="only root can be nobody")
def test_numba_caches_as_a_user_who_can_write_nowhere():
    become = "os.setgid(65534)\nos.setuid(65534)"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o1777)
        done = run_python(CACHES.format(become=become), folder)
    if "numba can write" in done.stderr:
        pytest.skip("the environment can be written to by everybody")
    assert done.returncode == 0, done.stderr
