"""Outlines for QuPath: what is written is read back to the last pixel."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_sac.core.errors import LabelFormatError, OutputError
from napari_sac.core.geojson import read_geojson, trace_labels, write_geojson
from napari_sac.core.types import IntArray, ObjectClass, Prompts


def signed_area(ring: list[tuple[int, int]]) -> float:
    y, x = np.array(ring, float).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def save(path: Path, features: Any) -> Path:
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content))
    return path


def square(x: float, y: float, side: float, **others: Any) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, **others}


@settings(max_examples=150, deadline=None)
@given(arrays(np.uint32, (9, 11), elements=st.sampled_from([0, 0, 1, 7, 2**32 - 1])))
def test_any_labels_come_back(labels: IntArray) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outlines.geojson"
        write_geojson(file, labels)
        back = read_geojson(file, (9, 11))
    np.testing.assert_array_equal(back.labels, labels)
    assert back.object_id.tolist() == [k for k in np.unique(labels) if k]


@settings(max_examples=150, deadline=None)
@given(arrays(np.bool_, (8, 8)))
def test_rings_are_simple_and_enclose_the_area(mask: np.ndarray) -> None:
    traced = dict(trace_labels(mask.astype(np.uint8)))
    if not mask.any():
        assert traced == {}
        return
    parts = traced[1]
    assert len(parts) == ndimage.label(mask)[1]
    for part in parts:
        assert signed_area(part[0]) > 0
        assert all(signed_area(hole) < 0 for hole in part[1:])
        for ring in part:
            assert ring[0] == ring[-1]
            assert len(set(ring)) == len(ring) - 1
    assert sum(signed_area(ring) for part in parts for ring in part) == mask.sum()


def test_one_label_of_many_parts_is_traced_part_by_part() -> None:
    """As semantic mode gives it."""
    labels = np.kron(np.ones((120, 120), np.uint32), np.pad(np.ones((6, 6)), 3))
    started = time.monotonic()
    ((number, parts),) = trace_labels(labels.astype(np.uint32))
    # looked for among the edges of all, each took longer than the one before
    assert time.monotonic() - started < 20
    assert number == 1
    assert len(parts) == 120**2
    assert parts[0] == [[(3, 3), (3, 9), (9, 9), (9, 3), (3, 3)]]


def test_id_class_score_and_state_come_back(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[2:8, 3:9], labels[10:15, 12:20] = 5, 9
    prompts = Prompts.from_points(
        [[4, 5], [12, 15], [1, 1]],
        object_id=[5, 9, 9],
        score=[0.1, 1, 1],
        state=["auto", "moved", "added"],
        sign=[1, 1, 0],
    )
    file = tmp_path / "outlines.geojson"
    tumor = ObjectClass("Tumor", (200, 0, 0))
    write_geojson(file, labels, prompts, classes={9: tumor})
    back = read_geojson(file, labels.shape)
    assert back.object_id.tolist() == [5, 9]
    assert back.classes == {5: ObjectClass("Nucleus"), 9: tumor}
    np.testing.assert_array_equal(back.score, np.array([0.1, 1], np.float32))
    assert back.state == ("auto", "moved")
    ring = json.loads(file.read_text())["features"][0]["geometry"]["coordinates"][0]
    assert {tuple(p) for p in ring} == {(3, 2), (9, 2), (9, 8), (3, 8)}


def test_a_corrected_outline_keeps_its_id_and_copies_get_others(tmp_path: Path) -> None:
    labels = np.zeros((20, 30), np.uint32)
    labels[2:8, 3:9] = 5
    file = tmp_path / "outlines.geojson"
    write_geojson(file, labels)
    (ours,) = json.loads(file.read_text())["features"]
    # QuPath lost the measurements, the id remains
    moved = square(10, 10, 4, id=ours["id"], properties={"objectType": "annotation"})
    copy = square(20, 3, 5, properties=ours["properties"])
    foreign = square(1, 14, 3, id="b1946ac9-2492-4d23-8a5c-1c2f3e4d5a6b")
    back = read_geojson(save(file, [moved, copy, foreign]), labels.shape)
    assert back.object_id.tolist() == [5, 6, 7]
    assert (back.labels[10:14, 10:14] == 5).all()
    assert (back.labels[3:8, 20:25] == 6).all()
    assert (back.labels[14:17, 1:4] == 7).all()
    assert (back.labels > 0).sum() == 16 + 25 + 9
    assert back.state == ("accepted",) * 3


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, ObjectClass("Tumor", (200, 0, 0))),
        (
            {"names": ["Tumor", "Positive"], "color": [1, 2, 255]},
            ObjectClass("Tumor: Positive", (1, 2, 255)),
        ),
        # as QuPath 0.3 wrote it: opaque (200, 0, 0)
        ({"name": "Tumor", "colorRGB": -3670016}, ObjectClass("Tumor", (200, 0, 0))),
        ({"name": "Tumor", "color": [1, 2]}, ObjectClass("Tumor")),
        ({"name": "Tumor", "color": "red"}, ObjectClass("Tumor")),
        ({"name": "Tumor", "color": [0, 0, 256]}, ObjectClass("Tumor")),
        ({"name": "", "color": [1, 2, 3]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_classes_are_read_as_any_qupath_writes_them(
    tmp_path: Path, classification: Any, expected: ObjectClass | None
) -> None:
    area = square(2, 2, 4, properties={"classification": classification})
    back = read_geojson(save(tmp_path / "a.geojson", [area]), (20, 30))
    assert back.classes == ({} if expected is None else {1: expected})


def test_points_of_qupath_are_nuclei(tmp_path: Path) -> None:
    geometry = {"type": "MultiPoint", "coordinates": [[10.5, 3.5], [7, 8]]}
    file = save(
        tmp_path / "points.geojson",
        [{"type": "Feature", "geometry": geometry}, square(0, 0, 2)],
    )
    back = read_geojson(file, (20, 30))
    np.testing.assert_array_equal(back.points.yx, [[3, 10], [7.5, 6.5]])
    assert back.points.object_id.tolist() == [2, 3]
    assert set(back.points.state) == {"added"}


def test_of_a_cell_the_nucleus_is_read(tmp_path: Path) -> None:
    nucleus = square(5, 5, 3)["geometry"]
    cell = square(0, 0, 15, nucleusGeometry=nucleus)
    back = read_geojson(save(tmp_path / "a.geojson", [cell]), (20, 30))
    assert (back.labels[5:8, 5:8] == 1).all()
    assert (back.labels > 0).sum() == 9


def test_outlines_of_several_planes_are_refused(tmp_path: Path) -> None:
    planes = [square(5 * i, 5, 3) for i in range(2)]
    for area in planes:
        area["geometry"]["plane"] = {"c": -1, "z": 3, "t": 0}
    file = save(tmp_path / "a.geojson", planes)
    assert read_geojson(file, (20, 30)).object_id.tolist() == [1, 2]
    planes[1]["geometry"]["plane"]["z"] = 4
    with pytest.raises(LabelFormatError, match="more than one plane"):
        read_geojson(save(file, planes), (20, 30))


def test_points_outside_and_features_without_a_place_are_passed_over(
    tmp_path: Path,
) -> None:
    points = {"type": "MultiPoint", "coordinates": [[10.5, 3.5], [1e6, 1e6], [-1, 3]]}
    features = [
        {"type": "Feature", "geometry": points},
        {"type": "Feature", "geometry": None},
        square(0, 0, 2, properties={"measurements": {"napari-sac id": 2**32 - 1}}),
    ]
    back = read_geojson(save(tmp_path / "a.geojson", features), (20, 30))
    np.testing.assert_array_equal(back.points.yx, [[3, 10]])
    assert back.points.object_id.tolist() == [1], "2**32 is no label"


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = save(tmp_path / "a.geojson", [square(0, 0, 2)])
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert read_geojson(file, (20, 30)).object_id.tolist() == [1]


def test_old_measurements_lists_and_outside_parts(tmp_path: Path) -> None:
    measurements = [{"name": "napari-sac id", "value": 12.0}]
    area = square(-5, -5, 9, properties={"measurements": measurements})
    back = read_geojson(save(tmp_path / "a.geojson", [area]), (20, 30))
    assert back.object_id.tolist() == [12]
    assert (back.labels[:4, :4] == 12).all()
    assert (back.labels > 0).sum() == 16


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[",
        "[" * 100_000,
        "3",
        '{"type": "FeatureCollection"}',
        '{"features": [3]}',
        '{"features": [{"geometry": null}]}',
        '{"features": [{"geometry": {"type": "Polygon", "coordinates": [[["a"]]]}}]}',
        '{"features": [{"geometry": {"type": "Point", "coordinates": [1e300, 1]}}]}',
        '{"features": [{"geometry": {"type": "Point", "coordinates": [NaN, 1]}}]}',
        '{"features": [{"geometry": {"type": "LineString", "coordinates": []}}]}',
        '{"features": [{"geometry": {"type": "Point", "coordinates": [1, 1]},'
        ' "properties": {"metadata": {"napari-sac state": "odd"}}}]}',
    ],
)
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    file = tmp_path / "damaged.geojson"
    file.write_text(content)
    with pytest.raises(LabelFormatError, match=r"damaged\.geojson .*\.$"):
        read_geojson(file, (20, 30))


def test_collections_without_end_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deep.geojson"
    file.touch()
    geometry: dict[str, Any] = {"type": "Point", "coordinates": [1, 1]}
    for _ in range(3000):
        geometry = {"type": "GeometryCollection", "geometries": [geometry]}
    # json gives up by itself, but not in all versions of Python
    monkeypatch.setattr(json, "loads", lambda _: {"features": [{"geometry": geometry}]})
    with pytest.raises(LabelFormatError, match=r"deep\.geojson is damaged"):
        read_geojson(file, (5, 5))


def test_outlines_are_not_all_in_memory_at_once(tmp_path: Path) -> None:
    square = np.pad(np.ones((3, 3), np.uint32), 1)
    labels = np.kron(np.arange(1, 1601, dtype=np.uint32).reshape(40, 40), square)
    file = tmp_path / "a.geojson"
    # the first time it imports something
    write_geojson(file, labels)
    tracemalloc.start()
    write_geojson(file, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(json.loads(file.read_text())["features"]) == 1600
    assert peak < 4 * file.stat().st_size


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(LabelFormatError, match="No such file"):
        read_geojson(tmp_path / "none.geojson", (5, 5))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_geojson(tmp_path / "file" / "a.geojson", np.zeros((5, 5), np.uint32))


def test_the_first_plane_is_one_though_qupath_does_not_name_it(tmp_path: Path) -> None:
    planes = [square(5 * i, 5, 3) for i in range(2)]
    planes[1]["geometry"]["plane"] = {"c": -1, "z": 1, "t": 0}
    with pytest.raises(LabelFormatError, match="more than one plane"):
        read_geojson(save(tmp_path / "a.geojson", planes), (20, 30))


def test_an_outline_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    ring = [[k, 2000 * (k % 2)] for k in range(3000)]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    file = save(tmp_path / "a.geojson", [{"type": "Feature", "geometry": geometry}])
    with pytest.raises(LabelFormatError, match=r"crosses rows.*Nothing was changed"):
        read_geojson(file, (2000, 1000))


def test_outlines_of_another_image_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "a.geojson", [square(500, 700, 9)])
    with pytest.raises(LabelFormatError, match="lies in the image of 20 x 30"):
        read_geojson(file, (20, 30))
