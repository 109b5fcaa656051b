import contextlib
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from regionlab.cli import main
from regionlab.runs import runner as execution
from regionlab.runs import runner as runs
from regionlab.runs.parameters import check_value, read_notebook, read_parameters
from regionlab.runs.profiles import load_profile
from regionlab.runs.record import Record
from regionlab.util import paths

SAVE = """
from regionlab.runs import record as records
from regionlab.util.progress import progress

record = records.current()
record.add(index="abc")
record.save_results({"seed": seed, "hit@1": {"value": 2 / 3, "ci95": [0.5, 1.0], "n": 3}})
for _ in progress(range(3), "count"):
    pass
"""


def write_notebook(name, parameters="seed = 0  # randomness", *code):
    """Write a notebook with one parameters cell and some code, and return its path."""
    head = [new_markdown_cell(f"# What is {name}?\n\n> A number."), tagged(parameters)]
    cells = [*head, *map(new_code_cell, code)]
    path = paths.NOTEBOOKS / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def tagged(source):
    return new_code_cell(source, metadata={"tags": ["parameters"]})


def write_profile(text, name="tiny"):
    path = paths.NOTEBOOKS / f"{name}.yaml"
    path.write_text(text)
    return path


def place_workspace(monkeypatch, root):
    """Let every path of the package lie under `root`, and nothing touch the checkout."""
    monkeypatch.setattr(paths, "ROOT", root)
    places = {"NOTEBOOKS": "notebooks", "FIGURES": "figures", "DATA": "data", "RUNS": "data/runs"}
    for name, place in places.items():
        monkeypatch.setattr(paths, name, root / place)
    paths.NOTEBOOKS.mkdir()


@pytest.fixture
def workspace(monkeypatch, tmp_path):
    place_workspace(monkeypatch, tmp_path)
    return tmp_path


def run_command(*arguments):
    """Run the command line here and return (exit code, what it printed)."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["run", *arguments])
    return code, printed.getvalue()


# ---- what real kernels do: run once, looked at by many tests


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return (exit code, printed text, root) of a profile with every kind of ending."""
    root = tmp_path_factory.mktemp("a folder {with} braces")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("REGIONLAB_ROOT", raising=False)
        place_workspace(monkeypatch, root)
        where = f"data = {str(root / 'data' / 'x')!r}  # where"
        write_notebook("bad", "seed = 0  # s", SAVE, "raise ValueError('first line\\nlast line')")
        write_notebook("needy", "seed = 0  # s")
        write_notebook("good", f"seed = 0  # s\n{where}", SAVE)
        write_notebook("dying", "seed = 0  # s", "import os; os._exit(3)")
        write_notebook("slow", "seed = 0  # s", "import time; time.sleep(60)")
        write_profile(
            "parameters: {seed: 7}\n"
            "notebooks:\n"
            "  - {notebook: bad}\n"
            "  - {notebook: needy, needs: [bad]}\n"
            "  - {notebook: good}\n"
            "  - {notebook: dying}\n",
            "toybox",
        )
        write_profile("timeout_s: 0.5\nnotebooks: [{notebook: slow}]", "hurried")
        (root / "README.md").write_text("<!-- results:good -->\n<!-- /results -->\n")
        code, printed = run_command("toybox")
        yield code, printed, root


def read_record(root, run, profile="toybox"):
    return json.loads((root / f"data/runs/{profile}/{run}/record.json").read_text())


def test_a_failed_notebook_makes_the_command_fail(finished):
    code, printed, _ = finished
    assert code == 1
    assert "3 of 4 did not succeed: bad (failed), needy (skipped), dying (failed)" in printed


def test_a_failure_is_told_with_its_last_line_cell_and_page(finished):
    _, printed, root = finished
    assert "    ValueError: last line\n    at In [4]: raise ValueError" in printed
    page = Path("data/runs/toybox/bad/bad.html")
    assert f"    see {page}\n" in printed
    assert (root / page).is_file()


def test_what_needs_a_failed_notebook_is_skipped_and_the_others_run(finished):
    _, printed, root = finished
    assert "[2/4] needy … skipped: it needs bad" in printed
    assert not (root / "data/runs/toybox/needy").exists()
    assert "[3/4] good … ok" in printed


