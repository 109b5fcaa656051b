"""Read a profile: which notebooks to run, with which parameters, in which order.

    name: toybox
    timeout_s: 1800                   # for each notebook; none by default
    parameters: {seed: 0}             # for every notebook that declares them
    notebooks:
      - notebook: 01_build_index
        parameters: {encoder: toyclip}
      - notebook: 02_search_text_and_image
        needs: [01_build_index]       # not run if that one failed
        parameters: {seed: [0, 1, 2]} # a list is a sweep: one run a value

A parameter whose default is text takes text as it is written, `007` and `2024-01-01` too; text
that YAML reads otherwise (`a #1`, `a: b`, `null`) needs quotes. The notebooks are those of
`notebooks/`, and run in the order written.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from regionlab.runs.parameters import (
    Parameter,
    check_names,
    check_value,
    read_notebook,
    read_parameters,
    sweep_values,
)
from regionlab.util import paths
from regionlab.util.errors import InputError


class Written(str):
    """A value without quotes that YAML takes for more than text: both, the text and the value."""

    value: Any

    def __new__(cls, text: str, value: Any):
        """Keep the value beside the text."""
        written = super().__new__(cls, text)
        written.value = value
        return written


class _Loader(yaml.SafeLoader):
    """YAML without dates, octal and sexagesimal numbers: 010 is ten, 1:30 text, 1e-3 a number."""

    yaml_implicit_resolvers = {}

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return Written(node.value, value) if plain and not isinstance(value, str) else value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [k.value for k, _ in node.value if isinstance(k, yaml.ScalarNode)]
        if twice := [key for key in keys if key != "<<" and keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{twice[0]!r} twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


_TAG = "tag:yaml.org,2002:"
for _kind, _pattern in {
    "null": r"~|null|",
    "bool": r"true|false|yes|no|on|off",
    "int": r"[-+]?[0-9][0-9_]*",
    "float": r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|[-+]?\.inf|\.nan",
    "merge": r"<<",
}.items():
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(f"(?i:{_pattern})$"), None)
_Loader.add_constructor(f"{_TAG}int", lambda loader, node: int(loader.construct_scalar(node)))


def read_yaml(text: str) -> Any:
    """Read one YAML document; what is not plainly text in it is `Written`.

    Raises
    ------
    ValueError
        If it is not YAML, a key is given twice, or a tag asks for more than data.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError) as e:
        quotes = "text that holds : # [ ] { } or starts with one of @ * & ! % - needs quotes"
        raise InputError(f"{e}\n({quotes})") from e


def plain(value: Any) -> Any:
    """Return what YAML itself takes a value for, if it is a `Written` one."""
    return value.value if isinstance(value, Written) else value


def fit_text(value: Any, default: Any) -> Any:
    """Return a value as text wherever the default has text, else as what YAML takes it for.

    Items of a list are fitted to those of the default, a list beyond the default (a sweep) item
    by item. Keys are text. Nothing (`null`, or no value at all) is never text.

    Parameters
    ----------
    value
        From `read_yaml`.
    default
        The parameter's own value.
    """
    if isinstance(value, Written):
        return str(value) if isinstance(default, str) and value.value is not None else value.value
    if isinstance(value, list):
        inner = _common(default) if isinstance(default, list) else default
        return [fit_text(one, default if isinstance(one, list) else inner) for one in value]
    if isinstance(value, dict):
        inner = _common(list(default.values())) if isinstance(default, dict) else None
        return {str(key): fit_text(one, inner) for key, one in value.items()}
    return value


def _common(items: Sequence[Any]) -> Any:
    """Return text if all items are text, and None for what may be anything."""
    return "" if items and all(isinstance(item, str) for item in items) else None


def read_typed(text: str, default: Any) -> Any:
    """Return what was typed for a parameter: text as it is, anything else read as YAML.

    Raises
    ------
    ValueError
        If the default is not text, and what was typed not YAML.
    """
    return text if isinstance(default, str) or not text else fit_text(read_yaml(text), default)


PROFILE_KEYS = ("name", "timeout_s", "parameters", "notebooks")
ENTRY_KEYS = ("notebook", "needs", "parameters")
LONGEST_NAME = 120  # bytes of a run's name: a file system takes 255, with all that is appended


