"""Where the workspace keeps its things, whatever the working directory."""

import os
import re
from collections.abc import Mapping
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
    checkout = Path(__file__).resolve().parents[2]
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