def test_a_dead_kernel_is_a_failure_like_others(finished):
    record = read_record(finished[2], "dying")
    assert record["status"] == "failed"
    assert record["error"]["message"].startswith("DeadKernelError")
    assert "os._exit(3)" in record["error"]["cell"]


def test_the_record_holds_defaults_and_given_parameters(finished):
    root = finished[2]
    record = read_record(root, "good")
    assert record["parameters"] == {"seed": 7, "data": str(root / "data" / "x")}
    assert (record["seed"], record["status"]) == (7, "ok")
    assert record["extras"] == {"index": "abc"}
    assert record["seconds"] > 0


def test_results_are_published_with_a_record_free_of_this_machine(finished):
    root = finished[2]
    text = (root / "figures/good.json").read_text()
    saved = json.loads(text)
    assert saved["results"]["seed"] == 7
    assert saved["record"]["parameters"]["data"] == "data/x"
    assert saved["record"]["status"] == "ok"
    assert str(root) not in text


def test_results_of_a_failed_notebook_are_not_published(finished):
    root = finished[2]
    assert (root / "data/runs/toybox/bad/results/bad.json").is_file()
    assert not (root / "figures/bad.json").exists()


def test_headless_progress_is_a_line_of_text(finished):
    notebook = read_notebook(finished[2] / "data/runs/toybox/good/good.ipynb")
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "count: 3/3 in 0.0 s" in printed


def test_the_page_of_a_run_asks_the_network_for_nothing(finished):
    page = (finished[2] / "data/runs/toybox/good/good.html").read_text()
    assert "hit@1" in page
    assert not any(f'{key}="http' in page for key in ("src", "href"))
    assert "<script" not in page


def test_the_gallery_asks_the_question_and_shows_the_answer(finished):
    gallery = (finished[2] / "figures/README.md").read_text()
    assert "## What is good?\n\n> A number.\n" in gallery
    assert "| hit@1 | 0.667 [0.500, 1.000] | 3 |" in gallery
    assert "[Results and record](good.json)" in gallery
    assert gallery.index("What is bad?") < gallery.index("No results yet.")


def test_the_report_is_named_at_the_end_and_tells_the_failures(finished):
    _, printed, root = finished
    assert f"see {Path('figures/README.md')} and {Path('data/runs/toybox/report.html')}" in printed
    page = (root / "data/runs/toybox/report.html").read_text()
    assert "3 of 4 did not succeed." in page
    assert "ValueError: last line" in page and "skipped: it needs bad" in page
    assert "<td>hit@1</td><td class='number'>0.667 [0.500, 1.000]</td>" in page


def test_the_readme_gets_its_table(finished):
    assert "| seed | 7 |  |\n" in (finished[2] / "README.md").read_text()


def test_the_environment_is_left_as_it_was(finished):
    assert not {"REGIONLAB_RUN", "REGIONLAB_ROOT"} & set(os.environ)


def test_a_notebook_over_its_time_is_stopped(finished):
    code, printed = run_command("hurried")
    assert code == 1
    assert "longer than the profile's timeout_s" in printed
    assert read_record(finished[2], "slow", "hurried")["status"] == "failed"


# ---- what happens around the kernel: `execute` is replaced


@pytest.fixture
def executed(workspace, monkeypatch):
    """Return the list of runs that were executed; each saves its parameters as results."""
    done = []

    def execute(run, executed, *, timeout_s):
        done.append(run.name)
        Record(executed.parent).save_results(run.parameters)
        nbformat.write(new_notebook(), executed)

    monkeypatch.setattr(runs, "execute", execute)
    return done


@pytest.fixture
def chain(executed):
    """Return `executed`, with a profile of two notebooks, the second needing the first."""
    write_notebook("one")
    write_notebook("two")
    write_profile("notebooks: [{notebook: one}, {notebook: two, needs: [one]}]")
    return executed


def test_everything_runs_again_by_default(chain):
    run_command("tiny")
    run_command("tiny")
    assert chain == ["one", "two", "one", "two"]


def test_resume_keeps_what_succeeded_unchanged(chain):
    run_command("tiny")
    code, printed = run_command("tiny", "--resume")
    assert chain == ["one", "two"]
    assert code == 0
    assert "[2/2] two … kept from before" in printed


