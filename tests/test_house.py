"""The rules of the house: versions agree, git holds what it should, notebooks keep their habits."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
import tomllib
import warnings
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from regionlab.util import paths

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


# --- versions -------------------------------------------------------------------------


def canonical(requirement):
    name = re.match(r"[\w.-]+", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines):
    return {canonical(line): line.split("==")[1] for line in lines if "==" in line}


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def extra(name):
    """Return the requirements of an extra, those of the extras that it names among them."""
    for requirement in project()["optional-dependencies"][name]:
        if own := re.fullmatch(r"regionlab\[(.*)\]", requirement):
            for other in own[1].split(","):
                yield from extra(other)
        else:
            yield requirement


def direct_requirements():
    return project()["dependencies"] + list(extra("dev"))


def lock_lines():
    return [line for line in read("requirements.lock").splitlines() if not line.startswith("#")]


def pip_section():
    dependencies = yaml.safe_load(read("environment.yml"))["dependencies"]
    return next(item["pip"] for item in dependencies if isinstance(item, dict))


def test_lock_pins_exact_versions_and_names_no_host():
    strange = [line for line in lock_lines() if not re.fullmatch(r"[a-z0-9.-]+==[\w.]+", line)]
    assert strange == []


def test_lock_leaves_the_build_of_torch_open():
    builds = ("cuda", "nvidia", "triton")
    assert [line for line in lock_lines() if "+" in line or line.startswith(builds)] == []


def test_lock_holds_every_direct_dependency():
    locked = pins(lock_lines())
    assert [name for name in map(canonical, direct_requirements()) if name not in locked] == []


def test_lock_keeps_the_pins_of_pyproject():
    locked, wanted = pins(lock_lines()), pins(direct_requirements())
    assert wanted["torch"] == "2.13.0"
    assert {name: locked[name] for name in wanted} == wanted


def test_environment_has_the_direct_dependencies_at_the_versions_of_the_lock():
    locked = pins(lock_lines())
    wanted = {name: locked[name] for name in map(canonical, direct_requirements())}
    assert pins(pip_section()) == wanted


def test_environment_installs_the_package_on_a_python_that_it_supports():
    assert "-e ." in pip_section()
    assert "python=3.11" in yaml.safe_load(read("environment.yml"))["dependencies"]
    assert tomllib.loads(read("pyproject.toml"))["project"]["requires-python"] == ">=3.11"


# --- make, and what pytest promises ---------------------------------------------------


def test_make_help_lists_every_target():
    targets = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[1].split()
    command = ["make", "--no-print-directory", "-C", ROOT]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()[1:]] == targets
    assert all(len(line.split()) > 1 for line in shown.splitlines()[1:])


def test_warnings_of_our_package_are_errors():
    with pytest.raises(UserWarning):
        warnings.warn_explicit("ours", UserWarning, "index.py", 1, module="regionlab.index.build")


# --- paths ----------------------------------------------------------------------------


def test_root_is_the_checkout_whatever_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert paths.find_root({}) == ROOT
    assert paths.find_root({"REGIONLAB_ROOT": ""}) == ROOT


def test_root_can_be_named(tmp_path):
    assert paths.find_root({"REGIONLAB_ROOT": str(tmp_path)}) == tmp_path.resolve()


def test_root_that_is_no_folder_is_refused():
    with pytest.raises(NotADirectoryError, match="REGIONLAB_ROOT is 'no/where'"):
        paths.find_root({"REGIONLAB_ROOT": "no/where"})


def test_installed_copy_works_in_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "a" / "b" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    assert paths.find_root({}) == tmp_path.resolve()


# --- git ------------------------------------------------------------------------------


def git(*arguments):
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


in_git = pytest.mark.skipif(
    git("ls-files", "--error-unmatch", "Makefile").returncode != 0, reason="not a git checkout"
)


def tracked():
    listed = (ROOT / name for name in git("ls-files", "-z").stdout.split("\0") if name)
    return [path for path in listed if path.is_file()]


def is_ignored(name):
    return git("check-ignore", "--no-index", "-q", name).returncode == 0


@in_git
@pytest.mark.parametrize(
    "name",
    [
        "lib/regionlab/new.py",
        "figures/new.png",
        "figures/coco/new.json",
        "notebooks/new.ipynb",
        "data/README.md",
        "data/toybox/README.md",
        "data/toybox/toyclip.json",
        "data/toybox/toyclip.safetensors",
    ],
)
def test_git_keeps_sources_figures_and_models(name):
    assert not is_ignored(name)


@in_git
@pytest.mark.parametrize(
    "name",
    [
        "data/runs/01/record.json",
        "data/val2017/1.jpg",
        "data/toybox/images/1.png",
        "data/toybox/annotations/instances.json",
        "data/toybox/toyclip.pt",
        ".venv/bin/python",
        "lib/regionlab.egg-info/PKG-INFO",
        "lib/regionlab/__pycache__/paths.pyc",
        "notebooks/.ipynb_checkpoints/a.ipynb",
    ],
)
def test_git_ignores_what_is_generated(name):
    assert is_ignored(name)


@in_git
def test_tracked_files_are_small():
    weights = [path for path in tracked() if path.suffix == ".safetensors"]
    others = [path for path in tracked() if path.suffix != ".safetensors"]
    assert [path for path in others if path.stat().st_size >= 3 * MIB] == []
    assert {path.parent for path in weights} <= {ROOT / "data" / "toybox"}
    assert sum(path.stat().st_size for path in weights) <= 24e6


# --- modules --------------------------------------------------------------------------

LIB = ROOT / "lib"
OURS = ("regionlab", "toybox")


def name_module(path):
    return ".".join(path.relative_to(LIB).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_module(path): path for path in sorted(LIB.rglob("*.py"))}
ROOMS = sorted({path.parent for path in MODULES.values()})


def is_for_types_only(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def walk(node):
    """Yield the nodes of code that runs: not those that only say types."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_types_only(child):
            yield from walk(child)


