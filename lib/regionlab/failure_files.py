"""The lists of what is not in an index, as CSV that keeps every name a file can have."""

import csv
from pathlib import Path

import pandas as pd

FAILURE_COLUMNS = ["image_id", "path", "reason"]


def write_failures(path: Path, failures: pd.DataFrame) -> None:
    r"""Write `FAILURE_COLUMNS` as text, every field in quotes.

    Line breaks, quotes, NUL, blanks and "NA" come back as they were; bytes of a name that are
    no Unicode as `\udcff` and the like.
    """
    rows = failures[FAILURE_COLUMNS].astype(object).to_numpy()
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(FAILURE_COLUMNS)
        writer.writerows(rows)


def read_failures(path: Path) -> pd.DataFrame:
    """Read what `write_failures` or `DataFrame.to_csv` wrote.

    Raises
    ------
    ValueError
        If the file is no such table.
    """
    with open(path, encoding="utf-8", newline="") as file:
        try:
            header, *rows = csv.reader(file, strict=True)
        except (csv.Error, ValueError) as e:
            raise ValueError(f"{path.name} cannot be read: {e}") from e
    bad = [row for row in rows if len(row) != len(FAILURE_COLUMNS)]
    if header != FAILURE_COLUMNS or bad:
        raise ValueError(
            f"{path.name} has the columns {header}, or a line of other length: {bad[:1]}"
        )
    return pd.DataFrame(rows, columns=FAILURE_COLUMNS, dtype="str")