def test_resume_brings_back_deleted_figures(chain, workspace):
    run_command("tiny")
    (workspace / "figures/tiny/one.json").unlink()
    run_command("tiny", "--resume")
    assert (workspace / "figures/tiny/one.json").is_file()


def test_resume_runs_a_changed_notebook_and_what_needs_it(chain):
    run_command("tiny")
    write_notebook("one", "seed = 0  # randomness", "changed = True")
    run_command("tiny", "--resume")
    assert chain == ["one", "two", "one", "two"]


def test_resume_runs_other_parameters_again(chain):
    run_command("tiny")
    write_profile("notebooks: [{notebook: one, parameters: {seed: 1}}, {notebook: two}]")
    run_command("tiny", "--resume")
    assert chain == ["one", "two", "one"]


def test_resume_does_not_trust_a_run_that_was_killed(chain, workspace):
    run_command("tiny")
    Record(workspace / "data/runs/tiny/two").update(status="running")
    run_command("tiny", "--resume")
    assert chain == ["one", "two", "two"]


def test_only_runs_the_notebooks_named(chain):
    assert run_command("tiny", "--only", "two")[0] == 0
    assert chain == ["two"]


def test_a_sweep_leaves_results_for_each_value(executed, workspace):
    write_notebook("one", "seed = 0  # s\nname = 'a'  # n")
    write_profile("notebooks: [{notebook: one, parameters: {seed: [1, 2], name: [b/c]}}]")
    run_command("tiny")
    assert executed == ["one-seed=1,name=b-c", "one-seed=2,name=b-c"]
    saved = json.loads((workspace / "figures/tiny/one-seed=2,name=b-c.json").read_text())
    assert saved["results"] == {"seed": 2, "name": "b/c"}


def test_values_set_by_hand_do_not_replace_published_results(chain, workspace):
    run_command("tiny")
    _, printed = run_command("tiny", "--set", "seed=5")
    assert "results with --set stay in" in printed
    assert chain[2:] == ["one-seed=5", "two-seed=5"]
    names = {path.name for path in (workspace / "figures/tiny").iterdir()}
    assert names == {"one.json", "two.json", "README.md"}
    assert "seed</td><td>5" not in (workspace / "data/runs/tiny/report.html").read_text()


def test_an_interrupted_run_is_recorded_as_failed(workspace, monkeypatch):
    def interrupt(run, executed, *, timeout_s):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "execute", interrupt)
    write_notebook("one")
    write_profile("notebooks: [{notebook: one}]")
    assert run_command("tiny")[0] == 130
    record = read_record(workspace, "one", "tiny")
    assert (record["status"], record["error"]["message"]) == ("failed", "interrupted")


def test_a_marker_without_results_fails_the_command(chain, workspace):
    (workspace / "README.md").write_text("<!-- results:three -->\n<!-- /results -->\n")
    write_profile("notebooks: [{notebook: one}]", "toybox")
    code, printed = run_command("toybox")
    assert code == 1
    assert "marker names 'three'" in printed


def test_a_notebook_that_stops_early_is_a_failure():
    skipped = new_code_cell("x = 1", metadata={"tags": []})
    with pytest.raises(RuntimeError, match="stopped before its end"):
        execution._check_complete(new_notebook(cells=[skipped]))