def list_imports(path):
    """Yield what a module imports, late imports too, as dotted names."""
    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_own(name):
    """Return the module of ours that a dotted name is, or is in; None for what is not ours."""
    return next((one for one in (name, name.rpartition(".")[0]) if one in MODULES), None)


def test_modules_hold_one_idea_each():
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 480} == {}


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(LIB)))
def test_a_room_is_small_and_holds_no_family_that_wants_its_own(room):
    stems = [path.stem for path in room.glob("*.py") if not path.stem.startswith("__")]
    prefixes = [stem.partition("_")[0] for stem in stems]
    assert len(stems) <= 15
    assert {prefix for prefix in prefixes if prefixes.count(prefix) >= 3} == set()


def test_the_library_has_at_most_125_modules():
    """A folder's `__init__` counts where it holds more than a docstring."""
    lengths = [len(path.read_text("utf-8").splitlines()) for path in MODULES.values()]
    assert sum(length > 1 for length in lengths) <= 125


def test_there_are_no_import_cycles_late_imports_counted():
    graph = {
        name: {find_own(imported) for imported in list_imports(path)} - {None, name, *OURS}
        for name, path in MODULES.items()
    }
    # a package's own file may name its modules; Toybox is built on us, and loaders reach it late
    graph = {a: {b for b in found if not (b.startswith("toybox") and not a.startswith("toybox"))}
             for a, found in graph.items()}  # fmt: skip
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as e:
        pytest.fail(f"a cycle of imports: {' -> '.join(e.args[1])}")


# --- dependencies ---------------------------------------------------------------------

DISTRIBUTIONS = packages_distributions()


def test_every_package_that_is_imported_is_declared():
    tops = {name.split(".")[0] for path in MODULES.values() for name in list_imports(path)}
    foreign = tops - set(sys.stdlib_module_names) - set(OURS)
    declared = set(map(canonical, direct_requirements()))
    undeclared = {
        top for top in foreign if not declared & set(map(canonical, DISTRIBUTIONS.get(top, [top])))
    }
    assert undeclared == set()


def test_what_all_of_us_import_is_in_the_core():
    """No module of the core imports an extra's package at its top."""
    core = set(map(canonical, project()["dependencies"]))
    extras = set(map(canonical, extra("dev"))) - core
    found = set()
    for name, path in MODULES.items():
        if not name.startswith(("regionlab.service", "regionlab.bench")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    top = (getattr(node, "module", None) or node.names[0].name).split(".")[0]
                    if extras & set(map(canonical, DISTRIBUTIONS.get(top, []))):
                        found.add((name, top))
    assert found == set()


# --- notebooks ------------------------------------------------------------------------

ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(home|Users|root|tmp|mnt)/|(?<!\w)[A-Z]:\\")


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def comment_lines(text):
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def is_literal_assignment(statement):
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign) and statement.value:
        targets = [statement.target]
    else:
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return False
    return len(targets) == 1 and isinstance(targets[0], ast.Name)


def title_faults(notebook):
    first = notebook["cells"][0]
    lines = [line for line in source(first).splitlines() if line.strip()]
    if first["cell_type"] != "markdown" or not lines or not lines[0].startswith("# "):
        yield "the first cell is not an H1 title"
    elif len(lines) < 2 or not lines[1].startswith("> "):
        yield "no blockquote sentence follows the title"


