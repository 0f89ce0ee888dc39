"""QuPath's GeoJSON: labels as outlines, and back.

QuPath's coordinates are (x, y) with the corner of the first pixel at (0, 0). Outlines
run along the edges of pixels, so that writing and reading give the same labels.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_sac.core.errors import LabelFormatError
from napari_sac.core.io import atomic_path
from napari_sac.core.labels import consecutive_labels
from napari_sac.core.polygons import mask_inside
from napari_sac.core.types import (
    POSITIVE,
    IntArray,
    ObjectClass,
    Prompts,
    PromptState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ID_MEASUREMENT = "napari-sac id"
SCORE_MEASUREMENT = "napari-sac score"
STATE_METADATA = "napari-sac state"
DEFAULT_CLASS = ObjectClass("Nucleus")
"""What is written for a nucleus without a class."""

_UUID_PREFIX = uuid.uuid5(uuid.NAMESPACE_URL, "napari-sac:object").int >> 64 << 64
_LARGEST_ID = 2**32 - 1
_FARTHEST = 1e7
"""Pixels: a coordinate beyond this is damage."""

Ring = list[tuple[int, int]]
_Point = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Outlines:
    """What a GeoJSON file holds.

    Parameters
    ----------
    labels : (H, W) uint32
        The areas; where two overlap, the later in the file.
    object_id : (N,) int64
        Of each area, in the order of the file.
    classes : mapping of int to ObjectClass
        Of the areas that have one, by ``object_id``.
    score : (N,) float32
        1 where the file has none.
    state : tuple of N str
        A :class:`~napari_sac.core.types.PromptState`; ``accepted`` where the file has
        none, as somebody drew it.
    points : Prompts
        QuPath's points, each a nucleus that a person added; their ids are above those
        of the areas.
    """

    labels: npt.NDArray[np.uint32]
    object_id: npt.NDArray[np.int64]
    classes: Mapping[int, ObjectClass]
    score: npt.NDArray[np.float32]
    state: tuple[str, ...]
    points: Prompts


def write_geojson(
    path: str | Path,
    labels: IntArray,
    prompts: Prompts | None = None,
    *,
    classes: Mapping[int, ObjectClass] | None = None,
) -> None:
    """Write the outlines of labels as annotations that QuPath opens, atomically.

    Parameters
    ----------
    path : str or Path
    labels : (H, W) integer array
        0 background; labels up to 2**32 - 1.
    prompts : Prompts, optional
        Score and state of each nucleus are those of its first positive.
    classes : mapping of int to ObjectClass, optional
        By label; ``DEFAULT_CLASS`` for the others.

    Raises
    ------
    OutputError
        If the file cannot be written; what was there before is kept.
    """
    known = _first_rows(prompts) if prompts is not None else {}
    given = classes or {}
    with (
        atomic_path(path) as partial,
        partial.open("w", encoding="utf-8") as file,
    ):
        # one by one: json.dump is slow, and all at once take much memory
        file.write('{"type": "FeatureCollection", "features": [')
        between = ""
        for object_id, parts in trace_labels(labels):
            kind = given.get(object_id, DEFAULT_CLASS)
            feature = _feature(object_id, parts, known.get(object_id), kind)
            file.write(between + json.dumps(feature))
            between = ", "
        file.write("]}")


def read_geojson(path: str | Path, shape: tuple[int, int]) -> Outlines:
    """Return the areas and points of a GeoJSON file.

    An area that napari-sac wrote keeps its ``object_id``, whatever QuPath did to its
    shape. Of two with one id (a copy), the first keeps it; copies and areas of others
    get new ids.

    Parameters
    ----------
    path : str or Path
    shape : (int, int)
        Height and width of the image. What lies outside is cut off.

    Raises
    ------
    LabelFormatError
        If the file is missing or damaged, or if it holds something, but nothing that is
        an area or a point, or that lies in the image.
    """
    file = Path(path)
    features = [_Shape.parse(file, f) for f in _features(file)]
    if len({f.plane for f in features if f.plane is not None}) > 1:
        raise LabelFormatError(
            f"{file} has outlines of more than one plane of a stack, which would lie "
            "on top of each other. Export those of one plane. Nothing was changed."
        )
    areas = [f for f in features if f.rings]
    given = [p for f in features for p in f.points]
    points = [p for p in given if _is_inside(p, shape)]
    if features and not areas and not given:
        raise LabelFormatError(
            f"{file} holds neither areas nor points. Export annotations or detections "
            "from QuPath."
        )
    ids = _unique_ids([f.object_id for f in areas])
    labels = np.zeros(shape, np.uint32)
    for object_id, area in zip(ids, areas, strict=True):
        for exterior, *holes in area.rings:
            try:
                _fill(labels, exterior, holes, object_id)
            except ValueError as error:
                raise LabelFormatError(
                    f"{file} is damaged: it has {error}, more than there are edges of "
                    "pixels. Export it again. Nothing was changed."
                ) from error
    if features and not points and not labels.any():
        raise LabelFormatError(
            f"Nothing of {file} lies in the image of {shape[0]} x {shape[1]} pixels. "
            "Check that it was exported from this image, and not from a larger one. "
            "Nothing was changed."
        )
    start = _first_of_new(len(points), set(ids))
    return Outlines(
        labels=labels,
        object_id=np.array(ids, np.int64),
        classes={
            k: f.classified
            for k, f in zip(ids, areas, strict=True)
            if f.classified is not None
        },
        score=np.array([f.score for f in areas], np.float32),
        state=tuple(f.state for f in areas),
        points=Prompts.from_points(
            np.array(points, np.float64).reshape(-1, 2),
            object_id=np.arange(start, start + len(points)),
            state=PromptState.ADDED.value,
        ),
    )


def trace_labels(labels: IntArray) -> Iterator[tuple[int, list[list[Ring]]]]:
    """Yield each label with its parts: a ring around it, then rings around its holes.

    Rings are closed lists of pixel corners (y, x), with (0, 0) the corner of the
    first pixel. Pixels that touch only at a corner are separate parts, so that no ring
    touches itself.
    """
    dense, ids = consecutive_labels(labels)
    for k, box in enumerate(ndimage.find_objects(dense), start=1):
        rows, columns = box
        # each 4-connected part by itself: in semantic mode all nuclei are one label
        parts, _ = ndimage.label(dense[box] == k)
        yield (
            int(ids[k - 1]),
            [
                _trace(
                    parts[of_part] == number,
                    (rows.start + of_part[0].start, columns.start + of_part[1].start),
                )
                for number, of_part in enumerate(ndimage.find_objects(parts), start=1)
            ],
        )


def _trace(mask: npt.NDArray[np.bool_], origin: _Point) -> list[Ring]:
    """Return the rings of a 4-connected part: that around it, then those of holes."""
    rings: list[Ring] = []
    edges = _edges(mask)
    while edges:
        for ring in _loops(edges, next(iter(edges))):
            corners = [
                (y + origin[0], x + origin[1]) for y, x in _without_middles(ring)
            ]
            # a ring around pixels goes clockwise on the screen, one around a hole not
            if _signed_area(corners) > 0:
                rings.insert(0, corners)
            else:
                rings.append(corners)
    return rings


def _edges(mask: npt.NDArray[np.bool_]) -> dict[_Point, list[_Point]]:
    """Return the steps of the edges at the border by where they start.

    On their right is a pixel of the mask.
    """
    padded = np.pad(mask, 1)
    inner = padded[1:-1, 1:-1]
    edges: dict[_Point, list[_Point]] = {}
    sides = (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),  # above: from its left corner rightwards
        (padded[1:-1, 2:], (0, 1), (1, 0)),  # right: downwards
        (padded[2:, 1:-1], (1, 1), (0, -1)),  # below: leftwards
        (padded[1:-1, :-2], (1, 0), (-1, 0)),  # left: upwards
    )
    for beside, (dy, dx), step in sides:
        for y, x in np.argwhere(inner & ~beside).tolist():
            edges.setdefault((y + dy, x + dx), []).append(step)
    return edges


def _loops(edges: dict[_Point, list[_Point]], start: _Point) -> Iterator[Ring]:
    """Take one closed walk out of ``edges``; yield it cut where it meets itself."""
    walk: list[_Point] = [start]
    place = {start: 0}
    step: _Point | None = None
    while True:
        here = walk[-1]
        ways = edges[here]
        # right of the step before is around the same pixel
        right = (step[1], -step[0]) if step else None
        step = right if right is not None and right in ways else ways[0]
        ways.remove(step)
        if not ways:
            del edges[here]
        there = (here[0] + step[0], here[1] + step[1])
        walk.append(there)
        if there in place:
            begin = place[there]
            yield walk[begin:]
            for corner in walk[begin + 1 : -1]:
                del place[corner]
            del walk[begin + 1 :]
            if begin == 0:
                return
        else:
            place[there] = len(walk) - 1


def _without_middles(ring: Ring) -> Ring:
    """Return a closed ring without the corners that lie on a straight line."""
    corners = ring[:-1]
    kept = [
        b
        for a, b, c in zip(
            [corners[-1], *corners[:-1]],
            corners,
            [*corners[1:], corners[0]],
            strict=True,
        )
        if (b[0] - a[0]) * (c[1] - b[1]) != (b[1] - a[1]) * (c[0] - b[0])
    ]
    return [*kept, kept[0]]


def _signed_area(ring: Ring) -> int:
    """Return twice the area; above 0 if the ring goes clockwise on the screen."""
    return sum(x0 * y1 - x1 * y0 for (y0, x0), (y1, x1) in pairwise(ring))


def _feature(
    object_id: int,
    parts: list[list[Ring]],
    row: tuple[float, str] | None,
    classified: ObjectClass,
) -> dict[str, Any]:
    coordinates = [[[[x, y] for y, x in ring] for ring in part] for part in parts]
    single = len(coordinates) == 1
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": str(object_id),
        "classification": {"name": classified.name},
        "measurements": {ID_MEASUREMENT: object_id},
    }
    if classified.colour is not None:
        properties["classification"]["color"] = list(classified.colour)
    if row is not None:
        score, state = row
        properties["measurements"][SCORE_MEASUREMENT] = score
        properties["metadata"] = {STATE_METADATA: state}
    return {
        "type": "Feature",
        "id": str(uuid.UUID(int=_UUID_PREFIX | object_id)),
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": coordinates[0] if single else coordinates,
        },
        "properties": properties,
    }


def _first_rows(prompts: Prompts) -> dict[int, tuple[float, str]]:
    """Return score and state of each nucleus's first positive."""
    rows = prompts.select(prompts.sign == POSITIVE)
    columns = zip(rows.object_id.tolist(), rows.score, rows.state.tolist(), strict=True)
    found: dict[int, tuple[float, str]] = {}
    for object_id, score, state in columns:
        # by way of str: the shortest number that reads back as the same float32
        found.setdefault(object_id, (float(str(score)), state))
    return found


