"""Read values that people write: YAML, in which text stays the text that was written.

YAML takes `007`, `2024-01-01`, `no` and `null` for anything but text. What such a value is, only
the parameter knows that it is for: so both are kept until then.

    root: 2019        # a folder's name where the default is text, else a number
"""

import re
from collections.abc import Sequence
from typing import Any

import yaml


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
        raise ValueError(f"{e}\n({quotes})") from e


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
