"""Pictures of a run: an outline's colour says what was found."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.training.comparison import Compared, Comparison
from napari_sac.core.training.report import (
    GAINED,
    LOST,
    NEITHER,
    RunRecord,
    draw_example,
    draw_overlay,
    write_report,
)
from napari_sac.core.training.reviewed_image import review_image

if TYPE_CHECKING:
    from pathlib import Path


def colours(picture: np.ndarray, box: tuple[slice, slice]) -> set[tuple[int, ...]]:
    shown = {tuple(map(int, pixel)) for pixel in picture[box].reshape(-1, 3)}
    return shown - {(9, 9, 9)}


def test_an_example_tells_found_from_missed_and_wrong() -> None:
    image = np.full((300, 500, 3), 9, np.uint8)
    truth = np.zeros((300, 500), np.int32)
    labels = np.zeros((300, 500), np.uint32)
    found, missed, wrong = (
        (slice(20, 60), slice(start, start + 40)) for start in (20, 120, 220)
    )
    truth[found], truth[missed] = 1, 2
    labels[found], labels[wrong] = 7, 3
    before = image.copy()
    picture = draw_example(image, labels, truth)
    zoom = picture.shape[0] // 300
    assert picture.shape == (300 * zoom, 500 * zoom, 3)
    assert picture.dtype == np.uint8
    for place, colour in ((found, GAINED), (missed, LOST), (wrong, NEITHER)):
        large = tuple(slice(zoom * s.start, zoom * s.stop) for s in place)
        assert colours(picture, large) == {colour}
        # the inside stays to be seen
        middle = tuple(slice(s.start + 10, s.stop - 10) for s in large)
        assert colours(picture, middle) == set()
    np.testing.assert_array_equal(image, before)


def test_outlines_in_a_large_image_are_not_lost_where_its_picture_is_smaller() -> None:
    labels = np.zeros((2700, 3600), np.int32)
    gained, lost = (
        (slice(400, 520), slice(400, 520)),
        (slice(400, 520), slice(900, 999)),
    )
    labels[gained], labels[lost] = 1, 2
    reviewed = review_image("slide", np.full((2700, 3600, 3), 9, np.uint8), labels)
    picture = draw_overlay(
        Compared(reviewed, np.where(labels == 2, 2, 0), np.where(labels == 1, 1, 0))
    )
    assert picture.shape == (675, 900, 3)
    for place, colour in ((gained, GAINED), (lost, LOST)):
        small = tuple(slice(s.start // 4, s.stop // 4) for s in place)
        assert colours(picture, small) == {colour}


def test_a_report_is_written_whatever_bytes_a_name_has(tmp_path: Path) -> None:
    # as Python reads the name of a file that was written in another encoding
    name = "M\udcfcller"
    empty: dict[str, Any] = {"int": 0, "float": 0.0, "bool": False, "str": ""}
    values = {field.name: empty.get(str(field.type), ()) for field in fields(RunRecord)}
    values |= {"held_out_names": (name,), "training_names": (name,), "config": {}}
    (tmp_path / "run").mkdir()
    write_report(tmp_path, RunRecord(**values), Comparison(False, "no"), [])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "M\\udcfcller" in page
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["training_names"] == [name]