@dataclass(frozen=True)
class Run:
    """One execution of one notebook, with the complete set of its parameters.

    `name` is the notebook's, followed by what varies: `02_search-seed=1`.
    """

    notebook: str
    name: str
    parameters: dict[str, Any]
    declared: dict[str, Parameter]
    needs: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The notebook's file."""
        return paths.NOTEBOOKS / f"{self.notebook}.ipynb"


@dataclass(frozen=True)
class Profile:
    """A checked profile: every notebook exists and takes every parameter it is given.

    `as_written` is False when values were set from outside, so that what comes out
    does not pass for the profile's own results.
    """

    name: str
    runs: tuple[Run, ...]
    timeout_s: float | None = None
    as_written: bool = True

    @property
    def notebooks(self) -> tuple[str, ...]:
        """The names of the notebooks, in order."""
        return tuple(dict.fromkeys(run.notebook for run in self.runs))


def find_profile(name: str) -> Path:
    """Return the profile file for a path, or for the bare name of one in `notebooks/`.

    Raises
    ------
    FileNotFoundError
        If there is none; the message lists those there are.
    """
    path = paths.expand(name)
    if path.suffix not in (".yaml", ".yml"):
        path = paths.NOTEBOOKS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in paths.NOTEBOOKS.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"no profile {name!r}; profiles in notebooks/: {known}")
    return path


def load_profile(
    path: Path, *, only: Sequence[str] = (), settings: Mapping[str, Sequence[str]] | None = None
) -> Profile:
    """Read and check a complete profile, so that nothing runs before all of it is right.

    Parameters
    ----------
    path
        The YAML file.
    only
        The notebooks to keep; all by default. Others are checked, but no longer needed.
    settings
        Values that take precedence over the file's, for every notebook that declares them: by
        name the texts as they were typed, see `read_typed`. Several are a sweep.

    Raises
    ------
    ValueError
        If a key, notebook, parameter or type is wrong; the message names it.
    FileNotFoundError
        If a notebook does not exist.
    """
    document = _read_yaml(path)
    name = str(document.get("name", path.stem))
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"{path.name}: name must be letters, digits, - and _, got {name!r}")
    shared = _mapping(document.get("parameters"), f"{path.name}: parameters")
    entries = [_read_entry(item, path.name) for item in document["notebooks"]]
    _check_order(entries)
    declared = {entry["notebook"]: _declared(entry["notebook"]) for entry in entries}
    settings = dict(settings or {})
    selected = _select(only, list(declared), path.name)
    _check_declared(shared, declared.values())
    _check_declared(settings, [declared[name] for name in selected])
    runs = [run for e in entries for run in _expand(e, declared[e["notebook"]], shared, settings)]
    return Profile(name, _keep(runs, selected), _timeout(document), as_written=not settings)


def _select(only: Sequence[str], known: Sequence[str], where: str) -> Sequence[str]:
    for name in only:
        if name not in known:
            raise InputError(f"{where} has no notebook {name!r}; it has {', '.join(known)}")
    return only or known


def _keep(runs: Sequence[Run], notebooks: Sequence[str]) -> tuple[Run, ...]:
    return tuple(
        replace(run, needs=tuple(need for need in run.needs if need in notebooks))
        for run in runs
        if run.notebook in notebooks
    )


def _check_declared(names: Iterable[str], notebooks: Iterable[Mapping[str, Parameter]]) -> None:
    check_names(names, dict.fromkeys(name for declared in notebooks for name in declared))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = _mapping(read_yaml(path.read_text(encoding="utf-8")), path.name)
    except ValueError as e:
        raise InputError(f"{path.name} is not YAML: {e}") from e
    _check_keys(document, PROFILE_KEYS, path.name)
    if not isinstance(document.get("notebooks"), list) or not document["notebooks"]:
        raise InputError(f"{path.name}: notebooks must be a list with at least one entry")
    return document


