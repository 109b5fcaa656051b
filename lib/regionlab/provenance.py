"""What a result depends on besides its parameters: versions, commit, sources, device."""

import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from regionlab import paths

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


@functools.cache
def library_sha256() -> str:
    """Return a hash over the sources of this package."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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
