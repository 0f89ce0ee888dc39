"""Labels as OME-Zarr 0.5, which napari, Fiji and web viewers open."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_sac import __version__
from napari_sac.core.errors import OutputError
from napari_sac.core.folders import whole_folder
from napari_sac.core.io import as_uint32
from napari_sac.core.labels import consecutive_labels
from napari_sac.core.types import POSITIVE, AnyArray, Prompts

VERSION = "0.5"
LABELS_NAME = "nuclei"
_MARK = "napari-sac"
"""The attribute by which a folder is known as ours, and may be replaced."""
_COLOURS: list[Any] = [
    {
        "label": label,
        "color": colour,
        "active": True,
        "window": {"start": 0, "end": 255, "min": 0, "max": 255},
    }
    for label, colour in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
]
"""Without them, viewers show three channels as cyan, magenta and yellow."""
_CHUNK = 512
_SMALLEST = 256
_LARGEST_NOTE = 1 << 20


def write_ome_zarr(
    path: str | Path,
    labels: npt.NDArray[np.uint32],
    prompts: Prompts | None = None,
    *,
    image: npt.NDArray[np.uint8] | None = None,
    pixel_size: tuple[float, float] | None = None,
) -> None:
    """Write labels, and the image under them if it is given, as an OME-Zarr folder.

    Parameters
    ----------
    path : str or Path
        The folder; usually named ``*.ome.zarr``. One that this function wrote is
        replaced.
    labels : (H, W) uint32
        They are at ``labels/nuclei`` in the folder; without image at its root, where
        viewers look that know nothing of labels.
    prompts : Prompts, optional
        Score and state of each nucleus are written as properties of its label.
    image : (H, W, 3) uint8, optional
        As colours, in three channels.
    pixel_size : (float, float), optional
        Height and width of a pixel in micrometres.

    Raises
    ------
    OutputError
        If something else is there or the folder cannot be written; then nothing is
        changed.
    ValueError
        If the labels do not fit into uint32.
    """
    target, values = Path(path), as_uint32(labels)
    check_replaceable(target)
    try:
        with whole_folder(target) as partial:
            _write(partial, values, prompts, image, pixel_size)
            # it took long: somebody may have put something there
            check_replaceable(target)
    except OSError as error:
        raise OutputError(
            f"{target} could not be written ({error.strerror or error}). Nothing there "
            "was changed; choose a folder that you may write to, with space left."
        ) from error


def check_replaceable(target: Path) -> None:
    """Check that nothing is there, or what :func:`write_ome_zarr` wrote.

    Raises
    ------
    OutputError
        If something else is there.
    """
    # pathlib raises where one may not look
    if os.path.exists(target) and not _is_ours(target):
        raise OutputError(
            f"{target} is there already, and napari-sac did not write it, or not all "
            "that is in it. Nothing was changed; choose another name, or delete it "
            "first."
        )


def _is_ours(folder: Path) -> bool:
    """Return whether this program wrote a folder, and nobody put anything in."""
    about = folder / "zarr.json"
    try:
        if about.stat().st_size > _LARGEST_NOTE:
            return False
        attributes = json.loads(about.read_text(encoding="utf-8"))["attributes"]
        images = attributes["ome"].get("multiscales", [])
        levels = {dataset["path"] for one in images for dataset in one["datasets"]}
        inside = _names_in(folder)
        if _MARK not in attributes or inside - {"labels"} != {"zarr.json", *levels}:
            return False
        if "labels" not in inside:
            return True
        nuclei = _names_in(folder / "labels" / LABELS_NAME)
        alone = _names_in(folder / "labels") == {"zarr.json", LABELS_NAME}
        return alone and all(n.isdigit() for n in nuclei - {"zarr.json"})
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return False


def _names_in(folder: Path) -> set[str]:
    """Return what is in a folder, but for what systems put into each."""
    return {p.name for p in folder.iterdir()} - {".DS_Store", "Thumbs.db"}


def _write(
    folder: Path,
    labels: npt.NDArray[np.uint32],
    prompts: Prompts | None,
    image: npt.NDArray[np.uint8] | None,
    pixel_size: tuple[float, float] | None,
) -> None:
    import zarr

    root = nuclei = zarr.create_group(folder, zarr_format=3)
    root.attrs[_MARK] = {"version": __version__}
    about: dict[str, Any] = {"properties": _properties(labels, prompts)}
    if image is not None:
        levels = _write_levels(root, np.moveaxis(image, -1, 0))
        root.attrs["ome"] = {
            "version": VERSION,
            "multiscales": [_multiscale("image", "cyx", levels, pixel_size)],
            "omero": {"channels": _COLOURS},
        }
        group = root.create_group("labels")
        group.attrs["ome"] = {"version": VERSION, "labels": [LABELS_NAME]}
        nuclei = group.create_group(LABELS_NAME)
        about["source"] = {"image": "../../"}
    levels = _write_levels(nuclei, labels)
    nuclei.attrs["ome"] = {
        "version": VERSION,
        "multiscales": [_multiscale(LABELS_NAME, "yx", levels, pixel_size)],
        "image-label": about,
    }


def _write_levels(group: Any, pixels: AnyArray) -> int:
    """Write the pixels at full, half, quarter... size; return how many."""
    level = 0
    while True:
        array = group.create_array(
            str(level),
            shape=pixels.shape,
            dtype=pixels.dtype,
            chunks=(*(1 for _ in pixels.shape[:-2]), *_chunk(pixels.shape[-2:])),
            dimension_names=["c", "y", "x"][-pixels.ndim :],
        )
        array[...] = pixels
        level += 1
        if max(pixels.shape[-2:]) <= _SMALLEST:
            return level
        # the nearest, as labels must not be averaged
        pixels = pixels[..., ::2, ::2]


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(1, min(_CHUNK, n)) for n in shape)


def _multiscale(
    name: str, axes: str, levels: int, pixel_size: tuple[float, float] | None
) -> dict[str, Any]:
    unit = {} if pixel_size is None else {"unit": "micrometer"}
    channel = {"name": "c", "type": "channel"}
    # of the axes y and x, which are the last
    sizes = [*(1.0 for _ in axes[:-2]), *(pixel_size or (1.0, 1.0))]
    return {
        "name": name,
        "axes": [
            channel if a == "c" else {"name": a, "type": "space", **unit} for a in axes
        ],
        "datasets": [
            {
                "path": str(level),
                "coordinateTransformations": _transform(axes, sizes, level),
            }
            for level in range(levels)
        ],
    }


def _transform(axes: str, sizes: list[float], level: int) -> list[dict[str, Any]]:
    scale = [s if a == "c" else s * 2**level for a, s in zip(axes, sizes, strict=True)]
    return [{"type": "scale", "scale": scale}]


def _properties(
    labels: npt.NDArray[np.uint32], prompts: Prompts | None
) -> list[dict[str, Any]]:
    _, ids = consecutive_labels(labels)
    found: dict[int, dict[str, Any]] = {k: {"label-value": k} for k in ids.tolist()}
    if prompts is not None:
        for row in np.flatnonzero(prompts.sign == POSITIVE)[::-1].tolist():
            entry = found.get(int(prompts.object_id[row]))
            if entry is not None:
                entry["score"] = float(prompts.score[row])
                entry["state"] = str(prompts.state[row])
    return list(found.values())