def _read_entry(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("notebook"), str):
        raise InputError(f"{where}: an entry must be like {{notebook: NAME}}, got {item!r}")
    name = item["notebook"]
    _check_keys(item, ENTRY_KEYS, name)
    if not re.fullmatch(r"[\w-]+", name):
        raise InputError(f"{where}: notebook is a name without folder or .ipynb, got {name!r}")
    needs = plain(item.get("needs")) or []
    if not isinstance(needs, list):
        raise InputError(f"{name}: needs must be a list of notebooks, got {needs!r}")
    parameters = _mapping(item.get("parameters"), f"{name}: parameters")
    return {"notebook": name, "needs": tuple(needs), "parameters": parameters}


def _check_order(entries: Sequence[Mapping[str, Any]]) -> None:
    seen = []
    for entry in entries:
        name = entry["notebook"]
        if name in seen:
            raise InputError(f"{name} is listed twice: list values to run it more than once")
        for need in entry["needs"]:
            if need not in seen:
                raise InputError(f"{name} needs {need!r}, which is not listed before it")
        seen.append(name)


def _declared(name: str) -> dict[str, Parameter]:
    notebook = read_notebook(paths.NOTEBOOKS / f"{name}.ipynb")
    try:
        return read_parameters(notebook)
    except ValueError as e:
        raise InputError(f"{name}: {e}") from e


def _expand(
    entry: Mapping[str, Any],
    declared: dict[str, Parameter],
    shared: Mapping[str, Any],
    settings: Mapping[str, Sequence[str]],
) -> list[Run]:
    """Return one run for each combination of swept values, in the order written."""
    name = entry["notebook"]
    try:
        check_names(entry["parameters"], declared)
        own = {**shared, **entry["parameters"]}
        written = {
            key: [fit_text(own[key], declared[key].default)] for key in own if key in declared
        }
        given = {**written, **_read_typed(settings, declared)}
        choices, swept = _choices(given, declared)
        varying = [key for key in given if key in swept or key in settings]
        combinations = [
            dict(zip(choices, values, strict=True))
            for values in itertools.product(*choices.values())
        ]
    except ValueError as e:
        raise InputError(f"{name}: {e}") from e
    defaults = {key: parameter.default for key, parameter in declared.items()}
    runs = [
        Run(name, _run_name(name, varying, c), {**defaults, **c}, declared, entry["needs"])
        for c in combinations
    ]
    _check_distinct(runs)
    return runs


def _read_typed(
    settings: Mapping[str, Sequence[str]], declared: Mapping[str, Parameter]
) -> dict[str, list]:
    return {
        key: [read_typed(text, declared[key].default) for text in texts]
        for key, texts in settings.items()
        if key in declared
    }


def _choices(
    given: Mapping[str, Sequence[Any]], declared: Mapping[str, Parameter]
) -> tuple[dict[str, list], set[str]]:
    """Return each parameter's values, one after the other, and the names of those swept."""
    choices, swept = {}, set()
    for key, values in given.items():
        sweeps = [sweep_values(value, declared[key].default) for value in values]
        if len(values) > 1 or sweeps != [None]:
            swept.add(key)
        choices[key] = []
        for value, sweep in zip(values, sweeps, strict=True):
            choices[key] += [value] if sweep is None else sweep
        for one in choices[key]:
            check_value(declared[key], one)
        if not choices[key]:
            raise InputError(f"parameter {key!r} is an empty sweep")
    return choices, swept


def _run_name(notebook: str, varying: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return a file name: with what varies, cut where that is long and then told by a hash."""
    parts = [key + "=" + re.sub(r"[^\w.+-]+", "-", str(values[key])) for key in varying]
    name = "-".join([notebook, ",".join(parts)]) if parts else notebook
    if len(name.encode()) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(repr([values[key] for key in varying]).encode("utf-8", "replace"))
    return f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}-{digest.hexdigest()[:8]}"


def _check_distinct(runs: Sequence[Run]) -> None:
    name, count = Counter(run.name.casefold() for run in runs).most_common(1)[0]
    if count > 1:
        raise InputError(f"{count} runs of a sweep would share the folder {name!r}")


def _timeout(document: Mapping[str, Any]) -> float | None:
    value = plain(document.get("timeout_s"))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"timeout_s must be a positive number of seconds, got {value!r}")
    return float(value)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if plain(value) is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where} must be `key: value` pairs, got {value!r}")
    return value


def _check_keys(mapping: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}; allowed: {', '.join(allowed)}")
