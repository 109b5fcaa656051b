"""`python -m regionlab.cli` is `regionlab`."""

from regionlab.cli import app

app(prog_name="regionlab")
