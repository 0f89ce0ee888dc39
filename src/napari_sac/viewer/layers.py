"""The layers that we make: their names, how they look, and how they are written.

They may be built in a worker's thread, which loads what napari needs for them; once
they are in a viewer they are touched on its thread only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.colormaps.standardize_color import transform_color

from napari_sac.core.types import POSITIVE, Prompts
from napari_sac.viewer.prompts import (
    COLUMNS,
    SIGN_SYMBOLS,
    STATE_COLOURS,
    features_table,
    point_size,
)

if TYPE_CHECKING:
    import numpy.typing as npt
    from napari.components import ViewerModel

    from napari_sac.core.session.pixels import PixelChange
    from napari_sac.viewer.planes import ImagePlane

SESSION_KEY = "napari-sac"
"""Where our layers carry their session, in ``layer.metadata``."""

BORDER_WIDTH = 0.3
"""Width of a point's ring, as a part of its size."""

# Napari's canvas pixels: points can be clicked when the whole field is in view, and
# hide no small nucleus when it is enlarged to be judged.
_CANVAS_SIZES = (8, 14)

# Beyond this it is faster to draw the whole layer again.
_MANY_PIXELS = 200_000


def prompts_name(name: str) -> str:
    """Return the name of the Points layer of a plane."""
    return f"nuclei prompts [{name}]"


def labels_name(name: str) -> str:
    """Return the name of the Labels layer of a plane."""
    return f"nuclei [{name}]"


def plane_name(plane: ImagePlane) -> str:
    """Return what the plane is called in the names of our layers."""
    if not plane.position:
        return str(plane.layer.name)
    return f"{plane.layer.name}, plane {', '.join(map(str, plane.position))}"


def name_among(viewer: ViewerModel, plane: ImagePlane) -> str:
    """Return what a plane is called where there are other images too; else nothing."""
    images = sum(isinstance(layer, Image) for layer in viewer.layers)
    return plane_name(plane) if images > 1 else ""


def build_points(
    prompts: Prompts, diameter: float, name: str, geometry: dict[str, Any]
) -> Points:
    """Return a Points layer with the prompts."""
    return Points(
        prompts.yx,
        name=name,
        features=features_table(prompts),
        # not "state" and a cycle: that fails when an emptied layer gets a point
        border_color=_colours(prompts) if len(prompts) else "white",
        # a wide ring: napari draws nothing but the border of points that are small
        border_width=BORDER_WIDTH,
        face_color="black",
        symbol=_symbols(prompts) or SIGN_SYMBOLS[POSITIVE],
        size=point_size(diameter),
        canvas_size_limits=_CANVAS_SIZES,
        **geometry,
    )


def write_points(
    layer: Points,
    prompts: Prompts,
    diameter: float,
    *,
    before: Prompts | None = None,
    positions: bool = True,
) -> None:
    """Make the layer show these prompts.

    Parameters
    ----------
    layer : Points
    prompts : Prompts
    diameter : float
        Typical nucleus diameter in pixels of the image.
    before : Prompts, optional
        What the layer shows, if that is known: then only what differs is written,
        which matters for thousands of points. If there are fewer of them, napari has
        added rows behind them.
    positions : bool
        Whether to write the positions too. They must not be written while napari is
        changing them itself.
    """
    if positions and (before is None or not np.array_equal(before.yx, prompts.yx)):
        layer.selected_data = set()
        layer.data = prompts.yx.copy()
        if before is not None and len(before) > len(prompts):
            # napari has taken away the last rows
            before = before.select(np.arange(len(prompts)))
    if before is None or len(before) > len(prompts):
        _write_all(layer, prompts, diameter)
    else:
        _write_rows(layer, prompts, diameter, _changed_rows(before, prompts))
    if layer.current_size != point_size(diameter):
        # napari draws the layer again for it if a point is selected
        layer.current_size = point_size(diameter)


def _write_all(layer: Points, prompts: Prompts, diameter: float) -> None:
    layer.features = features_table(prompts)
    if len(prompts):
        layer.border_color = _colours(prompts)
        layer.symbol = _symbols(prompts)
        layer.size = point_size(diameter)


