"""Changes and states as bytes, without pickle; bytes from outside are not trusted.

A block is ``SAC1``, the length of a JSON header (uint32, little-endian), the header,
and the arrays that it lists one behind the other, deflated.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.config import DecodeConfig
from napari_sac.core.models.adapter import adapter_here
from napari_sac.core.session.changes import (
    Change,
    ClassesChange,
    IdsChange,
    RowsChange,
    state_codes,
    states_of,
)
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import (
    NEGATIVE,
    POSITIVE,
    ObjectClass,
    Prompts,
    PromptState,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_sac.core.types import AnyArray, FloatArray

MAX_BYTES = 1 << 30
"""Of the arrays of one block."""

_MAGIC = b"SAC1"
_DAMAGED = (ValueError, TypeError, KeyError, zlib.error, RecursionError)
_MAX_HEADER = 1 << 24
_MAX_TITLE = 1000
_MAX_ID = 2**32 - 1
_TYPES = ("<i8", "<i4", "<u4", "<f8", "<f4", "|i1", "|u1")
_PROMPT_COLUMNS = {"id": "<i8", "yx": "<f8", "sign": "|i1", "score": "<f4", "t": "|u1"}


def to_bytes(change: Change) -> bytes:
    """Return the change as bytes.

    Raises
    ------
    ValueError
        If it is larger than ``MAX_BYTES``, or could not be read again.
    """
    header: dict[str, Any] = {"title": change.title[:_MAX_TITLE]}
    arrays: dict[str, AnyArray] = {}
    for name in ("prompts", "hidden"):
        rows: RowsChange | None = getattr(change, name)
        if rows is not None:
            arrays[f"{name}.removed"] = rows.removed
            arrays[f"{name}.inserted"] = rows.inserted
            _check_ids(rows.after.object_id)
            _put_prompts(arrays, f"{name}.before", rows.before)
            _put_prompts(arrays, f"{name}.after", rows.after)
    if change.pixels is not None:
        # differences are small numbers, which deflate well
        arrays["pixels.steps"] = np.diff(change.pixels.starts, prepend=0)
        arrays["pixels.lengths"] = change.pixels.lengths
        arrays["pixels.before"] = change.pixels.before
        arrays["pixels.after"] = change.pixels.after
    if change.painted is not None:
        arrays["painted.removed"] = _ids(change.painted.removed)
        arrays["painted.added"] = _ids(change.painted.added)
        _check_ids(arrays["painted.added"])
    if change.reviewed is not None:
        _put_polygons(arrays, "reviewed.before", change.reviewed[0])
        _put_polygons(arrays, "reviewed.after", change.reviewed[1])
    if change.settings is not None:
        header["settings"] = [asdict(s) for s in change.settings]
    if change.classes is not None:
        _put_classes(arrays, "classes.removed", change.classes.removed)
        _put_classes(arrays, "classes.added", change.classes.added)
    return _pack(header, arrays)


def from_bytes(data: bytes) -> Change:
    """Return the change that :func:`to_bytes` wrote.

    Raises
    ------
    ValueError
        If the bytes are damaged, or claim what they do not hold.
    """
    try:
        return _read_change(*_unpack(data))
    except _DAMAGED as error:
        raise ValueError(f"no change: {error}") from error


def tables_to_bytes(state: AnnotationState) -> bytes:
    """Return everything but the labels as bytes."""
    arrays: dict[str, AnyArray] = {"painted": _ids(state.painted)}
    _put_prompts(arrays, "prompts", state.prompts)
    _put_prompts(arrays, "hidden", state.hidden)
    _put_polygons(arrays, "reviewed", state.reviewed)
    _put_classes(arrays, "classes", state.classes)
    return _pack({"settings": asdict(state.settings)}, arrays)


def tables_from_bytes(data: bytes, labels: AnyArray) -> AnnotationState:
    """Return the state that :func:`tables_to_bytes` wrote, with these labels.

    Raises
    ------
    ValueError
        As :func:`from_bytes`.
    """
    try:
        header, arrays = _unpack(data)
        return AnnotationState(
            prompts=_take_prompts(arrays, "prompts"),
            hidden=_take_prompts(arrays, "hidden"),
            labels=labels,
            painted=_take_ids(arrays, "painted"),
            reviewed=_take_polygons(arrays, "reviewed"),
            settings=_read_settings(header["settings"]),
            classes=_take_classes(arrays, "classes"),
        )
    except _DAMAGED as error:
        raise ValueError(f"no tables: {error}") from error


def _read_change(header: dict[str, Any], arrays: Mapping[str, AnyArray]) -> Change:
    title = header["title"]
    if not isinstance(title, str) or len(title) > _MAX_TITLE:
        raise ValueError("no title")
    rows = {
        name: RowsChange(
            _take(arrays, f"{name}.removed", "<i8"),
            _take_prompts(arrays, f"{name}.before"),
            _take(arrays, f"{name}.inserted", "<i8"),
            _take_prompts(arrays, f"{name}.after"),
        )
        for name in ("prompts", "hidden")
        if f"{name}.removed" in arrays
    }
    pixels = painted = reviewed = settings = classes = None
    if "pixels.steps" in arrays:
        pixels = PixelChange(
            np.cumsum(_take(arrays, "pixels.steps", "<i8"), dtype=np.int64),
            _take(arrays, "pixels.lengths", "<i4"),
            _take(arrays, "pixels.before", "<u4"),
            _take(arrays, "pixels.after", "<u4"),
        )
    if "painted.removed" in arrays:
        painted = IdsChange(
            _take_ids(arrays, "painted.removed"), _take_ids(arrays, "painted.added")
        )
    if "reviewed.before.sizes" in arrays:
        reviewed = (
            _take_polygons(arrays, "reviewed.before"),
            _take_polygons(arrays, "reviewed.after"),
        )
    if "settings" in header:
        before, after = header["settings"]
        settings = (_read_settings(before), _read_settings(after))
    if "classes.removed.id" in arrays:
        classes = ClassesChange(
            _take_classes(arrays, "classes.removed"),
            _take_classes(arrays, "classes.added"),
        )
    return Change(
        title,
        rows.get("prompts"),
        rows.get("hidden"),
        pixels,
        painted,
        reviewed,
        settings,
        classes,
    )


def _read_settings(values: Any) -> Settings:
    """Return the settings; fields that a newer version added are refused."""
    if not isinstance(values, dict) or not isinstance(values.get("decode"), dict):
        raise TypeError("no settings")
    known = {
        "model": str,
        "adapter": str | None,
        "diameter": float | int,
        "threshold": float | int,
        "model_key": str | None,
    }
    for name, kind in known.items():
        if not isinstance(values.get(name), kind):
            raise TypeError(f"{name} of the settings is {values.get(name)!r:.80}")
    given = values["decode"]
    decode = {}
    for f in fields(DecodeConfig):
        value = decode[f.name] = given[f.name]
        if not isinstance(
            value, (float, int) if f.type == "float" else type(f.default)
        ):
            raise TypeError(f"{f.name} of the settings is {value!r:.80}")
    if set(given) != set(decode) or set(values) != {*known, "decode"}:
        raise ValueError("unknown settings")
    settings = Settings(**{k: values[k] for k in known}, decode=DecodeConfig(**decode))
    if settings.adapter is None:
        return settings
    return replace(settings, adapter=adapter_here(settings.adapter))


def _put_prompts(arrays: dict[str, AnyArray], name: str, prompts: Prompts) -> None:
    arrays |= {
        f"{name}.id": prompts.object_id,
        f"{name}.yx": prompts.yx,
        f"{name}.sign": prompts.sign,
        f"{name}.score": prompts.score,
        f"{name}.t": state_codes(prompts),
    }


def _take_prompts(arrays: Mapping[str, AnyArray], name: str) -> Prompts:
    ids, yx, sign, score, codes = (
        _take(arrays, f"{name}.{column}", kind)
        for column, kind in _PROMPT_COLUMNS.items()
    )
    _check_ids(ids)
    if len(ids) and (
        not np.isfinite(yx).all()
        or not ((score >= 0) & (score <= 1)).all()
        or not np.isin(sign, (NEGATIVE, POSITIVE)).all()
        or codes.max() >= len(PromptState)
    ):
        raise ValueError("a prompt with impossible values")
    return Prompts(ids, yx.reshape(-1, 2), sign, score, states_of(codes))


def _ids(ids: frozenset[int]) -> AnyArray:
    return np.array(sorted(ids), np.int64)


def _take_ids(arrays: Mapping[str, AnyArray], name: str) -> frozenset[int]:
    ids = _take(arrays, name, "<i8")
    _check_ids(ids)
    return frozenset(ids.tolist())


def _check_ids(ids: AnyArray) -> None:
    if len(ids) and not 1 <= ids.min() <= ids.max() <= _MAX_ID:
        raise ValueError("impossible numbers of nuclei")


def _put_classes(
    arrays: dict[str, AnyArray], name: str, classes: Mapping[int, ObjectClass]
) -> None:
    kinds = list(dict.fromkeys(classes.values()))
    places = {kind: place for place, kind in enumerate(kinds)}
    text = json.dumps([[kind.name, kind.colour] for kind in kinds]).encode()
    arrays[f"{name}.id"] = np.array(list(classes), np.int64)
    arrays[f"{name}.kind"] = np.array([places[c] for c in classes.values()], np.int32)
    # not in the header, whose length is limited
    arrays[f"{name}.kinds"] = np.frombuffer(text, np.uint8)


def _take_classes(
    arrays: Mapping[str, AnyArray], name: str
) -> Mapping[int, ObjectClass]:
    ids, places = (
        _take(arrays, f"{name}.id", "<i8"),
        _take(arrays, f"{name}.kind", "<i4"),
    )
    rows = json.loads(_take(arrays, f"{name}.kinds", "|u1").tobytes())
    kinds = [_read_class(class_name, colour) for class_name, colour in rows]
    if ids.shape != places.shape or not ((places >= 0) & (places < len(kinds))).all():
        raise ValueError("classes that do not fit their nuclei")
    return {k: kinds[p] for k, p in zip(ids.tolist(), places.tolist(), strict=True)}


def _read_class(name: Any, colour: Any) -> ObjectClass:
    if not isinstance(name, str) or any(type(c) is not int for c in colour or ()):
        raise TypeError(f"a class {name!r:.80} of colour {colour!r:.80}")
    return ObjectClass(name, None if colour is None else tuple(colour))


def _put_polygons(
    arrays: dict[str, AnyArray], name: str, polygons: Sequence[FloatArray]
) -> None:
    arrays[f"{name}.sizes"] = np.array([len(p) for p in polygons], np.int64)
    arrays[f"{name}.yx"] = np.concatenate([np.empty((0, 2)), *polygons])


def _take_polygons(arrays: Mapping[str, AnyArray], name: str) -> tuple[FloatArray, ...]:
    sizes = _take(arrays, f"{name}.sizes", "<i8")
    yx = _take(arrays, f"{name}.yx", "<f8").reshape(-1, 2)
    if len(sizes) == 0:
        return ()
    if (
        sizes.min() < 0
        or sizes.max() > len(yx)
        or sizes.sum() != len(yx)
        or not np.isfinite(yx).all()
    ):
        raise ValueError("polygons of impossible sizes or places")
    return tuple(p.copy() for p in np.split(yx, np.cumsum(sizes)[:-1]))


def _take(arrays: Mapping[str, AnyArray], name: str, kind: str) -> AnyArray:
    array = arrays[name]
    if array.dtype.str != kind:
        raise TypeError(f"{name} holds {array.dtype}")
    return array


def _pack(header: dict[str, Any], arrays: dict[str, AnyArray]) -> bytes:
    columns = {}
    for name, array in arrays.items():
        kind = array.dtype.newbyteorder("<").str
        columns[name] = np.ascontiguousarray(array, kind).reshape(-1)
    if sum(c.nbytes for c in columns.values()) > MAX_BYTES:
        raise ValueError(f"a change of more than {MAX_BYTES >> 20} MB")
    listed = [[name, c.dtype.str, len(c)] for name, c in columns.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    deflater = zlib.compressobj(1)
    parts = [deflater.compress(c.data) for c in columns.values()]
    size = len(text).to_bytes(4, "little")
    return b"".join([_MAGIC, size, text, *parts, deflater.flush()])


def _unpack(data: bytes) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """Return the header and the flat arrays; check sizes before memory is taken."""
    length = int.from_bytes(data[4:8], "little")
    if data[:4] != _MAGIC or not 0 < length <= min(_MAX_HEADER, len(data) - 8):
        raise ValueError("no such block")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict) or not isinstance(header.get("arrays"), list):
        raise ValueError("no list of arrays")
    kinds: dict[str, np.dtype[Any]] = {}
    counts: dict[str, int] = {}
    for name, kind, count in header["arrays"]:
        if kind not in _TYPES or not isinstance(count, int) or count < 0:
            raise ValueError(f"an array of {count} x {kind}")
        kinds[name], counts[name] = np.dtype(kind), count
    total = sum(counts[name] * kinds[name].itemsize for name in kinds)
    if total > MAX_BYTES:
        raise ValueError(f"arrays of {total:,} bytes")
    inflater = zlib.decompressobj()
    raw = inflater.decompress(data[8 + length :], total + 1)
    if len(raw) != total or not inflater.eof or inflater.unused_data:
        raise ValueError("arrays of another size than claimed")
    arrays, offset = {}, 0
    for name, kind in kinds.items():
        # copied, so that what comes out can be written to
        arrays[name] = np.frombuffer(raw, kind, counts[name], offset).copy()
        offset += counts[name] * kind.itemsize
    return header, arrays
