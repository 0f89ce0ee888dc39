"""The tables that a training writes while it runs, and that others read meanwhile."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from napari_sac.core.errors import OutputError
from napari_sac.core.io import atomic_path

if TYPE_CHECKING:
    from pathlib import Path


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append a row to a table, with a first line of names if it is new.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    new = not path.exists()
    try:
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow({k: int(v) if k == "step" else v for k, v in row.items()})
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}). What was trained up to the "
            "last checkpoint is kept; make space, and go on with the run."
        ) from error


def drop_rows_after(path: Path, step: int) -> None:
    """Take from a table the rows of steps that will be done again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [
        line
        for line in lines[1:]
        # a kill may have cut the last line short
        if line.count(",") == lines[0].count(",") and int(line.split(",")[0]) <= step
    ]
    if len(kept) + 1 == len(lines):
        return
    with atomic_path(path) as partial:
        text = "\n".join([lines[0], *kept]) + "\n" if kept else ""
        partial.write_text(text, encoding="utf-8")
    if not kept:
        path.unlink()


def read_table(path: Path) -> dict[str, list[float]]:
    """Return the columns of a table, as far as its lines are whole.

    A table that is not there, or that cannot be read at the moment, has no columns.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    whole = text[: text.rfind("\n") + 1]
    rows = list(csv.DictReader(io.StringIO(whole)))
    try:
        return {name: [float(row[name]) for row in rows] for name in (rows or [{}])[0]}
    except (TypeError, ValueError):
        return {}
