"""Run the notebooks of a profile, strictly, each with a record: `regionlab run`.

Nothing runs before the complete profile is checked: every notebook has one parameters
cell, every parameter is known to it and of the right type. Each run leaves its executed
notebook, an HTML page, results and `record.json` in `data/runs/<profile>/<run>/`. Kernels
start in `notebooks/`, as JupyterLab's do. A failed notebook stops only those that need it.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from tqdm import tqdm
from traitlets.config import Config

from regionlab.runs.page import make_report
from regionlab.runs.parameters import read_notebook
from regionlab.runs.profiles import Profile, Run, find_profile, load_profile
from regionlab.runs.record import (
    RUN_VARIABLE,
    Record,
    hash_imports,
    new_record,
    publish,
    versions,
)
from regionlab.runs.report import (
    make_gallery,
    read_saved,
    update_marked_runs,
    update_marked_tables,
    write_html,
)
from regionlab.util import paths
from regionlab.util.errors import InputError
from regionlab.util.files import write_text
from regionlab.util.paths import find_places

KERNEL = "python3"


def check_kernel() -> None:
    """Raise ValueError unless notebooks would run with this very Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel as e:
        raise InputError(f"no Jupyter kernel {KERNEL!r}: install ipykernel here") from e
    here = Path(sys.executable).parent.resolve()
    # a bare name stands for the running interpreter: jupyter_client puts that in its place
    bare = ("python", "python3", f"python3.{sys.version_info.minor}")
    if program not in bare and Path(program).parent.resolve() != here:
        raise InputError(f"kernel {KERNEL!r} starts {program}, not {sys.executable}")


def execute(run: Run, executed: Path, *, timeout_s: float | None = None) -> None:
    """Execute a run's notebook, with all its parameters, into the folder of the run.

    Parameters
    ----------
    run
        What to run.
    executed
        Where to write the executed notebook; its folder is the run's.
    timeout_s
        Seconds after which the whole notebook is stopped.

    Raises
    ------
    Exception
        If a cell fails, the kernel dies, time is up, or cells were left out.
    """
    import papermill  # a second to import, and only needed from here on

    def remaining(_cell: Any) -> float | None:
        return None if timeout_s is None else max(started + timeout_s - time.monotonic(), 0.1)

    started = time.monotonic()
    ours = {RUN_VARIABLE: str(executed.parent), "REGIONLAB_ROOT": str(paths.ROOT)}
    with _environment({**find_places(), **ours}):
        notebook = papermill.execute_notebook(
            _literal(run.path),
            _literal(executed),
            parameters=run.parameters,
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            cwd=paths.NOTEBOOKS,
            timeout_func=remaining,
            config=_kernel_config(),
            extra_arguments=["--log-level=CRITICAL"],  # its shutdown is not the user's concern
        )
    _check_complete(notebook)


def _kernel_config() -> Config:
    """Encrypt the traffic with the kernel where zmq can: other users share the machine."""
    return Config(KernelManager={"transport_encryption": "auto"} if zmq.has("curve") else {})


def _literal(path: Path) -> str:
    """Escape the braces in a path, which papermill would fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _check_complete(notebook: Mapping[str, Any]) -> None:
    """Raise unless every code cell ran: papermill takes `sys.exit(0)` for success."""
    for cell in notebook.cells:
        wanted = cell.cell_type == "code" and cell.source.strip()
        if wanted and not cell.execution_count and "skip-execution" not in cell.metadata.tags:
            raise RuntimeError("the notebook stopped before its end, as sys.exit() makes it")


def describe_error(error: BaseException, executed: Path) -> dict[str, str]:
    """Return the last line of an error and the cell it came from."""
    kind, text = type(error).__name__, str(error)
    cell = _last_started(executed)
    if kind == "KeyboardInterrupt":
        return {"message": "interrupted", "cell": cell}
    if kind == "PapermillExecutionError":
        kind, text = error.ename, error.evalue
        cell = _name_cell(error.exec_count, error.source)
    if kind == "CellTimeoutError":
        kind, text = "Timeout", "the notebook took longer than the profile's timeout_s"
    if kind == "DeadKernelError":
        text = "the kernel died; often the memory was not enough"
    lines = text.strip().splitlines() or [""]
    return {"message": f"{kind}: {lines[-1]}", "cell": cell}


def _last_started(executed: Path) -> str:
    """Name the cell that an unfinished notebook got to."""
    if not executed.is_file():
        return "before the first cell"
    try:
        cells = read_notebook(executed).cells
    except ValueError:  # killed while writing
        return "unknown"
    started = [c for c in cells if c.metadata.get("papermill", {}).get("start_time")]
    code = [cell for cell in started if cell.cell_type == "code"]
    return _name_cell(code[-1].execution_count, code[-1].source) if code else "the first cell"


def _name_cell(count: int | None, source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    return f"In [{count or ' '}]: {lines[0] if lines else ''}"


MAIN_PROFILE = "toybox"  # its results go to figures/ itself and into the README


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "ok", "failed", "skipped" or, when resuming, "kept"."""

    run: Run
    status: str
    text: str