def _write_rows(
    layer: Points, prompts: Prompts, diameter: float, rows: npt.NDArray[np.intp]
) -> None:
    """Write what differs in some rows: whole arrays take napari milliseconds each."""
    if len(rows):
        changed = prompts.select(rows)
        _write_features(layer, prompts, rows)
        known = type(layer.current_symbol)
        symbols = [known(symbol) for symbol in _symbols(changed)]
        looks = (layer.border_color, _colours(changed)), (layer.symbol, symbols)
        differs = [not np.array_equal(array[rows], new) for array, new in looks]
        if any(differs):
            for array, new in looks:
                array[rows] = new
            # either of the two events draws all that was changed
            layer.events.border_color()
    if len(prompts) and (layer.size != point_size(diameter)).any():
        layer.size = point_size(diameter)


def _write_features(
    layer: Points, prompts: Prompts, rows: npt.NDArray[np.intp]
) -> None:
    """Make napari's table of features agree with the prompts in some rows."""
    table, new = layer.features, features_table(prompts.select(rows))
    if list(table.columns) != list(new.columns) or (table.dtypes != new.dtypes).any():
        layer.features = features_table(prompts)
        return
    for place, column in enumerate(new):
        table.iloc[rows, place] = new[column].to_numpy()
    layer.events.features()


def _changed_rows(before: Prompts, after: Prompts) -> npt.NDArray[np.intp]:
    """Return the rows that look or read differently, and those that are new."""
    differs = np.ones(len(after), bool)
    differs[: len(before)] = False
    for name in COLUMNS:
        old, new = getattr(before, name), getattr(after, name)
        differs[: len(before)] |= old != new[: len(before)]
    return np.flatnonzero(differs)


def load_tools() -> None:
    """Load what the first layers of ours and the first journal need.

    Each takes half a second or more, once: for a worker's thread, so that the window
    does not stop for it.
    """
    import tifffile  # noqa: F401

    Labels(np.zeros((1, 1), np.uint32))
    build_points(Prompts.empty(), 1.0, "", {})


def build_labels(
    labels: npt.NDArray[np.uint32], name: str, geometry: dict[str, Any]
) -> Labels:
    """Return a Labels layer that shows a copy of (H, W) labels."""
    layer = Labels(np.array(labels, np.uint32, order="C"), name=name, **geometry)
    keep_no_history(layer)
    return layer


def keep_no_history(layer: Labels) -> None:
    """Let napari remember nothing of what is written into a layer.

    Every stroke goes into the session's history. A history of napari's beside it would
    go stale: it writes pixels back without a look at what happened since.
    """
    # nothing public empties it or turns it off
    layer._history_limit = 0
    layer._reset_history()


def show_pixels(
    layer: Labels,
    labels: npt.NDArray[np.uint32],
    change: PixelChange,
    *,
    force: bool = False,
) -> None:
    """Make a layer show labels (H, W) where they were changed.

    Parameters
    ----------
    layer : Labels
    labels : (H, W) uint32
    change : PixelChange
    force : bool, optional
        Whether to write pixels too that show neither what was there before nor what is
        there now: those of a stroke that is not finished.
    """
    flat = change.flat()
    if len(flat) > _MANY_PIXELS:
        layer.data.reshape(-1)[flat] = labels.reshape(-1)[flat]
        layer.refresh()
        return
    indices = np.divmod(flat, labels.shape[1])
    values, shown = labels[indices], layer.data[indices]
    before = np.repeat(change.before, change.lengths)
    after = np.repeat(change.after, change.lengths)
    ours = (shown == before) | (shown == after) | force
    if ours.any():
        layer.data_setitem(tuple(i[ours] for i in indices), values[ours])


def build_shapes(name: str, geometry: dict[str, Any], colour: str) -> Shapes:
    """Return an empty Shapes layer whose shapes do not hide what lies below."""
    return Shapes(
        ndim=2,
        name=name,
        edge_color=colour,
        face_color="transparent",
        edge_width=2,
        **geometry,
    )


def _symbols(prompts: Prompts) -> list[str]:
    return [SIGN_SYMBOLS[int(sign)] for sign in prompts.sign]


def _colours(prompts: Prompts) -> npt.NDArray[np.float64]:
    """Return the colour (N, 4) of each prompt, by its state."""
    colours = np.zeros((len(prompts), 4))
    for state, colour in STATE_COLOURS.items():
        colours[prompts.state == state.value] = transform_color(colour)[0]
    return colours