def test_a_kernel_of_another_python_is_refused(monkeypatch, tmp_path):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = ["/elsewhere/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "other"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(ValueError, match="starts /elsewhere/bin/python, not"):
        execution.check_kernel()


# ---- what is refused before anything runs


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("notebooks: [{notebook: one, parameters: {sede: 1}}]", "one: .*'sede'.* mean 'seed'"),
        ("parameters: {sede: 1}\nnotebooks: [{notebook: one}]", "'sede'; did you mean 'seed'"),
        ("notebooks: [{notebook: one, parameters: {seed: x}}]", "'seed' must .*got str 'x'"),
        ("notebooks: [{notebook: one, parameters: {seed: true}}]", "got bool True"),
        ("notebooks: [{notebook: one, parameters: {seed: []}}]", "'seed' is an empty sweep"),
        ("notebooks: [{notebook: one, parameters: {seed: [1, 1]}}]", "share the folder"),
        ("notebooks: [{notebook: one, parameter: {seed: 1}}]", "'parameter'; allowed: notebook"),
        ("notebook: [{notebook: one}]", "unknown key 'notebook'; allowed: name, timeout_s"),
        ("notebooks: []", "at least one entry"),
        ("notebooks: [one]", "must be like {notebook: NAME}, got 'one'"),
        ("notebooks: [{notebook: ../one}]", "without folder"),
        ("notebooks: [{notebook: one}, {notebook: one}]", "one is listed twice"),
        ("notebooks: [{notebook: one, needs: [two]}]", "needs 'two', which is not listed"),
        ("notebooks: [{notebook: oen}]", "no notebook oen.ipynb; did you mean 'one'"),
        ("timeout_s: -1\nnotebooks: [{notebook: one}]", "positive number of seconds, got -1"),
        ("name: ../x\nnotebooks: [{notebook: one}]", "name must be"),
        ("notebooks: [{", "is not YAML"),
    ],
)
def test_a_wrong_profile_is_refused(executed, profile, message):
    write_notebook("one")
    path = write_profile(profile)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_profile(path)


def test_one_wrong_notebook_stops_the_profile_before_it_starts(chain):
    write_notebook("two", "seed = compute()")
    code, printed = run_command("tiny")
    assert (code, chain) == (2, [])
    assert "error: two: parameters cell, line 1: 'seed = compute()'" in printed


def test_a_parameter_unknown_to_the_selected_notebooks_is_refused(chain):
    write_notebook("two", "k = 1  # cut")
    code, printed = run_command("tiny", "--only", "one", "--set", "k=2")
    assert (code, chain) == (2, [])
    assert "unknown parameter 'k'" in printed


def test_an_unknown_profile_lists_those_there_are(chain):
    code, printed = run_command("tinny")
    assert code == 2
    assert "no profile 'tinny'; profiles in notebooks/: tiny" in printed


def test_a_dry_run_lists_parameters_with_their_meaning(chain):
    code, printed = run_command("tiny", "--dry-run", "--set", "seed=3")
    assert (code, chain) == (0, [])
    assert "two-seed=3  (needs one)\n    seed = 3  # randomness (default 0)" in printed


def test_a_shared_parameter_goes_only_where_it_is_declared(workspace):
    write_notebook("one")
    write_notebook("two", "k = 1  # cut")
    text = "parameters: {k: 2}\nnotebooks: [{notebook: one}, {notebook: two}]"
    first, second = load_profile(write_profile(text)).runs
    assert (first.parameters, second.parameters) == ({"seed": 0}, {"k": 2})


def test_a_list_for_a_list_parameter_is_one_value_and_a_list_of_lists_a_sweep(workspace):
    write_notebook("one", "cuts = [1, 5]  # k")

    def values(text):
        text = f"notebooks: [{{notebook: one, parameters: {{cuts: {text}}}}}]"
        return [run.parameters["cuts"] for run in load_profile(write_profile(text)).runs]

    assert values("[1, 2, 3]") == [[1, 2, 3]]
    assert values("[[1], [2, 3]]") == [[1], [2, 3]]


# ---- the parameters cell


def parse(*cells):
    return read_parameters(new_notebook(cells=list(cells)))


def test_parameters_have_names_defaults_and_comments():
    found = parse(tagged("# ours\nname = 'a # b'  # what it is\nshares = [\n  -0.5,\n]  # parts"))
    assert [(p.name, p.default, p.comment) for p in found.values()] == [
        ("name", "a # b", "what it is"),
        ("shares", [-0.5], "parts"),
    ]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([], "found none"),
        ([tagged("a = 1"), tagged("b = 1")], "found code, code"),
        ([new_markdown_cell("a", metadata={"tags": ["parameters"]})], "found markdown"),
        ([tagged("a = 1\nb = a * 2")], "line 2: 'b = a \\* 2' is not a literal"),
        ([tagged("import os")], "is not `name = literal`"),
        ([tagged("a = b = 1")], "is not `name = literal`"),
        ([tagged("a = (1, 2)")], "is not text"),
        ([tagged("a = 1e999")], "finite"),
        ([tagged("a = 1\na = 2")], "'a' twice"),
        ([tagged("%matplotlib inline")], "line 1: invalid syntax"),
        (
            [tagged("a = 1"), new_code_cell("", metadata={"tags": ["injected-parameters"]})],
            "executed copy",
        ),
    ],
)
def test_a_parameters_cell_of_anything_else_is_refused(cells, message):
    with pytest.raises(ValueError, match=message):
        parse(*cells)


