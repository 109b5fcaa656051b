"""The command `regionlab`: index, search, verify, update, copy, serve, run, compose, bench, models.

What a command needs is imported inside it, so that help is quick and a question loads only what
answers it. Errors of ours are told in one sentence; any other exception shows its traceback.
"""

from regionlab.cli import index, search, work  # noqa: F401 - each adds its commands
from regionlab.cli.app import app, main

__all__ = ["app", "main"]
