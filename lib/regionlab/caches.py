"""Places that other libraries write to, where there is no home folder to write in.

As in a container that runs under another user: numba then refuses to import what it is to
cache, and Jupyter to start a kernel.
"""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

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
