"""Change one thing at a time in a module, and see whether its tests notice (`make mutants`).

The changes are cosmic-ray's: an operator, a number, a comparison, a loop that never runs. Only
some are tried, drawn by a seed, each in a copy of the checkout, by the tests of its module alone.
What no test noticed is listed in a file, to be read: a gap in the tests, or a change that makes
no difference.
"""

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).resolve().parents[1]
TESTS = {  # modules, and the tests of each
    "data/masks": ["data/rle", "data/mask_bits"],
    "data/prompts": ["data/prompts"],
    "index/tables": ["index/index", "index/index_regions"],
    "metrics/ranking": ["metrics/metrics", "metrics/relevance"],
    "models/mask_generator": ["models/mask_generator"],
    "models/sam": ["models/masking", "models/bounded_sam"],
    "search/images": ["search/search"],
    "search/scoring": ["search/ranking"],
    "util/errors": ["util/memory"],
}
PATIENCE = 5, 60  # times the tests' own time, and seconds more, until a mutant counts as stuck


@dataclass(frozen=True)
class Mutant:
    """A change of a module: cosmic-ray's operator and which of its places."""

    module: str
    operator: str
    place: int
    line: int


def list_mutants(module: str, path: Path) -> list[Mutant]:
    """Return all changes of a module but those of type annotations."""
    annotations = _find_annotations(path.read_text("utf-8"))
    nodes = list(ast_nodes(get_ast_from_path(path)))
    found = []
    for name in sorted(cosmic_ray.plugins.operator_names()):
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments() or name.endswith("/NoOp"):
            continue
        places = [place for node in nodes for place in kind().mutation_positions(node)]
        for number, (start, _) in enumerate(places):
            if not any(first <= start < last for first, last in annotations):
                found.append(Mutant(module, name, number, start[0]))
    return found


def _find_annotations(code: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where type annotations begin and end, as (line, column)."""
    parts = []
    for node in ast.walk(ast.parse(code)):
        parts += [getattr(node, "annotation", None), getattr(node, "returns", None)]
    held = [part for part in parts if part is not None]
    return [((p.lineno, p.col_offset), (p.end_lineno, p.end_col_offset)) for p in held]


def draw_mutants(mutants: list[Mutant], most: int, seed: int) -> list[Mutant]:
    """Draw changes, at most one a line as long as there are lines."""
    mixed = sorted(mutants, key=lambda mutant: (mutant.operator, mutant.place))
    random.Random(f"{seed} {mixed[0].module if mixed else ''}").shuffle(mixed)
    seen, first, again = set(), [], []
    for mutant in mixed:
        (again if mutant.line in seen else first).append(mutant)
        seen.add(mutant.line)
    return (first + again)[:most]


def copy_checkout(folder: Path) -> Path:
    """Copy what tests need, so that a run that is killed leaves no change behind."""
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("lib", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "data" / "toybox", folder / "data" / "toybox")
    return folder


def find_test(name: str) -> str:
    """Return where the tests of a name in `TESTS` lie, below the checkout."""
    room, _, stem = name.rpartition("/")
    return str(Path("tests", room, f"test_{stem}.py"))


def run_tests(checkout: Path, module: str, limit: float | None = None) -> str:
    """Return what the tests of a module say: "passed", "failed" or "stuck"."""
    tests = [find_test(name) for name in TESTS[module]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    env = os.environ | {"PYTHONPATH": str(checkout / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=checkout, env=env, capture_output=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return "stuck"
    return "failed" if done.returncode else "passed"


def try_mutants(checkout: Path, module: str, most: int, seed: int) -> list[dict]:
    """Try some changes of a module and return what became of each.

    Raises
    ------
    RuntimeError
        If the tests of the module fail without any change.
    """
    path = checkout / "lib" / "regionlab" / f"{module}.py"
    code = path.read_text("utf-8")
    began = time.perf_counter()
    if run_tests(checkout, module) != "passed":
        raise RuntimeError(f"the tests of {module} fail as it is: mend that first")
    limit = PATIENCE[0] * (time.perf_counter() - began) + PATIENCE[1]
    results = []
    try:
        for mutant in draw_mutants(list_mutants(module, path), most, seed):
            operator = cosmic_ray.plugins.get_operator(mutant.operator)()
            changed = mutate_code(code, operator, mutant.place)
            path.write_text(changed, "utf-8")
            said = run_tests(checkout, module, limit)
            diff = difflib.unified_diff(code.splitlines(), changed.splitlines(), n=0, lineterm="")
            lines = [line for line in diff if line[:3] not in ("---", "+++")]
            results.append(asdict(mutant) | {"tests": said, "diff": lines})
            print(f"{module}:{mutant.line} {said}", flush=True)
    finally:
        path.write_text(code, "utf-8")
    return results


def summarise(results: list[dict]) -> dict:
    """Return killed and tried of each module and of all, and the survivors."""
    tried = Counter(result["module"] for result in results)
    alive = [result for result in results if result["tests"] == "passed"]
    lost = Counter(result["module"] for result in alive)
    scores = {name: {"killed": tried[name] - lost[name], "tried": tried[name]} for name in tried}
    scores["all"] = {"killed": len(results) - len(alive), "tried": len(results)}
    return {"scores": scores, "survivors": alive}


def main(arguments: list[str] | None = None) -> None:
    """Try mutants of the modules named, write the report, and print the scores."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; by default all")
    parser.add_argument("--most", type=int, default=20, help="mutants a module (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--to", type=Path, default=ROOT / "data" / "mutants.json")
    options = parser.parse_args(arguments)
    if strange := sorted(set(options.modules) - set(TESTS)):
        parser.error(f"no tests are known of {strange[0]!r}; known: {', '.join(TESTS)}")
    results = []
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkout = copy_checkout(Path(folder))
        for module in options.modules or TESTS:
            results += try_mutants(checkout, module, options.most, options.seed)
    report = summarise(results)
    options.to.parent.mkdir(parents=True, exist_ok=True)
    options.to.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for name, score in report["scores"].items():
        print(f"{name:14} {score['killed']} of {score['tried']} killed")
    for survivor in report["survivors"]:
        print(f"\n{survivor['module']}.py", *survivor["diff"], sep="\n")
    print(f"\nAll of it is in {options.to}")


if __name__ == "__main__":
    main()
