"""Checks of arguments, whose errors name the value and what is allowed."""

import numpy as np

from regionlab.util.errors import InputError


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise InputError if a value is not among the known ones."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def check_count(name: str, value: int) -> None:
    """Raise InputError if a value is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
