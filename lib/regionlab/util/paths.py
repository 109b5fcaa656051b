"""Where the workspace keeps its things, and where other libraries may keep their caches.

Without a home folder, as in a container that runs under another user, numba refuses to import
what it is to cache, and Jupyter to start a kernel: they get a place elsewhere.
"""

import atexit
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def find_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the workspace's root folder.

    That is ``REGIONLAB_ROOT`` where it is set, else the checkout that this
    package is installed from, else (a copy in site-packages) the working directory.

    Parameters
    ----------
    environ
        The environment to read; an empty ``REGIONLAB_ROOT`` counts as unset.

    Raises
    ------
    NotADirectoryError
        If ``REGIONLAB_ROOT`` names no existing folder.
    """
    if named := environ.get("REGIONLAB_ROOT"):
        root = Path(named).expanduser().resolve()
        if not root.is_dir():
            raise NotADirectoryError(f"REGIONLAB_ROOT is {named!r}: no such folder")
        return root
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


ROOT = find_root()
NOTEBOOKS = ROOT / "notebooks"
FIGURES = ROOT / "figures"
DATA = ROOT / "data"
RUNS = DATA / "runs"


def expand(path: Path | str) -> Path:
    """Return a path with a leading `~` or `~user` as that home folder.

    Where there is no such user or home, `~` is a name like any other.
    """
    return Path(os.path.expanduser(path))


def locate(written: str) -> Path | None:
    """Return a path that was written down, as in a notebook's parameters; None for "".

    A relative one starts at the workspace's root, whatever the working directory; `~` is the
    home folder.
    """
    return ROOT / expand(written) if written else None


def index_folder(*names: str | None) -> Path:
    """Return where the index with these names lies, such as data set, split and encoder.

    Empty names are left out; what is neither letter, digit, dot nor hyphen becomes a hyphen.
    """
    kept = [re.sub(r"[^\w.]+", "-", name).strip("-") for name in names if name]
    return DATA / "indexes" / "-".join(kept)


# Bytes of one name, and of a path; disks take 255 (143 if encrypted), and suffixes come behind.
LONGEST_NAME, LONGEST_PATH = 100, 400
KEPT = 60


def shorten_path(path: str) -> str:
    """Return a path with forward slashes as it is or, if too long, as one name with a digest.

    The name keeps the beginning of the path's last part, to be recognised by.
    """
    names = path.split("/")
    if len(path.encode()) <= LONGEST_PATH and max(len(n.encode()) for n in names) <= LONGEST_NAME:
        return path
    kept = names[-1].encode()[:KEPT].decode(errors="ignore")  # no half letters
    return f"{kept}-{hashlib.sha256(path.encode()).hexdigest()[:16]}"


# Variable to where its library writes if it is not set
PLACES = {
    "IPYTHONDIR": "~/.ipython",
    "JUPYTER_RUNTIME_DIR": "~/.local/share/jupyter/runtime",
    "MPLCONFIGDIR": "~/.config/matplotlib",
    "XDG_CACHE_HOME": "~/.cache",
}


def find_places(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables to set, with folders of ours, for libraries that cannot write.

    What is there already is never hidden: models that lie in a cache that can only be read are
    still found.
    """
    wanted = {}
    for variable, default in PLACES.items():
        hidden = variable == "XDG_CACHE_HOME" and os.path.isdir(os.path.expanduser(default))
        if not (environ.get(variable) or hidden or can_write(default)):
            wanted[variable] = str(make_folder() / variable.lower())
    for folder in wanted.values():
        os.makedirs(folder, mode=0o700, exist_ok=True)
    return wanted


def let_numba_cache() -> None:
    """Give numba a folder for what it compiles, before UMAP is imported, if it finds none."""
    import numba

    # A function as if it stood in the package whose functions are to be cached
    code = compile("def probe(): pass", find_spec("pynndescent").origin, "exec")
    exec(code, names := {})
    try:
        numba.njit(cache=True)(names["probe"])
    except RuntimeError:  # it can write to none of the places that it knows
        folder = str(make_folder() / "numba")
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = folder


def can_write(place: str) -> bool:
    """Tell whether a folder can be written to, or made."""
    path = os.path.expanduser(place)
    if not os.path.isabs(path):  # there is no home
        return False
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


@cache
def make_folder() -> Path:
    """Return a temporary folder that is this user's alone, the same each time if possible.

    Numba runs what it finds in its cache, so nobody else may have made or write to it.
    """
    user = os.getuid() if hasattr(os, "getuid") else -1
    folder = Path(tempfile.gettempdir(), f"regionlab-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        private = found.st_uid == user and not found.st_mode & 0o077
        if stat.S_ISDIR(found.st_mode) and private:
            return folder
    except OSError:
        pass
    fresh = Path(tempfile.mkdtemp(prefix="regionlab-"))
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    return fresh
