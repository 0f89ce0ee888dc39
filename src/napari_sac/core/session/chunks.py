"""Labels on disk as a zarr array (format 3), one file a chunk.

Only what we write is read: (H, W) uint32 in gzipped chunks of 512 x 512. The files are
written here and not by zarr's library because a chunk must be on disk, whole, before
the journal notes it, and because a chunk from outside must not unpack to gigabytes.
"""

from __future__ import annotations

import json
import shutil
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sac.core.errors import SessionError
from napari_sac.core.folders import sync_folder
from napari_sac.core.session.layout import read_plain, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from napari_sac.core.session.pixels import PixelChange

Chunk = tuple[int, int]

SIDE = 512

_ABOUT = "zarr.json"
_CHUNK_BYTES = SIDE * SIDE * 4
# incompressible labels grow by a few bytes a block
_MAX_FILE_BYTES = _CHUNK_BYTES + _CHUNK_BYTES // 100 + 1024
_GZIP = 31
_LEVEL = 1


def create_labels(path: Path, labels: npt.NDArray[np.uint32]) -> None:
    """Write labels (H, W) as a new array; what was there is replaced."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    height, width = labels.shape
    write_file(path / _ABOUT, json.dumps(_metadata((height, width))).encode())
    write_chunks(path, labels, all_chunks((height, width)))
    sync_folder(path)


def write_chunks(
    path: Path, labels: npt.NDArray[np.uint32], chunks: Iterable[Chunk]
) -> None:
    """Write these chunks of the labels; a chunk without a nucleus has no file."""
    folders = set()
    for row, column in chunks:
        y, x = row * SIDE, column * SIDE
        block = labels[y : y + SIDE, x : x + SIDE]
        file = path / "c" / str(row) / str(column)
        if not block.any():
            if file.exists():
                file.unlink()
                folders.add(file.parent)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, _encode(block))
        folders.add(file.parent)
    for folder in folders:
        sync_folder(folder)


def labels_files(path: Path) -> list[Path]:
    """Return the files that labels consist of, the one that describes them first."""
    chunks = (file for file in path.glob("c/*/*") if file.suffix != ".part")
    return [path / _ABOUT, *chunks]


def read_labels(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return the labels of that shape (H, W).

    Raises
    ------
    SessionError
        If the files are damaged, or not as :func:`create_labels` writes them.
    """
    try:
        found = json.loads(read_plain(path / _ABOUT, 1 << 16))
        if found != _metadata(shape):
            raise ValueError(f"{_ABOUT} describes other labels")
        labels = np.zeros(shape, np.uint32)
        for row, column in all_chunks(shape):
            file = path / "c" / str(row) / str(column)
            # another process may take away a chunk that has no nucleus any more
            with suppress(FileNotFoundError):
                block = _decode(read_plain(file, _MAX_FILE_BYTES))
                y, x = row * SIDE, column * SIDE
                target = labels[y : y + SIDE, x : x + SIDE]
                target[...] = block[: target.shape[0], : target.shape[1]]
    except (OSError, ValueError, zlib.error, RecursionError, MemoryError) as error:
        raise SessionError(
            f"The session is damaged: the labels in {path} cannot be read ({error}). "
            "Nothing was changed; open a copy of the session, if there is one."
        ) from error
    return labels


def all_chunks(shape: tuple[int, int]) -> list[Chunk]:
    """Return the chunks that labels of a shape have."""
    rows, columns = (-(-n // SIDE) for n in shape)
    return [(i, j) for i in range(rows) for j in range(columns)]


def touched_chunks(change: PixelChange | None, shape: tuple[int, int]) -> set[Chunk]:
    """Return the chunks that have a pixel of the change."""
    if change is None or len(change) == 0:
        return set()
    width = shape[1]
    y0, x0 = np.divmod(change.starts, width)
    y1, x1 = np.divmod(change.ends - 1, width)
    # a run that goes on in the next row may lie in every column
    wraps = y1 > y0
    x0, x1 = np.where(wraps, 0, x0), np.where(wraps, width - 1, x1)
    rows, columns = (-(-n // SIDE) for n in shape)
    boxes = (rows, rows, columns, columns)
    # a million runs touch few boxes of chunks: numbered, they are told apart fast
    numbers = np.ravel_multi_index([n // SIDE for n in (y0, y1, x0, x1)], boxes)
    numbers = np.sort(numbers)
    different = numbers[np.diff(numbers, prepend=-1) != 0]
    corners = np.transpose(np.unravel_index(different, boxes))
    return {
        (i, j)
        for top, bottom, left, right in corners.tolist()
        for i in range(top, bottom + 1)
        for j in range(left, right + 1)
    }


def _encode(block: npt.NDArray[np.uint32]) -> bytes:
    whole = np.zeros((SIDE, SIDE), "<u4")
    whole[: block.shape[0], : block.shape[1]] = block
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return deflater.compress(whole.data) + deflater.flush()


def _decode(data: bytes) -> npt.NDArray[np.uint32]:
    inflater = zlib.decompressobj(_GZIP)
    raw = inflater.decompress(data, _CHUNK_BYTES + 1)
    if len(raw) != _CHUNK_BYTES or not inflater.eof:
        raise ValueError("a chunk of another size")
    return np.frombuffer(raw, "<u4").reshape(SIDE, SIDE)


def _metadata(shape: tuple[int, int]) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint32",
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [SIDE, SIDE]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "gzip", "configuration": {"level": _LEVEL}},
        ],
        "dimension_names": ["y", "x"],
        "attributes": {},
    }
