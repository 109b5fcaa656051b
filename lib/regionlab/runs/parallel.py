"""Run the notebooks of a profile side by side as Ray tasks.

On several machines the workspace, with its notebooks, data and runs, has to lie on a file system
that all see under the same path.
"""

import logging
import os
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Thread
from types import ModuleType
from typing import Any

from regionlab.runs import runner as runs
from regionlab.runs.profiles import Profile, Run
from regionlab.runs.runner import Outcome, check_kernel
from regionlab.util import paths
from regionlab.util.errors import InputError, RegionlabError

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


# The cluster

KNOCK_SECONDS = 10.0  # for a machine to answer
CONNECT_SECONDS = 60.0  # for Ray to answer
TRIES = 3  # on a busy machine Ray's own processes may not be up within its patience
LOCAL = "local"
LOCAL_STORE = 200_000_000  # bytes of shared memory: shards and lists of paths are small


class ClusterError(RegionlabError, RuntimeError):
    """Ray is not there, cannot be reached, or has no room; says what to do."""


def import_ray() -> ModuleType:
    """Return the module `ray`, raising `ClusterError` if it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as e:
        raise ClusterError(
            f"Ray is not installed ({e}): pip install 'regionlab[ray]', or in this project's "
            "own environment pip install 'ray[data]'"
        ) from e
    return ray


@contextmanager
def open_cluster(address: str | None = None, **options: Any) -> Iterator[ModuleType]:
    """Connect to a Ray cluster within a `with`, and give the module `ray`.

    A connection that the caller made before, by `ray.init`, is used as it is, and kept.

    Parameters
    ----------
    address
        "host:port" of a cluster's head, or "auto": of the cluster that this machine is part of.
        None is what the variable `RAY_ADDRESS` says, and else a Ray of its own on this
        machine, which listens on the loopback interface only and reports to nobody.
    options
        For `ray.init` where it starts a Ray of its own, such as `num_cpus`.

    Raises
    ------
    ClusterError
        If Ray is not installed, does not start, or there is no cluster at the address.
    """
    loaded = sys.modules.get("ray")
    if loaded and loaded.is_initialized():
        if address:
            raise ClusterError(
                f"this process is connected to Ray already: leave out the address {address}, or "
                "call ray.shutdown() first"
            )
        yield import_ray()
        return
    address = address or os.environ.get("RAY_ADDRESS") or LOCAL
    if address == LOCAL or re.match(r"(localhost|127\.\d+\.\d+\.\d+):", address):
        # Ray's own way to stay on 127.0.0.1, whatever its name says; read when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = import_ray()
    if address == LOCAL:
        _start(ray, options)
    else:
        _connect(ray, address)
    try:
        yield ray
    finally:
        ray.shutdown()


def _start(ray: ModuleType, options: dict[str, Any]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that it asks for a token
    options = {"include_dashboard": False, "object_store_memory": LOCAL_STORE, **options}
    for left in reversed(range(TRIES)):
        try:
            ray.init(LOCAL, log_to_driver=False, logging_level=logging.ERROR, **options)
            return
        except Exception as e:  # Ray raises the bare class for what did not come up in time
            ray.shutdown()
            if not left or isinstance(e, ValueError | TypeError):
                raise ClusterError(f"Ray did not start on this machine: {e}") from e


def _connect(ray: ModuleType, address: str) -> None:
    advice = (
        "see that it runs (`ray start --head` on its first machine), that this machine is part of "
        "it (`ray start --address=host:port`), and that all have the same Python and Ray"
    )
    try:
        if address != "auto":
            _knock(address)
        _init_in_time(ray, address)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as e:
        ray.shutdown()
        raise ClusterError(f"no Ray cluster at {address}: {e}. To connect, {advice}") from e


def _init_in_time(ray: ModuleType, address: str) -> None:
    """Call `ray.init` with less than its own patience, which is minutes long."""
    done: Future = Future()

    def connect() -> None:
        try:
            done.set_result(ray.init(address, log_to_driver=False, logging_level=logging.ERROR))
        except BaseException as e:
            done.set_exception(e)

    Thread(target=connect, daemon=True).start()
    try:
        done.result(CONNECT_SECONDS)
    except TimeoutError as e:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s") from e


def _knock(address: str) -> None:
    """Raise if an address is none, or nobody listens there: Ray would take minutes to see it."""
    if address.startswith("ray://"):
        raise ValueError("Ray Data does not work from outside of a cluster, through a Ray Client")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError('an address is "host:port" or "auto"')
    with closing(socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS)):
        pass


def check_capacity(ray: ModuleType, count: int, *, cpus: float, gpus: float) -> None:
    """Raise `ClusterError` if a cluster has no room for so many workers at once.

    Ray would wait for ever. What other jobs hold at the moment counts as room.

    Parameters
    ----------
    cpus, gpus
        Of each worker; it has to fit on one machine.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(_count_fitting(machine, cpus, gpus) for machine in machines)
    if room < count:
        held = [sum(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU")]
        raise ClusterError(
            f"{count} workers with {cpus:g} CPUs and {gpus:g} GPUs each do not fit: the cluster's "
            f"{len(machines)} machines have {held[0]:g} CPUs and {held[1]:g} GPUs, room for {room}"
        )


def _count_fitting(machine: dict[str, float], cpus: float, gpus: float) -> int:
    asked = {"CPU": cpus, "GPU": gpus}
    return min(int(machine.get(kind, 0) / each + 1e-6) for kind, each in asked.items() if each)
