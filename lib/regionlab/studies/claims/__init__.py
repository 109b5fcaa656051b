"""What the five papers claim in numbers, and which of these numbers can stand.

table = claims.load_claims()
audited = claims.audit(table)  # a verdict and its reason for each number
beside = claims.measure(table, paths.FIGURES)  # what is measured here instead
"""

from regionlab.studies.claims.audit import audit, run_checks
from regionlab.studies.claims.table import (
    PAPERS,
    VERDICTS,
    find_quantity,
    load_claims,
    measure,
    show_printed,
    value_of,
)

__all__ = [
    "PAPERS",
    "VERDICTS",
    "audit",
    "find_quantity",
    "load_claims",
    "measure",
    "run_checks",
    "show_printed",
    "value_of",
]
