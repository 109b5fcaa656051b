import json
import math
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from regionlab.runs import record as provenance
from regionlab.runs import record as records
from regionlab.runs.record import Record, new_record, publish, redact_paths
from regionlab.util import paths
from regionlab.util.files import to_json
from regionlab.viz.charts import save_figure


@pytest.fixture(autouse=True)
def workspace(monkeypatch, tmp_path):
    root = tmp_path / "project"
    root.mkdir()
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "RUNS", root / "runs")
    monkeypatch.delenv(records.RUN_VARIABLE, raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    return root


def start_record(notebook="02_search", run=None):
    run = run or notebook
    record = Record(paths.RUNS / run)
    record.update(**new_record(notebook, run=run, profile="toybox", parameters={"seed": 3}))
    return record


def draw():
    with plt.style.context("regionlab.paper"):
        figure, axes = plt.subplots()
    axes.plot([0, 1], [1, 0], label="a line")
    axes.legend()
    plt.close(figure)
    return figure


def test_the_runner_names_the_record_of_the_notebook(monkeypatch, tmp_path):
    monkeypatch.setenv(records.RUN_VARIABLE, str(tmp_path / "run"))
    assert records.current().folder == tmp_path / "run"


def test_without_the_runner_nothing_leaves_the_interactive_folder(monkeypatch, workspace):
    monkeypatch.setenv("JPY_SESSION_NAME", "/anywhere/02_search.ipynb")
    saved = records.current().save_results({"n": 1})
    assert saved == workspace / "runs/interactive/02_search/results/02_search.json"
    assert json.loads(saved.read_text())["record"]["status"] == "interactive"


def test_without_jupyter_the_record_is_untitled(workspace):
    assert records.current().folder == workspace / "runs/interactive/untitled"


def test_notes_come_together():
    record = start_record()
    record.add(model={"sha256": "ab"}, index="old")
    record.add(index="new", n=np.int64(3))
    assert record.read()["extras"] == {"model": {"sha256": "ab"}, "index": "new", "n": 3}


def test_the_seed_is_told_apart_from_the_other_parameters():
    assert new_record("a", run="a", profile="p", parameters={"seed": 3})["seed"] == 3
    assert new_record("a", run="a", profile="p")["seed"] is None


def test_a_record_cut_off_in_the_middle_counts_as_none():
    record = start_record()
    record.file.write_text(record.file.read_text()[:40])
    assert record.read() == {}


def test_writing_leaves_no_temporary_files():
    record = start_record()
    record.save_results({"n": 1})
    save_figure(draw(), "line", record)
    names = {path.name for path in record.folder.rglob("*") if path.is_file()}
    assert names == {"record.json", "02_search.json", "line.png", "line.json"}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"map": {"value": math.nan}}, "map.value is nan"),
        ({"curve": [1.0, math.inf]}, r"curve\[1\] is inf"),
        ({"array": np.array([np.nan])}, r"array\[0\] is nan"),
        ({"a": {"b": {1, 2}}}, "a.b is a set"),
    ],
)
def test_results_that_json_cannot_hold_are_refused_by_name(results, message):
    with pytest.raises(ValueError, match=message):
        start_record().save_results(results)


def test_numpy_becomes_plain_json():
    values = {"f": np.float32(0.5), "i": np.int64(2), "b": np.bool_(True), "a": np.eye(2), 5: None}
    assert to_json(values) == {"f": 0.5, "i": 2, "b": True, "a": [[1, 0], [0, 1]], "5": None}


def test_a_published_record_names_no_place_of_this_machine(workspace):
    place = {
        "inside": str(workspace / "data" / "x.pt"),
        "outside": ["/mnt/someone/photos"],
        "home": f"read from {Path.home()}/a",
        "text": f"in {workspace}/data",
        "plain": "red/green",
    }
    assert redact_paths(place) == {
        "inside": "data/x.pt",
        "outside": ["<outside>/photos"],
        "home": "read from ~/a",
        "text": "in ./data",
        "plain": "red/green",
    }


