"""Profiles whose notebooks run side by side, as tasks of a local Ray."""

import contextlib
import io
import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from regionlab.cli import main
from regionlab.runs.parallel import open_cluster
from regionlab.util import paths

MEET = """
import time
from pathlib import Path
from regionlab.runs import record as records

Path(f"../data/{seed}").touch()
for _ in range(1200):  # two minutes, if the other does not run at the same time
    if Path("../data/0").exists() and Path("../data/1").exists():
        break
    time.sleep(0.1)
else:
    raise RuntimeError("alone")
records.current().save_results({"seed": seed})
"""


def write_notebook(name, *code):
    parameters = new_code_cell("seed = 0  # randomness", metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# {name}?\n\n> A."), parameters, *map(new_code_cell, code)]
    nbformat.write(new_notebook(cells=cells), paths.NOTEBOOKS / f"{name}.ipynb")


@pytest.fixture(scope="module")
def cluster():
    """A Ray of its own: workers that die elsewhere may hold a processor for a while."""
    with open_cluster(num_cpus=2, num_gpus=0, object_store_memory=100_000_000) as ray:
        yield ray


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):
    """Return (exit code, printed text, root) of a profile with every kind of ending."""
    root = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", root)
        places = {"NOTEBOOKS": "notebooks", "FIGURES": "figures", "RUNS": "data/runs"}
        for name, place in places.items():
            patch.setattr(paths, name, root / place)
        (root / "data").mkdir()
        paths.NOTEBOOKS.mkdir()
        write_notebook("dying", "import os, signal; os.kill(os.getppid(), signal.SIGKILL)")
        write_notebook("needy")
        write_notebook("meeting", MEET)
        write_notebook("last", "from pathlib import Path; assert Path('../data/1').exists()")
        (paths.NOTEBOOKS / "tiny.yaml").write_text(
            "notebooks:\n"
            "  - {notebook: dying}\n"
            "  - {notebook: needy, needs: [dying]}\n"
            "  - {notebook: meeting, parameters: {seed: [0, 1]}}\n"
            "  - {notebook: last, needs: [meeting]}\n"
        )
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = main(["run", "tiny", "--ray"])
        yield code, printed.getvalue(), root
    shutil.rmtree(root, ignore_errors=True)


def read_record(root, run):
    return json.loads((root / f"data/runs/tiny/{run}/record.json").read_text())


def test_runs_that_do_not_need_each_other_run_at_the_same_time(finished):
    code, printed, root = finished
    assert "meeting-seed=0 … ok" in printed and "meeting-seed=1 … ok" in printed
    assert [read_record(root, f"meeting-seed={seed}")["seed"] for seed in (0, 1)] == [0, 1]


def test_a_run_waits_for_those_that_it_needs(finished):
    assert read_record(finished[2], "last")["status"] == "ok"


def test_a_run_whose_process_dies_fails_and_stops_no_other(finished):
    code, printed, root = finished
    assert code == 1
    assert "2 of 5 did not succeed: dying (failed), needy (skipped)" in printed
    assert read_record(root, "dying")["status"] == "failed"
    assert "WorkerCrashedError" in read_record(root, "dying")["error"]["message"]
    assert not (root / "data/runs/tiny/needy").exists()


def test_results_are_published_with_their_records(finished):
    for seed in (0, 1):
        content = json.loads((finished[2] / f"figures/tiny/meeting-seed={seed}.json").read_text())
        assert content["results"] == {"seed": seed}
        assert content["record"]["status"] == "ok"