@dataclass(frozen=True, eq=False)
class _Shape:
    """One feature of a file: areas as rings (M, 2) of (y, x), points (y, x).

    ``plane`` is QuPath's (z, t), None where nothing lies there.
    """

    rings: list[list[npt.NDArray[np.float64]]]
    points: list[tuple[float, float]]
    object_id: int | None
    classified: ObjectClass | None
    score: float
    state: str
    plane: tuple[int, int] | None

    @classmethod
    def parse(cls, file: Path, feature: Any) -> _Shape:
        try:
            # of QuPath's cells the nucleus is meant, and not the cell around it
            geometry = feature.get("nucleusGeometry") or feature["geometry"]
            properties = feature.get("properties") or {}
            rings, points = ([], []) if geometry is None else _geometry(geometry)
            # QuPath does not write the first plane
            plane = (geometry or {}).get("plane") or {}
            measurements = _measurements(properties)
            score = float(measurements.get(SCORE_MEASUREMENT, 1.0))
            state = (properties.get("metadata") or {}).get(STATE_METADATA)
            return cls(
                rings,
                points,
                _own_id(measurements.get(ID_MEASUREMENT), feature.get("id")),
                _class_of(properties.get("classification") or {}),
                min(max(score, 0.0), 1.0) if np.isfinite(score) else 1.0,
                PromptState(state or PromptState.ACCEPTED).value,
                None
                if geometry is None
                else (int(plane.get("z", 0)), int(plane.get("t", 0))),
            )
        except (
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            OverflowError,
            RecursionError,
        ) as error:
            raise LabelFormatError(
                f"{file} is damaged: one of its features is not as GeoJSON has them "
                f"({type(error).__name__}: {str(error)[:80]}). Export it again."
            ) from error


