"""Which modules of ours a notebook imports, so that only their changes make its results old."""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

from regionlab import _HOMES

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