def test_publishing_adds_the_final_record(workspace):
    record = start_record()
    record.save_results({"n": 1})
    record.update(status="ok", seconds=2.5)
    publish(record, workspace / "figures")
    saved = json.loads((workspace / "figures/02_search.json").read_text())
    assert saved["results"] == {"n": 1}
    assert (saved["record"]["status"], saved["record"]["seconds"]) == ("ok", 2.5)
    assert "python" not in saved["record"]


def test_publishing_removes_what_the_notebook_no_longer_makes(workspace):
    first = start_record()
    save_figure(draw(), "old", first)
    publish(first, workspace / "figures")
    second = Record(paths.RUNS / "again")
    second.update(**first.read())
    save_figure(draw(), "new", second)
    publish(second, workspace / "figures")
    names = {path.name for path in (workspace / "figures").iterdir()}
    assert names == {"new.png", "new.json"}


def test_publishing_refuses_the_figure_name_of_another_notebook(workspace):
    save_figure(draw(), "map", start_record("02_search"))
    publish(start_record_of("02_search"), workspace / "figures")
    save_figure(draw(), "map", start_record("07_map"))
    with pytest.raises(ValueError, match="map.json is already saved by 02_search"):
        publish(start_record_of("07_map"), workspace / "figures")


def start_record_of(run):
    return Record(paths.RUNS / run)


def test_the_same_figure_gives_the_same_bytes():
    record = start_record()
    first = save_figure(draw(), "line", record).read_bytes()
    second = save_figure(draw(), "line", record).read_bytes()
    assert first == second
    assert b"Software" not in first


def test_a_figure_is_saved_at_200_dpi_with_words_beside_it():
    record = start_record()
    path = save_figure(draw(), "line", record, caption="It falls.")
    assert plt.imread(path).shape[:2] == (640, 1400)  # 7.0 x 3.2 inches
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["record"]["parameters"] == {"seed": 3}
    assert beside["figure"] == {
        "file": "line.png",
        "caption": "It falls.",
        "alt": "It falls.",
        "order": 0,
    }


def test_figures_keep_the_order_in_which_they_were_first_saved():
    record = start_record()
    for name in ("b", "a"):
        path = save_figure(draw(), name, record)
    assert json.loads(path.with_suffix(".json").read_text())["figure"]["order"] == 1


def test_figures_of_a_sweep_get_names_of_their_own():
    record = start_record("02_search", run="02_search-seed=1")
    assert save_figure(draw(), "line", record).name == "line-seed=1.png"


@pytest.mark.parametrize("name", ["", "a/b", "../a", "02_search"])
def test_a_figure_name_that_is_a_path_or_the_results_is_refused(name):
    with pytest.raises(ValueError, match="must be letters"):
        save_figure(draw(), name, start_record())


def commit_all(root, message):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", root, "add", "-A"], check=True)
    command = ["git", "-C", root, *identity, "commit", "-q", "-m", message, "--no-verify"]
    subprocess.run(command, check=True)


def test_published_results_do_not_make_the_checkout_dirty(workspace):
    subprocess.run(["git", "init", "-q", workspace], check=True)
    (workspace / "code.py").write_text("a = 1")
    commit_all(workspace, "first")
    (workspace / "figures").mkdir()
    (workspace / "figures/a.json").write_text("{}")
    state = provenance.git_state()
    assert (len(state["commit"]), state["dirty"]) == (40, False)
    (workspace / "code.py").write_text("a = 2")
    assert provenance.git_state()["dirty"] is True


def test_outside_a_checkout_there_is_no_commit(workspace, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(workspace.parent))
    assert provenance.git_state() == {"commit": None, "dirty": None}


def test_versions_name_every_package_that_results_depend_on():
    found = provenance.versions()
    assert found["python"].startswith("3.")
    assert found["numpy"] == np.__version__
    assert set(found) == {"python", *provenance.PACKAGES}


def test_the_device_is_the_cpu_where_no_gpu_was_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert provenance.describe_device().startswith("cpu (")