def parameter_faults(notebook):
    tagged = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1 or tagged[0]["cell_type"] != "code":
        yield f"{len(tagged)} cells are tagged parameters, not one code cell"
        return
    text = source(tagged[0])
    commented = comment_lines(text)
    for statement in ast.parse(text).body:
        if not is_literal_assignment(statement):
            yield f"a parameter is no literal: {ast.unparse(statement)}"
        if statement.end_lineno not in commented:
            yield f"a parameter has no comment: {ast.unparse(statement)}"


def code_faults(notebook):
    for cell in code_cells(notebook):
        text = source(cell)
        parameters = "parameters" in cell["metadata"].get("tags", [])
        tree = ast.parse(text).body
        imports = all(isinstance(one, ast.Import | ast.ImportFrom) for one in tree)
        if len(text.splitlines()) > (30 if parameters or imports else 20):
            yield f"a cell is over 20 lines: {text[:40]!r}"
        for node in ast.walk(ast.parse(text)):
            is_def = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if is_def and node.end_lineno - node.lineno >= 12:
                yield f"a def is over 12 lines: {node.name}"


def leftover_faults(notebook):
    if any(cell["outputs"] or cell["execution_count"] for cell in code_cells(notebook)):
        yield "a cell has outputs or an execution count"
    if {"papermill", "widgets"} & set(notebook["metadata"]):
        yield "the metadata of a run was kept"
    if any(ABSOLUTE_PATH.search(source(cell)) for cell in notebook["cells"]):
        yield "an absolute path"


def notebook_faults(notebook):
    checks = (title_faults, parameter_faults, code_faults, leftover_faults)
    return [fault for check in checks for fault in check(notebook)]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_notebook_keeps_the_habits(path):
    assert notebook_faults(json.loads(path.read_text(encoding="utf-8"))) == []


def markdown(text):
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text, *, tags=(), outputs=(), count=None):
    metadata = {"tags": list(tags)}
    cell = {"cell_type": "code", "metadata": metadata, "source": text.splitlines(keepends=True)}
    return cell | {"outputs": list(outputs), "execution_count": count}


TITLE = markdown("# Does it?\n\n> It does, in 2 of 6 cases.")
PARAMETERS = code('k: int = -1  # how many\nnames = ["a", "b"]  # which', tags=["parameters"])
SHORT = code("def f(x):\n    y = x\n    y += 1\n    z = y\n    return z\nprint('Total:\\n')")


def test_good_notebook_has_no_faults():
    assert notebook_faults({"metadata": {}, "cells": [TITLE, PARAMETERS, SHORT]}) == []


@pytest.mark.parametrize(
    ("fault", "cells"),
    [
        ("not an H1", [PARAMETERS]),
        ("not an H1", [markdown("## Does it?\n\n> Yes."), PARAMETERS]),
        ("no blockquote", [markdown("# Does it?\n\nIt does."), PARAMETERS]),
        ("no blockquote", [markdown("# Does it?"), PARAMETERS]),
        ("0 cells are tagged", [TITLE, SHORT]),
        ("2 cells are tagged", [TITLE, PARAMETERS, PARAMETERS]),
        (
            "no literal: twice",
            [TITLE, code("a = 1  # one\ntwice = a * 2  # two", tags=["parameters"])],
        ),
        ("no literal: import", [TITLE, code("import os  # why", tags=["parameters"])]),
        ("no literal: a = b", [TITLE, code("a = b = 1  # two", tags=["parameters"])]),
        ("no comment: k", [TITLE, code("# how many\nk = 5", tags=["parameters"])]),
        ("no comment: k", [TITLE, code("k = '# five'", tags=["parameters"])]),
        ("outputs or", [TITLE, PARAMETERS, code("1", outputs=[{"output_type": "stream"}])]),
        ("outputs or", [TITLE, PARAMETERS, code("1", count=3)]),
        ("over 12 lines: f", [TITLE, PARAMETERS, code("def f():\n" + "    a = 1\n" * 12)]),
        ("over 20 lines", [TITLE, PARAMETERS, code("a = 1\n" * 21)]),
        ("absolute path", [TITLE, PARAMETERS, code("open('/home/me/a.png')")]),
        ("absolute path", [TITLE, PARAMETERS, markdown("See /Users/me/Desktop.")]),
        ("absolute path", [TITLE, PARAMETERS, code(r"open('C:\\a.png')")]),
    ],
)
def test_bad_notebook_is_told_its_fault(fault, cells):
    (found,) = notebook_faults({"metadata": {}, "cells": cells})
    assert fault in found


def test_run_metadata_in_a_notebook_is_a_fault():
    notebook = {"metadata": {"papermill": {}}, "cells": [TITLE, PARAMETERS]}
    assert notebook_faults(notebook) == ["the metadata of a run was kept"]