@pytest.mark.parametrize(
    ("literal", "good", "bad"),
    [
        ("1", [0, -3], [1.0, True, "1", None]),
        ("1.0", [2, 2.5], [True, "1e-3", float("nan"), None]),
        ("'a'", ["", "é"], [1, None, ["a"]]),
        ("True", [False], [1, "yes", None]),
        ("None", [None, 1, "a", [1, {"a": 2}]], [(1,), {1: 2}, float("inf")]),
        ("[1]", [[], [2, 3]], [2, ["a"], [1.5]]),
        ("[1, 'a']", [["b", 2]], [[None]]),
        ("[]", [["anything", 1]], ["text"]),
        ("{}", [{"a": [1]}], [[], {1: 2}]),
    ],
)
def test_a_value_must_be_of_the_kind_of_the_default(literal, good, bad):
    parameter = parse(tagged(f"a = {literal}"))["a"]
    for value in good:
        check_value(parameter, value)
    for value in bad:
        with pytest.raises(ValueError, match="'a' must be like its default"):
            check_value(parameter, value)


def test_text_that_looks_like_a_number_gets_a_hint():
    with pytest.raises(ValueError, match="a number is written without quotes"):
        check_value(parse(tagged("rate = 0.1"))["rate"], "1e-3")


def test_a_value_left_empty_by_hand_is_empty_text(workspace):
    write_notebook("one", 'split = "test"  # part')
    write_profile("name: tiny\nnotebooks:\n  - notebook: one\n")
    code, printed = run_command("tiny", "--dry-run", "--set", "split=")
    assert code == 0
    assert "split = ''" in printed


# ---- values as people write them


DEFAULTS = """root = ""  # folder
k = 5  # cut
rate = 0.1  # step
whole = True  # all of it
names = ["a"]  # some
sizes = [1]  # some
models = {"a": "b"}  # by title
any = None  # what you like
"""
TEXTS = [
    "/pics/holiday #1", "[a]", "[2019]", "- x", "2024-01-01", "123", "/a: b", "@eaDir", "a=b", "",
    "'quoted'", '"half', "null", "~", "true", "no", "1e5", "007", "1:30", "0x10", " spaced ", "{}",
    "{a}", "*", "&a", "!x", "%a", "# x", "|", ">", "a\nb", "\t", "back\\slash", "猫", "é", "$HOME",
]  # fmt: skip


def read_one(profile_parameters="{}", **settings):
    """Return the parameters of each run of a notebook that declares DEFAULTS."""
    write_notebook("one", DEFAULTS)
    text = f"notebooks:\n  - notebook: one\n    parameters: {profile_parameters}\n"
    return [r.parameters for r in load_profile(write_profile(text), settings=settings).runs]


@pytest.mark.parametrize("text", TEXTS)
def test_text_typed_for_a_text_parameter_is_taken_as_it_is(workspace, text):
    write_notebook("one", DEFAULTS)
    write_profile("notebooks: [{notebook: one}]")
    code, printed = run_command("tiny", "--dry-run", "--set", f"root={text}")
    assert code == 0
    assert f"    root = {text!r}  #" in printed


