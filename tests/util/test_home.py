"""`~` is the home folder wherever a path is given, in whatever shell or file it was written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.main import get_command

from regionlab import load_collection
from regionlab.cli import app
from regionlab.compose.files import TrainedParts
from regionlab.compose.stages import Setup
from regionlab.data.images import read_image, write_image
from regionlab.data.listing import list_images
from regionlab.data.prompts import Box, Selection
from regionlab.models.clip import find_weights
from regionlab.models.registry import _find_weights
from regionlab.models.weights import find_own_file
from regionlab.runs.profiles import find_profile
from regionlab.search.engine import find_place
from regionlab.util import paths

PICTURE = np.zeros((8, 8, 3), np.uint8)


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "pics").mkdir()
    return tmp_path


def test_a_written_path_is_of_the_workspace_the_home_folder_or_absolute(home):
    assert paths.locate("") is None
    assert paths.locate("data/x") == paths.ROOT / "data/x"
    assert paths.locate("~/pics") == home / "pics"
    assert paths.locate("/a/~") == Path("/a/~")


def test_a_tilde_before_no_user_is_a_name(home):
    assert paths.expand("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_pictures_are_written_listed_and_read_at_home(home):
    write_image("~/pics/a.png", PICTURE)
    assert list_images("~/pics") == [home / "pics/a.png"]
    assert read_image("~/pics/a.png").shape == PICTURE.shape
    assert load_collection("folder", "~/pics").root == home / "pics"


def test_a_selection_is_saved_and_read_at_home(home):
    selection = Selection("a.png", (8, 8), (Box(0, 0, 4, 4),))
    assert selection.save("~/selection.json") == home / "selection.json"
    assert Selection.load("~/selection.json") == selection


def test_weights_are_found_at_home(home):
    (home / "w.pt").write_bytes(b"x")
    found = [
        find_own_file("vit/x", "~/w.pt"),
        _find_weights("vit_b", "~/w.pt"),
        find_weights("ViT-B-32", "~/w.pt"),
    ]
    assert {file.path for file in found} == {home / "w.pt"}


def test_trained_parts_and_engines_are_kept_at_home(home):
    stages = Setup("toyclip", "toybox", folder="~/parts")
    assert (stages.folder, stages.cache) == (home / "parts", home / "parts")
    assert TrainedParts(None, "~/parts").folder == home / "parts"
    assert find_place("~/engines", "HNSW32").parent == home / "engines"


def test_a_profile_is_found_at_home(home):
    (home / "mine.yaml").write_text("notebooks: []")
    assert find_profile("~/mine.yaml") == home / "mine.yaml"


def read_options(name, *arguments):
    """Return the options of a command as it gets them."""
    return get_command(app).commands[name].make_context(name, list(arguments)).params


def test_command_lines_take_home_where_the_shell_leaves_it(home):
    built = read_options("index", "~/pics", "--out=~/index")
    trained = Setup("toyclip", "cirr", "~/pics", folder="~/parts")
    served = read_options("serve", "--images=~/pics")
    assert {built["folder"], trained.root, served["images"]} == {home / "pics"}
    assert (built["out"], trained.folder) == (home / "index", home / "parts")


@pytest.mark.parametrize("file", sorted(paths.NOTEBOOKS.glob("*.ipynb")), ids=lambda f: f.stem)
def test_notebooks_locate_the_paths_of_their_parameters(file):
    cells = json.loads(file.read_text("utf-8"))["cells"]
    source = "".join(line for cell in cells for line in cell["source"])
    assert not re.search(r"paths\.ROOT / [a-z]", source)
