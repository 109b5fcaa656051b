"""Names of engines: `exact`, `faiss:IVF256,SQ8?nprobe=16`, `chroma`, `chroma:localhost:8000`."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import parse_qsl

KNOWN = "exact, faiss:<index_factory string>, chroma, chroma:<host>:<port>"


@dataclass(frozen=True)
class EngineName:
    """A name taken apart: `kind:argument?options`."""

    kind: str
    argument: str
    options: dict[str, str]

    @property
    def base(self) -> str:
        """The name without options, which decides what is kept on disk."""
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    def __str__(self) -> str:
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.base}?{options}" if options else self.base

    def check_options(self, known: Collection[str]) -> None:
        """Raise `ValueError` if an option is not among the known ones."""
        for option in self.options:
            if option not in known:
                allowed = ", ".join(known) or "none"
                raise ValueError(f"{self.base} has no option {option!r}; known: {allowed}")

    def get_count(self, option: str, default: int) -> int:
        """Return an option that counts something.

        Raises
        ------
        ValueError
            If it is no whole number of at least 1.
        """
        value = self.options.get(option)
        if value is None:
            return default
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1:
            raise ValueError(
                f"{option} of {self.base} must be a whole number of at least 1, got {value!r}"
            )
        return int(value)


def parse_name(name: str) -> EngineName:
    """Take the name of an engine apart.

    Raises
    ------
    ValueError
        If it is none; the message has the known forms.
    """
    base, question, query = str(name).partition("?")
    kind, colon, argument = base.partition(":")
    known = {"exact": not colon, "faiss": bool(argument), "chroma": bool(argument) or not colon}
    if not known.get(kind):
        raise ValueError(f"unknown engine {name!r}; known: {KNOWN}")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(question)))
    except ValueError as e:
        raise ValueError(f"the options of {name!r} are not key=value, joined by &") from e
    return EngineName(kind, argument, options)
