"""Execute one notebook through papermill, without its leniency."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zmq
from traitlets.config import Config

from regionlab import paths
from regionlab.caches import find_places
from regionlab.parameters import read_notebook
from regionlab.profiles import Run
from regionlab.records import RUN_VARIABLE

KERNEL = "python3"


def check_kernel() -> None:
    """Raise ValueError unless notebooks would run with this very Python."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        program = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    except NoSuchKernel as e:
        raise ValueError(f"no Jupyter kernel {KERNEL!r}: install ipykernel here") from e
    here = Path(sys.executable).parent.resolve()
    # a bare name stands for the running interpreter: jupyter_client puts that in its place
    bare = ("python", "python3", f"python3.{sys.version_info.minor}")
    if program not in bare and Path(program).parent.resolve() != here:
        raise ValueError(f"kernel {KERNEL!r} starts {program}, not {sys.executable}")


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