def run_profile(profile: Profile, *, resume: bool = False) -> list[Outcome]:
    """Run a checked profile in order and say how each run ended.

    Parameters
    ----------
    profile
        From `load_profile`.
    resume
        Keep runs that succeeded before with the same parameters, notebook, library
        sources and versions, unless a notebook they need runs anew. Changed data and
        weights are not noticed.
    """
    outcomes: list[Outcome] = []
    with tqdm(total=len(profile.runs), unit="run", disable=not sys.stderr.isatty()) as bar:
        for number, run in enumerate(profile.runs, 1):
            label = f"[{number}/{len(profile.runs)}] {run.name} … "
            bar.set_description(run.name)
            if bar.disable:
                print(label, end="", flush=True)
            outcomes.append(next_outcome(run, profile, outcomes, resume))
            bar.update()
            tqdm.write(("" if bar.disable else label) + outcomes[-1].text)
    return outcomes


def next_outcome(run: Run, profile: Profile, before: Sequence[Outcome], resume: bool) -> Outcome:
    """Run a notebook, unless it can be kept or one that it needs has failed.

    Parameters
    ----------
    before
        How the runs ended that it needs; others do not matter.
    """
    needed = [outcome for outcome in before if outcome.run.notebook in run.needs]
    missing = [outcome.run.name for outcome in needed if outcome.status in ("failed", "skipped")]
    if missing:
        return Outcome(run, "skipped", f"skipped: it needs {', '.join(missing)}")
    record = open_record(run, profile)
    fresh = all(outcome.status == "kept" for outcome in needed)
    if resume and fresh and _is_done(record, run):
        publish_run(record, profile)  # its figures may have been deleted since
        return Outcome(run, "kept", "kept from before")
    return _run_notebook(run, profile, record)


def _run_notebook(run: Run, profile: Profile, record: Record) -> Outcome:
    shutil.rmtree(record.folder, ignore_errors=True)
    start = new_record(run.notebook, run=run.name, profile=profile.name, parameters=run.parameters)
    record.update(**start, **_sources(run))
    executed = record.folder / f"{run.name}.ipynb"
    started = time.perf_counter()
    try:
        execute(run, executed, timeout_s=profile.timeout_s)
        record.update(seconds=_since(started), status="ok", error=None)
        write_html(executed, executed.with_suffix(".html"))
        publish_run(record, profile)
    except KeyboardInterrupt as e:
        fail_run(run, record, e, _since(started))
        raise
    except Exception as e:  # whatever goes wrong in one notebook, the others go on
        return fail_run(run, record, e, _since(started))
    return Outcome(run, "ok", f"ok {record.read()['seconds']:.0f} s")


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


def open_record(run: Run, profile: Profile) -> Record:
    """Return the record of a run, whether it was run or not."""
    return Record(paths.RUNS / profile.name / run.name)


def publish_run(record: Record, profile: Profile) -> None:
    """Copy the results of a run to the profile's figures, unless values were set from outside."""
    if profile.as_written:
        publish(record, figures_folder(profile.name))


def fail_run(run: Run, record: Record, error: BaseException, seconds: float) -> Outcome:
    """Close the record of a run with an error, and return how it ended."""
    executed = record.folder / f"{run.name}.ipynb"
    record.update(seconds=seconds, status="failed", error=describe_error(error, executed))
    return Outcome(run, "failed", _failure_text(record, executed))


def _failure_text(record: Record, executed: Path) -> str:
    page = executed.with_suffix(".html")
    with contextlib.suppress(Exception):  # the error matters more than its page
        write_html(executed, page)
    place = page if page.is_file() else executed.parent
    error, seconds = record.read()["error"], record.read()["seconds"]
    lines = [f"FAILED {seconds:.0f} s", error["message"], f"at {error['cell']}"]
    return "\n    ".join([*lines, f"see {_shown(place)}"])


def _shown(path: Path) -> str:
    return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)


def _sources(run: Run) -> dict[str, str]:
    """Return hashes of the code that a run depends on."""
    cells = [[cell.cell_type, cell.source] for cell in read_notebook(run.path).cells]
    digest = hashlib.sha256(json.dumps(cells).encode())
    code = "\n".join(source for kind, source in cells if kind == "code")
    return {"notebook_sha256": digest.hexdigest(), "imports_sha256": hash_imports(code)}