def test_what_is_typed_for_other_parameters_is_read_as_yaml(workspace):
    (found,) = read_one(
        k=["7"], rate=["1e-3"], whole=["no"], names=["[x, 2019, no, 2024-01-01]"],
        sizes=["[10, 2]"], models=["{DIR: toydir, 7: 007}"], any=["{a: [1, b]}"],
    )  # fmt: skip
    assert found == {
        "root": "", "k": 7, "rate": 0.001, "whole": False,
        "names": ["x", "2019", "no", "2024-01-01"], "sizes": [10, 2],
        "models": {"DIR": "toydir", "7": "007"}, "any": {"a": [1, "b"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"k": "x"}, "'k' must be like its default 5 .int., got str 'x'"),
        ({"k": "'7'"}, "got str '7' .a number is written without quotes"),
        ({"whole": "2"}, "'whole' must be like its default True .bool., got int 2"),
        ({"names": "x"}, "got str 'x' .a list is written .a, b.."),
        ({"names": "[a: b]"}, "got list .*'a': 'b'.*needs quotes"),
        ({"names": "[@x]"}, "needs quotes"),
        ({"sizes": "[no]"}, "got list .False."),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(workspace, setting, message):
    with pytest.raises(ValueError, match=message):
        read_one(**{name: [text] for name, text in setting.items()})


def test_the_same_name_is_read_as_each_notebook_declares_it(workspace):
    write_notebook("one", "words = ''  # text")
    write_notebook("two", "words = ['a']  # list")
    path = write_profile("notebooks: [{notebook: one}, {notebook: two}]")
    first, second = load_profile(path, settings={"words": ["[2019]"]}).runs
    assert (first.parameters, second.parameters) == ({"words": "[2019]"}, {"words": ["2019"]})


def test_a_name_set_twice_is_a_sweep(workspace):
    write_notebook("one", DEFAULTS)
    write_profile("notebooks: [{notebook: one}]")
    given = ("--set", "root=[a]", "--set", "root=b", "--set", "k=1", "--set", "k=[2, 3]")
    code, printed = run_command("tiny", "--dry-run", *given)
    assert code == 0
    assert printed.count("root = '[a]'") == printed.count("root = 'b'") == 3


def test_a_list_in_a_profile_is_a_sweep_of_a_text_parameter(workspace):
    assert [p["root"] for p in read_one("{root: [a, 2019, 'x #1']}")] == ["a", "2019", "x #1"]


@pytest.mark.parametrize("text", ["2024-01-01", "123", "007", "1:30", "no", "true", "1e5", "0x10"])
def test_text_without_quotes_in_a_profile_is_the_text_written(workspace, text):
    assert read_one(f"{{root: {text}}}")[0]["root"] == text


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_nothing_for_a_text_parameter_of_a_profile_wants_quotes(workspace, text):
    with pytest.raises(ValueError, match="'root' must be like .*got NoneType None .*needs quotes"):
        read_one(f"{{root: {text}}}")


@pytest.mark.parametrize("text", ["@eaDir", "a: b", "%a", "*a", "!x"])
def test_what_is_no_yaml_in_a_profile_is_told_to_need_quotes(workspace, text):
    with pytest.raises(ValueError, match="(?s)is not YAML: .*needs quotes"):
        write_notebook("one", DEFAULTS)
        write_profile(f"notebooks:\n  - notebook: one\n    parameters:\n      root: {text}\n")
        load_profile(paths.NOTEBOOKS / "tiny.yaml")


def test_a_number_with_a_leading_zero_is_not_octal(workspace):
    (found,) = read_one("{k: 010}", sizes=["[08]"])
    assert (found["k"], found["sizes"]) == (10, [8])


def test_a_key_given_twice_in_a_profile_is_refused(workspace):
    with pytest.raises(ValueError, match="is not YAML: 'k' twice"):
        read_one("{k: 1, k: 2}")


def test_runs_of_long_values_have_file_names_that_fit_and_differ(workspace):
    write_notebook("one", DEFAULTS)
    path = write_profile("notebooks: [{notebook: one}]")
    settings = {"root": ["猫" * 90 + "a", "猫" * 90 + "b"]}
    first, second = (run.name for run in load_profile(path, settings=settings).runs)
    assert first != second
    assert max(len(first.encode()), len(second.encode())) < 150


def test_a_kernel_gets_text_as_it_was_typed(workspace):
    code = ["import json, pathlib", "pathlib.Path('got.json').write_text(json.dumps(names))"]
    write_notebook("one", 'names = [""]  # some', "\n".join(code))
    (run,) = load_profile(write_profile("notebooks: [{notebook: one}]")).runs
    run = replace(run, parameters={"names": TEXTS})
    execution.execute(run, workspace / "out.ipynb", timeout_s=60)
    assert json.loads((paths.NOTEBOOKS / "got.json").read_text()) == TEXTS
