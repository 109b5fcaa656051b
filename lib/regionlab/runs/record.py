"""The record of a run: what was run, on what, and what came out.

A notebook gets its record with `current()`, adds what it used, and saves what it found:

    record = records.current()
    record.add(model=encoder.fingerprint, index=index.id)
    record.save_results({"hit@1": {"value": 0.7, "ci95": [0.67, 0.73], "n": 1000}})

All of it lands in the folder of the run. Once a notebook has finished, the runner
publishes its results and figures, so that a failed one never replaces what stands.
In JupyterLab, without the runner, everything stays under `data/runs/interactive/`.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regionlab import _HOMES
from regionlab.util import paths
from regionlab.util.files import to_json, write_json

PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "segment-anything",
    "timm",
    "faiss-cpu",
    "chromadb",
    "numpy",
    "scikit-learn",
    "papermill",
    "regionlab",
)


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state() -> dict[str, Any]:
    """Return the commit, and whether anything but published results differs from it.

    Both are None outside a git checkout.
    """
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--", ".", ":!figures", ":!README.md")
    return {"commit": commit, "dirty": None if commit is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(paths.ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def describe_device() -> str:
    """Name the device this process has computed on: a GPU once torch has used it, else the CPU."""
    torch = sys.modules.get("torch")  # not imported here: who has not, used no GPU
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"cuda ({torch.cuda.get_device_name()})"
    if torch is not None and torch.backends.mps.is_available():
        return "mps" if torch.mps.current_allocated_memory() else _describe_cpu()
    return _describe_cpu()


@functools.cache
def _describe_cpu() -> str:
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        names = []
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    return f"cpu ({names[0] if names else platform.machine()}, {len(usable)} cores)"


RUN_VARIABLE = "REGIONLAB_RUN"  # tells the kernel the folder of its run
PRIVATE = ("python", "error")  # stay on this machine
KINDS = {".png": "a figure", ".csv": "a table"}  # each has a JSON file of its name


class Record:
    """The record of one run, kept in `record.json` in the folder of that run."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    @property
    def file(self) -> Path:
        """Where the record is kept."""
        return self.folder / "record.json"

    @property
    def results_folder(self) -> Path:
        """Where results and figures wait to be published."""
        return self.folder / "results"

    def read(self) -> dict[str, Any]:
        """Return the record as it stands; empty where none was written or it is broken."""
        try:
            return json.loads(self.file.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def update(self, **values: Any) -> None:
        """Set keys of the record itself."""
        write_json(self.file, {**self.read(), **values})

    def add(self, **notes: Any) -> None:
        """Note what the run used, such as model fingerprints or an index id.

        Raises
        ------
        ValueError
            If a value is not JSON, or not finite; the message names it.
        """
        extras = {**self.read().get("extras", {}), **to_json(notes)}
        self.update(extras=extras, device=describe_device())

    def save_results(self, results: Mapping[str, Any]) -> Path:
        """Save the headline numbers of the notebook and return their file.

        Parameters
        ----------
        results
            Nested names to numbers and text. A measured quantity is
            `{"value": float, "ci95": [low, high], "n": int}`.

        Raises
        ------
        ValueError
            If a value is not JSON, or not finite; the message names it.
        """
        return self.save_beside(f"{self.read()['run']}.json", {"results": to_json(results)})

    def save_beside(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write `{"record": ..., **content}` under a file name among the results."""
        self.update(device=describe_device())
        path = self.results_folder / name
        write_json(path, {"record": self.read(), **content})
        return path

    def path_for(self, name: str, suffix: str) -> Path:
        """Return where to save a file of this run; a sweep's runs get names of their own.

        Raises
        ------
        ValueError
            If the name holds anything but letters, digits and `. _ -`, or is that of
            the results or of both a figure and a table.
        """
        record = self.read()
        if not re.fullmatch(r"[\w.-]+", name) or name == record["notebook"]:
            raise ValueError(f"name {name!r} must be letters, digits, . _ - and not the notebook's")
        self.results_folder.mkdir(parents=True, exist_ok=True)
        varying = record["run"].removeprefix(record["notebook"])
        path = self.results_folder / f"{name}{varying}{suffix}"
        for other in KINDS:
            if other != suffix and path.with_suffix(other).exists():
                raise ValueError(f"{name!r} is {KINDS[other]} already; take another name")
        return path


def current(*, fresh: bool = True) -> Record:
    """Return the record of the run this notebook is part of.

    Without the runner the record is `data/runs/interactive/<notebook>`, or `untitled`
    where Jupyter does not tell the notebook's name; `fresh` begins that one anew.
    """
    if folder := os.environ.get(RUN_VARIABLE):
        return Record(Path(folder))
    name = Path(os.environ.get("JPY_SESSION_NAME", "untitled")).stem
    record = Record(paths.RUNS / "interactive" / name)
    if fresh or not record.file.exists():
        begun = new_record(name, run=name, profile="interactive")
        record.update(**{**begun, "status": "interactive"})
    return record


def new_record(
    notebook: str,
    *,
    run: str,
    profile: str,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what is known when a run starts: the keys of a fresh record."""
    return {
        "notebook": notebook,
        "run": run,
        "profile": profile,
        "parameters": dict(parameters or {}),
        "seed": (parameters or {}).get("seed"),
        **git_state(),
        "versions": versions(),
        "python": sys.executable,
        "device": None,
        "extras": {},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": None,
        "status": "running",
        "error": None,
    }


def publish(record: Record, target: Path) -> list[Path]:
    """Copy a run's results to `target` with their final record; return what was written.

    Files that an earlier run of the same notebook left there, and this one no longer
    makes, are removed.

    Raises
    ------
    ValueError
        If a file of that name belongs to another notebook.
    """
    final = {k: v for k, v in redact_paths(record.read()).items() if k not in PRIVATE}
    staged = sorted(record.results_folder.glob("*"))
    owners = {path.name: _owner(path) for path in target.glob("*.json")}
    for path in staged:
        if owners.get(path.name) not in (None, final["run"]):
            raise ValueError(f"{path.name} is already saved by {owners[path.name]}")
    kept = {path.name for path in staged}
    for name, owner in owners.items():
        if owner == final["run"] and name not in kept:
            for suffix in (".json", ".png", ".csv", ".tex"):
                (target / name).with_suffix(suffix).unlink(missing_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    for path in staged:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            write_json(target / path.name, {**redact_paths(content), "record": final})
        else:
            shutil.copyfile(path, target / path.name)
    return [target / path.name for path in staged]


def _owner(path: Path) -> str | None:
    record = json.loads(path.read_text(encoding="utf-8")).get("record", {})
    return record.get("run")


def redact_paths(value: Any) -> Any:
    """Return a copy without places of this machine, fit to be committed.

    A path inside the project becomes relative to it, one outside keeps its last part
    only, and the project's or user's folder inside a longer text is cut out.
    """
    if isinstance(value, dict):
        return {key: redact_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact_paths(item) for item in value]
    return _portable_text(value) if isinstance(value, str) else value


def _portable_text(text: str) -> str:
    path = Path(text)
    if path.is_absolute() and "\n" not in text and path.name:
        inside = path.is_relative_to(paths.ROOT)
        return path.relative_to(paths.ROOT).as_posix() if inside else f"<outside>/{path.name}"
    for place, name in ((paths.ROOT, "."), (paths.expand("~"), "~")):
        if place.name:  # never the root of the file system
            text = text.replace(str(place), name)
    return text


# What a notebook imports of ours: only changes there make its results old

LIBRARY = Path(__file__).parents[2]
OURS = ("regionlab", "toybox")


def hash_imports(code: str) -> str:
    """Return a SHA-256 over the modules of ours that code imports, and those that they import.

    Imports within functions count. Where a module of a room is imported the whole room counts,
    since registries name their modules in tables, and so do the homes of `regionlab`'s own names.
    """
    reached, waiting = set(), list(_list_imports(ast.parse(code)))
    while waiting:
        room = _find_room(waiting.pop())
        if room not in reached:
            reached.add(room)
            waiting += _imports_of_room(room)
    digest = hashlib.sha256()
    for path in sorted(path for room in reached for path in _files_of_room(room)):
        digest.update(path.relative_to(LIBRARY).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _list_imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names of ours that are imported anywhere in code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            continue
        for name in found:
            if name == "regionlab":  # as in `import regionlab as rl`: any of its names may be used
                yield from (f"regionlab.{home}" for home in _HOMES.values())
            elif name.partition(".")[0] in OURS:
                yield _resolve(name)


def _resolve(name: str) -> str:
    """Return the home of one of `regionlab`'s own names; others as they are."""
    package, _, rest = name.partition(".")
    return f"{package}.{_HOMES[rest]}" if package == "regionlab" and rest in _HOMES else name


def _find_room(name: str) -> str:
    """Return the room of a module or name, such as "regionlab/index"; "regionlab" of its own."""
    package, *rest = name.split(".")
    if package == "toybox" or not rest:
        return package
    place = LIBRARY / package / rest[0]
    return (
        f"{package}/{rest[0]}" if place.is_dir() or place.with_suffix(".py").is_file() else package
    )


def _files_of_room(room: str) -> list[Path]:
    if room == "regionlab":
        return [LIBRARY / room / "__init__.py"]
    folder = LIBRARY / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@functools.cache
def _imports_of_room(room: str) -> list[str]:
    files = [path for path in _files_of_room(room) if path.is_file()]
    return [name for path in files for name in _list_imports(ast.parse(path.read_text("utf-8")))]