def _is_done(record: Record, run: Run) -> bool:
    before = record.read()
    wanted = {"status": "ok", "parameters": run.parameters, "versions": versions()}
    return {**before, **wanted, **_sources(run)} == before


def figures_folder(profile: str) -> Path:
    """Return where a profile's published figures and results are."""
    return paths.FIGURES if profile == MAIN_PROFILE else paths.FIGURES / profile


def write_reports(profile: Profile) -> None:
    """Write the gallery of a complete profile and, for the main one, the README's tables.

    Raises
    ------
    ValueError
        If a marker in the README names no result file, or is not closed.
    """
    folder = figures_folder(profile.name)
    saved = read_saved(folder)
    notebooks: dict[Path, list[str]] = {}
    for run in profile.runs:
        notebooks.setdefault(run.path, []).append(run.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", make_gallery(profile.name, notebooks, saved))
    readme = paths.ROOT / "README.md"
    if profile.name == MAIN_PROFILE and readme.is_file():
        results = {name: content for name, content in saved.items() if "results" in content}
        text = update_marked_tables(readme.read_text(encoding="utf-8"), results)
        records = {run.name: results.get(run.name, {}).get("record", {}) for run in profile.runs}
        seconds = {name: record.get("seconds") for name, record in records.items()}
        write_text(readme, update_marked_runs(text, seconds))


def write_html_report(profile: Profile, outcomes: Sequence[Outcome]) -> Path:
    """Write one page over a complete profile to `data/runs/`, and return its path.

    Parameters
    ----------
    profile
        With all its runs.
    outcomes
        How those ended that were run now.
    """
    endings = {outcome.run.name: _ending(outcome, profile) for outcome in outcomes}
    folder = figures_folder(profile.name)
    page = paths.RUNS / profile.name / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, make_report(profile, read_saved(folder), folder, endings))
    return page


def _ending(outcome: Outcome, profile: Profile) -> dict[str, str]:
    if outcome.status == "failed":
        error = Record(paths.RUNS / profile.name / outcome.run.name).read().get("error") or {}
        return {"status": "failed", **error}
    return {"status": outcome.status, "message": outcome.text}


def describe(profile: Profile) -> str:
    """Return the runs of a profile with all their parameters and what these mean."""
    lines = []
    for run in profile.runs:
        lines.append(run.name + (f"  (needs {', '.join(run.needs)})" if run.needs else ""))
        for name, parameter in run.declared.items():
            value = run.parameters[name]
            was = "" if value == parameter.default else f" (default {parameter.default!r})"
            lines.append(f"    {name} = {value!r}  # {parameter.comment}{was}")
    return "\n".join(lines)


def _read_settings(items: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts typed for each name, in order: what they mean, the notebooks know."""
    settings: dict[str, list[str]] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--set takes name=value, got {item!r}")
        settings.setdefault(name, []).append(text)
    return settings


def run_and_report(
    name: str,
    *,
    only: Sequence[str] = (),
    changes: Sequence[str] = (),
    run: Callable[[Profile], list[Outcome]] | None = None,
    dry_run: bool = False,
) -> int:
    """Run a profile by name and write its reports; return 0, or 1 if a notebook failed.

    Parameters
    ----------
    name, only
        As for `find_profile` and `load_profile`.
    changes
        NAME=VALUE each, parameters unlike the profile's; results then stay in `data/runs/`.
    run
        Runs the notebooks; by default `run_profile`, one after another.
    dry_run
        Check and list, run nothing.

    Raises
    ------
    InputError
        If the profile or a change is refused.
    """
    try:
        path = find_profile(name)
        profile = load_profile(path, only=only, settings=_read_settings(changes))
        complete = load_profile(path)
        check_kernel()
    except OSError as e:
        raise InputError(str(e)) from e
    if dry_run:
        print(describe(profile))
        return 0
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # we report its errors
    outcomes = (run or run_profile)(profile)
    return max(_report(complete, outcomes, profile.as_written), _summarise(outcomes))


def _report(profile: Profile, outcomes: Sequence[Outcome], as_written: bool) -> int:
    if not as_written:
        print(f"results with --set stay in {_shown(paths.RUNS / profile.name)}")
        return 0
    try:
        write_reports(profile)
    except ValueError as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    page = write_html_report(profile, outcomes)
    print(f"see {_shown(figures_folder(profile.name) / 'README.md')} and {_shown(page)}")
    return 0


def _summarise(outcomes: Sequence[Outcome]) -> int:
    bad = [outcome for outcome in outcomes if outcome.status in ("failed", "skipped")]
    if bad:
        names = ", ".join(f"{outcome.run.name} ({outcome.status})" for outcome in bad)
        print(f"{len(bad)} of {len(outcomes)} did not succeed: {names}", file=sys.stderr)
    return 1 if bad else 0