def _geometry(
    geometry: Mapping[str, Any],
) -> tuple[list[list[npt.NDArray[np.float64]]], list[tuple[float, float]]]:
    """Return rings and points of one geometry; lines have neither."""
    kind = geometry["type"]
    if kind == "GeometryCollection":
        pairs = [_geometry(g) for g in geometry["geometries"]]
        return [r for p in pairs for r in p[0]], [r for p in pairs for r in p[1]]
    content = geometry["coordinates"]
    if kind in ("Polygon", "MultiPolygon"):
        polygons = [content] if kind == "Polygon" else content
        return [[_positions(ring) for ring in rings] for rings in polygons if rings], []
    if kind in ("Point", "MultiPoint"):
        table = _positions([content] if kind == "Point" else content)
        # a point in the middle of the first pixel is at 0.5 there and at 0 here
        return [], [(float(y) - 0.5, float(x) - 0.5) for y, x in table]
    return [], []


def _positions(coordinates: Any) -> npt.NDArray[np.float64]:
    """Return positions (N, 2) as (y, x), of (x, y) or (x, y, z)."""
    table = np.array([[float(p[1]), float(p[0])] for p in coordinates], np.float64)
    table = table.reshape(-1, 2)
    if not (np.abs(table) <= _FARTHEST).all():
        raise ValueError("a position that is no place in an image")
    return table


