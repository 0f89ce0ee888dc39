"""The tables that a training writes while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_sac.core.errors import OutputError
from napari_sac.core.training.tables import append_row, drop_rows_after, read_table

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_are_appended_and_dropped(tmp_path: Path) -> None:
    table = tmp_path / "curve.csv"
    for step in (5, 10, 15):
        append_row(table, {"step": step, "loss": 1 / step})
    drop_rows_after(table, 10)
    assert read_table(table) == {"step": [5, 10], "loss": [1 / 5, 1 / 10]}


def test_a_table_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="last checkpoint is kept"):
        append_row(tmp_path / "gone" / "curve.csv", {"step": 1})
