"""Run the notebooks of a profile side by side as Ray tasks.

On several machines the workspace, with its notebooks, data and runs, has to lie on a file system
that all see under the same path.
"""

import logging
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType
from typing import Any

from regionlab.runs import runner as runs
from regionlab.runs.profiles import Profile, Run
from regionlab.runs.ray_cluster import check_capacity, open_cluster
from regionlab.runs.runner import Outcome, check_kernel
from regionlab.util import paths
from regionlab.util.errors import InputError

GOODBYE_SECONDS = 30.0  # for interrupted notebooks to close their records


def run_profile_with_ray(
    profile: Profile,
    *,
    resume: bool = False,
    address: str | None = None,
    cpus_per_run: int = 1,
    gpus_per_run: float = 0,
) -> list[Outcome]:
    """Run a checked profile as `run_profile` does, what does not need each other side by side.

    Records, results and endings are the same; so are figures where they do not tell times. What
    several notebooks make where it is missing, such as an index, belongs into one that the
    others need.

    Parameters
    ----------
    profile, resume
        As for `run_profile`.
    address
        As for `open_cluster`.
    cpus_per_run, gpus_per_run
        What Ray sets aside for each notebook, and so how many run at once. A kernel computes
        with as many threads, unless `OMP_NUM_THREADS` says otherwise.

    Returns
    -------
    list of Outcome
        In the order of the profile.

    Raises
    ------
    ValueError
        If a run is to have no processor, or less than no GPU.
    ClusterError
        If there is no Ray or no such cluster, or none of its machines has room for a run.
    """
    if cpus_per_run < 1 or gpus_per_run < 0:
        raise InputError(
            f"a run needs at least 1 processor and 0 GPUs, got {cpus_per_run} and {gpus_per_run}"
        )
    outcomes: dict[str, Outcome] = {}
    with open_cluster(address) as ray:
        check_capacity(ray, 1, cpus=cpus_per_run, gpus=gpus_per_run)
        options = {"num_cpus": cpus_per_run, "num_gpus": gpus_per_run, "max_retries": 0}
        place: dict[str, Any] = {"env_vars": {"REGIONLAB_ROOT": str(paths.ROOT)}}
        if shlex.quote(sys.executable) != sys.executable:  # Ray puts it into a line of the shell
            place["py_executable"] = shlex.quote(sys.executable)
        task = ray.remote(**options, runtime_env=place)(_run)
        for number, outcome in enumerate(_go_through(ray, task, profile, resume, outcomes), 1):
            print(f"[{number}/{len(profile.runs)}] {outcome.run.name} … {outcome.text}", flush=True)
    return [outcomes[run.name] for run in profile.runs]


def _go_through(
    ray: ModuleType, task: Any, profile: Profile, resume: bool, outcomes: dict[str, Outcome]
) -> Iterator[Outcome]:
    """Start each run once those that it needs have ended; yield how they end, and note it."""
    waiting, running = list(profile.runs), {}
    unpublished = replace(profile, as_written=False)  # figures are written here, one at a time
    try:
        while waiting or running:
            for run in [run for run in waiting if _may_start(run, waiting, running.values())]:
                waiting.remove(run)
                reference = task.remote(run, unpublished, list(outcomes.values()), resume)
                running[reference] = (run, time.perf_counter())
            (done,), _ = ray.wait(list(running))
            run, started = running.pop(done)
            outcomes[run.name] = _settle(ray, done, run, profile, started)
            yield outcomes[run.name]
    finally:
        for reference in running:  # empty, unless we were interrupted
            ray.cancel(reference)
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GOODBYE_SECONDS)


def _may_start(run: Run, waiting: list[Run], running: Any) -> bool:
    unfinished = {other.notebook for other in [*waiting, *(other for other, _ in running)]}
    return not unfinished.intersection(run.needs)


def _run(run: Run, profile: Profile, before: list[Outcome], resume: bool) -> Outcome:
    """Run one notebook, somewhere on the cluster."""
    check_kernel()
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    return runs.next_outcome(run, profile, before, resume)


def _settle(ray: ModuleType, done: Any, run: Run, profile: Profile, started: float) -> Outcome:
    """Publish what a run has left; if that fails or its process died, it has failed."""
    record = runs.open_record(run, profile)
    try:
        outcome = ray.get(done)
        if outcome.status in ("ok", "kept"):
            runs.publish_run(record, profile)
        return outcome
    except Exception as e:
        cause = e.cause if isinstance(e, ray.exceptions.RayTaskError) else e
        return runs.fail_run(run, record, cause, round(time.perf_counter() - started, 1))