def _measurements(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measurements; before version 0.4 QuPath wrote a list of pairs."""
    found = properties.get("measurements") or {}
    if isinstance(found, list):
        return {m["name"]: m["value"] for m in found}
    return dict(found)


def _class_of(classification: Mapping[str, Any]) -> ObjectClass | None:
    """Return the class of a feature, without a colour that makes no sense."""
    # QuPath lists the names of a class within another one
    names = classification.get("names") or [classification.get("name") or ""]
    name = ": ".join(map(str, names))
    if not name:
        return None
    colour = classification.get("color")
    packed = classification.get("colorRGB")
    if colour is None and type(packed) is int:
        # QuPath before version 0.4: one number of 32 bits, the upper eight opacity
        colour = [packed >> shift & 255 for shift in (16, 8, 0)]
    try:
        red, green, blue = (int(c) for c in colour or ())
        return ObjectClass(name, (red, green, blue))
    except (TypeError, ValueError, OverflowError):
        return ObjectClass(name)


def _own_id(measured: Any, text: Any) -> int | None:
    """Return the ``object_id`` of an area that napari-sac wrote, else None."""
    if measured is not None:
        value = float(measured)
        if value.is_integer() and 1 <= value <= _LARGEST_ID:
            return int(value)
    try:
        number = uuid.UUID(str(text)).int
    except ValueError:
        return None
    low = number & (2**64 - 1)
    return low if number - low == _UUID_PREFIX and 1 <= low <= _LARGEST_ID else None


def _unique_ids(wanted: list[int | None]) -> list[int]:
    taken = {k for k in wanted if k is not None}
    following = max(taken, default=0) + 1
    if following + len(wanted) > _LARGEST_ID:
        following = 1
    ids: list[int] = []
    used: set[int] = set()
    for own in wanted:
        object_id = own
        if object_id is None or object_id in used:
            while following in taken:
                following += 1
            object_id = following
            taken.add(object_id)
        used.add(object_id)
        ids.append(object_id)
    return ids


def _first_of_new(count: int, taken: set[int]) -> int:
    """Return the first of so many numbers in a row that are ids and not taken."""
    start = max(taken, default=0) + 1
    if start + count - 1 <= _LARGEST_ID:
        return start
    below = [0, *sorted(taken)]
    gaps = (a + 1 for a, b in pairwise(below) if b - a > count)
    return next(gaps)


def _is_inside(yx: tuple[float, float], shape: tuple[int, int]) -> bool:
    return all(-0.5 <= c < n - 0.5 for c, n in zip(yx, shape, strict=True))


def _fill(
    labels: npt.NDArray[np.uint32],
    exterior: npt.NDArray[np.float64],
    holes: list[npt.NDArray[np.float64]],
    object_id: int,
) -> None:
    """Write the pixels whose middle lies inside the exterior and in no hole."""
    # a ring counts from the corner of the first pixel
    (y, x), mask = mask_inside(exterior - 0.5, labels.shape)
    for hole in holes:
        (top, left), gap = mask_inside(hole - 0.5 - (y, x), mask.shape)
        mask[top : top + gap.shape[0], left : left + gap.shape[1]][gap] = False
    labels[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = object_id


def _features(file: Path) -> list[Any]:
    """Return the features of a collection, of a list, or the only one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "its content is no JSON"
        raise LabelFormatError(
            f"{file} could not be read as GeoJSON ({reason}). Export it again."
        ) from error
    if isinstance(content, dict) and content.get("type") == "Feature":
        return [content]
    found = content.get("features") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise LabelFormatError(
            f"{file} is not GeoJSON with features. Export annotations or detections "
            "from QuPath."
        )
    return found
