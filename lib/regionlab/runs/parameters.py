"""Read a notebook's parameters and check values against them, running nothing."""

import ast
import difflib
import io
import math
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from regionlab.util.errors import InputError


@dataclass(frozen=True)
class Parameter:
    """One assignment of a parameters cell: its name, default and trailing comment."""

    name: str
    default: Any
    comment: str = ""


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Read a notebook file.

    Raises
    ------
    FileNotFoundError
        If there is no such file; the message lists the notebooks beside it.
    ValueError
        If the file is not a notebook.
    """
    path = Path(path)
    if not path.is_file():
        known = sorted(other.stem for other in path.parent.glob("*.ipynb"))
        raise FileNotFoundError(f"no notebook {path.name}{_hint(path.stem, known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", nbformat.warnings.MissingIDFieldWarning)
            return nbformat.read(path, as_version=4)
    except Exception as e:  # nbformat raises whatever its parsers and validators raise
        raise InputError(f"{path.name} is not a notebook: {e}") from e


def read_parameters(notebook: nbformat.NotebookNode) -> dict[str, Parameter]:
    """Return the parameters that a notebook declares, by name, in order.

    Raises
    ------
    ValueError
        If there is not exactly one code cell tagged `parameters`, or it holds anything
        but assignments of JSON-like literals to new names.
    """
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        kinds = ", ".join(cell.cell_type for cell in tagged) or "none"
        raise InputError(f"needs exactly one code cell tagged 'parameters', found {kinds}")
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        raise InputError("is an executed copy: it has a cell tagged 'injected-parameters'")
    return _parse_cell(tagged[0].source)


def _parse_cell(source: str) -> dict[str, Parameter]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as e:
        raise InputError(f"parameters cell, line {e.lineno}: {e.msg}") from e
    comments = _comments_by_line(source)
    parameters = {}
    for statement in statements:
        name, default = _literal_assignment(statement)
        if name in parameters:
            raise InputError(f"parameters cell assigns {name!r} twice")
        parameters[name] = Parameter(name, default, comments.get(statement.end_lineno, ""))
    return parameters


def _literal_assignment(statement: ast.stmt) -> tuple[str, Any]:
    where = f"parameters cell, line {statement.lineno}: {ast.unparse(statement)!r}"
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case _:
            raise InputError(f"{where} is not `name = literal`")
    try:
        default = ast.literal_eval(value)
    except ValueError as e:
        raise InputError(f"{where} is not a literal: compute it in a later cell") from e
    if not is_json(default):
        raise InputError(f"{where} is not text, a finite number, a bool, None, a list or a dict")
    return name, default


def _comments_by_line(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def is_json(value: Any) -> bool:
    """Tell whether a value survives JSON: finite numbers, text keys, lists and not tuples."""
    if isinstance(value, list):
        return all(is_json(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool | int)


def fits(value: Any, default: Any) -> bool:
    """Tell whether a value is of the default's kind.

    An int does for a float, a bool is not an int, a default of None takes anything
    JSON-like, and every item of a list must fit some item of a non-empty default list.
    """
    if default is None:
        return is_json(value)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    if isinstance(default, list) and default:
        return isinstance(value, list) and all(any(fits(v, d) for d in default) for v in value)
    return isinstance(value, type(default)) and is_json(value)


def check_value(parameter: Parameter, value: Any) -> None:
    """Raise ValueError, naming value and default, unless the value is of the right kind."""
    if fits(value, parameter.default):
        return
    kind = type(parameter.default).__name__
    raise InputError(
        f"parameter {parameter.name!r} must be like its default {parameter.default!r} ({kind}), "
        f"got {type(value).__name__} {value!r}{_advise(value, parameter.default)}"
    )


def _advise(value: Any, default: Any) -> str:
    """Return what may help who wrote the value, as the end of an error."""
    if isinstance(default, str):
        return ' (text that YAML reads as something else needs quotes; "" is empty text)'
    if isinstance(default, int | float) and _is_number(value):
        return " (a number is written without quotes)"
    if isinstance(default, list) and not isinstance(value, list):
        return " (a list is written [a, b])"
    if isinstance(default, list) and any(isinstance(item, str) for item in default):
        return " (text with : # [ ] { } in it needs quotes)"
    return ""


def check_names(names: Any, known: Any) -> None:
    """Raise ValueError at the first name that is not known, naming the nearest that is."""
    for name in names:
        if name not in known:
            raise InputError(f"unknown parameter {name!r}{_hint(name, known)}")


def sweep_values(value: Any, default: Any) -> list | None:
    """Return the values a list stands for, or None where the value is just one value.

    A list is a sweep. For a parameter whose default is itself a list, a list nested
    deeper than the default is.
    """
    deeper = _depth(value) > (_depth(default) if isinstance(default, list) else 0)
    return value if deeper else None


def _depth(value: Any) -> int:
    if not isinstance(value, list):
        return 0
    return 1 + max((_depth(item) for item in value), default=0)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return isinstance(value, str)


def _hint(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" known: {', '.join(known)}"
