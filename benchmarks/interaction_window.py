"""Time a click until its mask is on the screen, in a real napari window.

::

    python benchmarks/interaction_window.py
    python benchmarks/interaction_window.py --quick --json window.json

Needs a display; a virtual one will do (``xvfb-run -a -s "-screen 0 1400x900x24"``).
A field of drawn nuclei is segmented in the dock, but for some that are left for the
clicks. Then real mouse and key events go to the canvas: nuclei added, negatives,
points dragged, steps undone. A click ends with the first frame on the screen that was
drawn after the new labels were written. The share of the window's own thread is the
processor time of that thread meanwhile; what it needs to paint frames is told apart,
because without a graphics card that is much of it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from interaction import SPACE, build_field, draw_tile
from interaction import Field as DecodedField
from napari import Viewer
from qtpy import QtTest
from qtpy.QtCore import QEvent, QEventLoop, QObject, QPoint, Qt, QTimer
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication

from napari_sac.viewer.inference import Found, LoadedModel, Segmented, SegmentRequest
from napari_sac.viewer.layers import build_points
from napari_sac.viewer.planes import plane_geometry
from napari_sac.viewer.relabelling import FreshLabels
from napari_sac.widgets._torch_import import import_torch

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model

# PyQt's annotations give its static functions a self
QTest: Any = QtTest.QTest
Key, Modifier = Qt.Key, Qt.KeyboardModifier
LEFT = Qt.MouseButton.LeftButton
PARTS = ("screen", "gui", "paint", "later")
ACTIONS = ("add", "shift-click", "not this", "drag", "undo")
ZOOM = 2.0
MIDDLE = (200.0, 200.0)
"""The pixel (y, x) of the image in the middle of the canvas."""
SPARE = 40
"""Nuclei around that pixel that are left for the clicks to add."""
PATIENCE = 10.0
"""Seconds."""
NO_FRAME_TICKS = 5
"""How many tenths of a second to wait for a frame with what was written."""
REST_MS = 100
"""How long the mouse rests at a place before a key or the mouse is pressed, and before
it lets go of what it has dragged."""


@dataclass(frozen=True)
class Timing:
    """Milliseconds from the event to the frame, and of the window's thread.

    Parameters
    ----------
    screen : float
    gui : float
        Processor time of the window's thread without ``paint``.
    paint : float
        Processor time of the same thread for frames: it is the graphics driver's, which
        does everything by itself where there is no graphics card.
    later : float
        Processor time of the same thread when the mask is seen already: napari's own
        layer of points, the dock, and the frames in which they are seen.
    """

    screen: float
    gui: float
    paint: float
    later: float


@dataclass(frozen=True)
class Moment:
    """Seconds by the clock, of the window's thread, and of these for frames."""

    clock: float
    busy: float
    painted: float


class Screen(QObject):
    """Tells when a frame is on the screen that was drawn after an event.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.canvas = next(
            widget
            for widget in QApplication.allWidgets()
            if isinstance(widget, QOpenGLWidget) and widget.isVisible()
        )
        self._paint_seconds = 0.0
        self._loop = QEventLoop()
        self._is_written: Any = bool
        self._drawn = False
        self._seen: Moment | None = None
        self._painting: float | None = None
        scene = viewer.window._qt_viewer.canvas._scene_canvas
        scene.events.draw.connect(self._on_draw, position="last")
        self.canvas.frameSwapped.connect(self._on_swapped)
        for widget in (self.canvas, viewer.window._qt_window):
            widget.installEventFilter(self)

    def now(self) -> Moment:
        """Return the moment that it is."""
        busy = time.thread_time()
        return Moment(time.perf_counter(), busy, self._paint_seconds)

    def watch(self, is_written: Any) -> None:
        """Look out from now on for a frame with what is to be written."""
        self._is_written, self._drawn, self._seen = is_written, False, None

    def wait(self) -> Moment | None:
        """Run the window until the frame is seen; None if there is none."""
        began, written = time.monotonic(), 0

        def look() -> None:
            nonlocal written
            written += bool(self._is_written())
            # an event that changes nothing to see has no frame of its own
            if written > NO_FRAME_TICKS or time.monotonic() > began + PATIENCE:
                self._loop.quit()

        if self._seen is None:
            timer = QTimer()
            timer.timeout.connect(look)
            timer.start(100)
            self._loop.exec()
            timer.stop()
        self._is_written = bool
        return self._seen

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Note when the window begins to paint itself with all in it, or the canvas."""
        del watched
        kinds = (QEvent.Type.UpdateRequest, QEvent.Type.Paint)
        if self._painting is None and event is not None and event.type() in kinds:
            self._painting = time.thread_time()
        return False

    def _on_draw(self, event: Any) -> None:
        del event
        self._drawn = self._drawn or self._is_written()

    def _on_swapped(self) -> None:
        if self._painting is not None:
            self._paint_seconds += time.thread_time() - self._painting
        self._painting = None
        if self._drawn and self._seen is None:
            self._seen = self.now()
            self._loop.quit()


class Field:
    """A window with a segmented field of many nuclei.

    Parameters
    ----------
    viewer : napari.Viewer
    count : int
        How many prompts there are.
    loaded : LoadedModel or None
        Used again, so that only the first field loads it.
    """

    def __init__(
        self, viewer: Viewer, count: int, loaded: LoadedModel | None = None
    ) -> None:
        self.viewer = viewer
        viewer.window.resize(1400, 900)
        _, self.dock = viewer.window.add_plugin_dock_widget(
            "napari-sac", "Segment nuclei"
        )
        self.session = self.dock.session
        choice = self.dock.models.choice()
        self.session.loaded = loaded or LoadedModel(choice, choice.load(_say_nothing))
        model = self.session.loaded.model
        self.diameter = model.spec.nucleus_diameter
        image = build_image(model, count + SPARE)
        self.layer = viewer.add_image(image, rgb=True, name="field")
        whole = build_field(model, self.session.decode_config, count + SPARE)
        # not the middle of the image, where there may be no nucleus
        order = np.argsort(np.abs(whole.prompts.yx - MIDDLE).max(1))
        inside = order[(whole.prompts.yx[order] > self.diameter).all(1)]
        spare, taken = inside[: 2 * SPARE : 2], inside[1 : 2 * SPARE : 2]
        self.spare, self.taken = whole.prompts.yx[spare], whole.prompts.yx[taken]
        self._show(without(whole, whole.prompts.object_id[spare]), image)
        self.screen = Screen(viewer)
        viewer.scene.camera.center = (0, *MIDDLE)
        viewer.scene.camera.zoom = ZOOM
        viewer.layers.selection.active = self.annotation.points
        # else a collection takes longer the more fields there were before
        gc.collect()
        gc.freeze()
        self.rest(500)

    @property
    def annotation(self) -> Any:
        """What the dock has made."""
        return self.session.annotations[0]

    def rest(self, milliseconds: int) -> None:
        """Let the window run."""
        QTest.qWait(milliseconds)

    def place(self, yx: npt.ArrayLike) -> QPoint:
        """Return where the canvas shows a pixel (y, x) of the image."""
        camera = self.viewer.scene.camera
        y, x = np.asarray(yx, float) - np.asarray(camera.center[-2:])
        canvas = self.screen.canvas
        return QPoint(
            round(x * camera.zoom + canvas.width() / 2),
            round(y * camera.zoom + canvas.height() / 2),
        )

    def key(self, key: Qt.Key, modifier: Any = Modifier.NoModifier) -> None:
        """Press a key over the canvas."""
        QTest.keyClick(self.screen.canvas, key, modifier)

    def settle(self) -> None:
        """Wait until nothing is computed any more."""
        while self.session.live.waiting or self.dock.correcting.lane.busy:
            self.rest(5)
        self.rest(150)

    def time_event(self, send: Any) -> Timing | None:
        """Return how long an event takes to be seen; None if it changes no label."""
        labels, state = self.annotation.labels, self.annotation
        before = state.state.labels.copy()
        steps = len(self.session.history.done)

        def is_written() -> bool:
            done = len(self.session.history.done) != steps
            live = self.session.live
            out = live.waiting or self.dock.correcting.lane.busy
            return done and not (out and np.array_equal(before, state.state.labels))

        self.screen.watch(is_written)
        start = self.screen.now()
        send()
        seen = self.screen.wait()
        self.settle()
        if seen is None or np.array_equal(before, labels.data):
            return None
        painted = seen.painted - start.painted
        return Timing(
            screen=1e3 * (seen.clock - start.clock),
            gui=1e3 * (seen.busy - start.busy - painted),
            paint=1e3 * painted,
            later=1e3 * (self.screen.now().busy - seen.busy),
        )

    def _show(self, decoded: DecodedField, image: npt.NDArray[np.uint8]) -> None:
        """Show what is known as if it had been found and segmented here."""
        plane, loaded = self.dock.images.plane(), self.session.loaded
        geometry = plane_geometry(plane.layer)
        points = build_points(decoded.prompts, self.diameter, "prompts", geometry)
        foreground = decoded.embedding.foreground
        found = Found(
            decoded.prompts, self.diameter, loaded, points, image, foreground, {}
        )
        annotation = self.session.show_proposals(plane, found)
        request = SegmentRequest(
            plane,
            annotation.prompts,
            loaded.choice,
            loaded,
            self.session.decode_config,
            self.diameter,
        )
        nuclei = len(decoded.masks)
        segmented = Segmented(
            FreshLabels.after(request.known, decoded.labels.copy(), plane),
            request,
            decoded.masks,
            decoded.embedding,
            image,
            loaded,
            nuclei,
            nuclei,
            {},
        )
        self.dock._show_segmented(annotation, request, segmented)


def without(field: DecodedField, ids: npt.NDArray[np.int64]) -> DecodedField:
    """Return a field without some of its nuclei."""
    keep = ~np.isin(field.prompts.object_id, ids)
    masks = {k: m for k, m in field.masks.items() if k not in set(ids.tolist())}
    labels = np.where(np.isin(field.labels, ids), np.uint32(0), field.labels)
    return replace(
        field, prompts=field.prompts.select(keep), masks=masks, labels=labels
    )


def _say_nothing(stage: str, done: int, total: int) -> None:
    del stage, done, total


def build_image(model: Model, count: int) -> npt.NDArray[np.uint8]:
    """Return the image (H, W, 3) of which ``build_field`` gives what is known."""
    size, diameter = model.spec.architecture.image_size, model.spec.nucleus_diameter
    per_tile = min(count, int((size / diameter) ** 2 / SPACE))
    tile, _ = draw_tile(size, diameter, per_tile)
    side = int(np.ceil(np.sqrt(count / per_tile)))
    return np.tile(tile, (side, side, 1))


def act(field: Field, action: str, number: int) -> Timing | None:
    """Do one action at a nucleus, and time it."""
    canvas = field.screen.canvas
    radius = field.diameter / 2
    here = field.taken[number % len(field.taken)]
    if action == "undo":
        return field.time_event(lambda: field.key(Key.Key_Z, Modifier.ControlModifier))
    if action == "drag":
        return _drag(field, here, np.add(here, (0.3 * radius, 0.4 * radius)))
    modifier = Modifier.NoModifier
    if action == "add":
        here = field.spare[number % len(field.spare)]
    else:
        if action == "shift-click":
            modifier = Modifier.ShiftModifier
        here = np.add(here, (0.2 * radius, 0.7 * radius))
    field.session.gestures.take_up(
        field.annotation, "exclude" if action == "not this" else "add"
    )
    # the mouse comes from elsewhere, with a tool that is there
    QTest.mouseMove(canvas, QPoint(20, 20))
    field.settle()
    place = field.place(here)
    QTest.mouseMove(canvas, place)
    field.rest(REST_MS)
    if modifier == Modifier.ShiftModifier:
        QTest.keyPress(canvas, Key.Key_Shift)
        field.rest(REST_MS)
    timing = field.time_event(lambda: QTest.mouseClick(canvas, LEFT, modifier, place))
    if modifier == Modifier.ShiftModifier:
        QTest.keyRelease(canvas, Key.Key_Shift)
    return timing


def _drag(
    field: Field, start: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> Timing | None:
    """Drag a point; timed from letting go of it."""
    canvas = field.screen.canvas
    field.key(Key.Key_3)
    field.settle()
    QTest.mouseMove(canvas, field.place(start))
    field.rest(REST_MS)
    QTest.mousePress(canvas, LEFT, Modifier.NoModifier, field.place(start))
    for part in (0.3, 0.6, 1.0):
        QTest.mouseMove(canvas, field.place(start + part * (end - start)))
        field.rest(20)
    field.rest(REST_MS)
    release = field.place(end)
    return field.time_event(
        lambda: QTest.mouseRelease(canvas, LEFT, Modifier.NoModifier, release)
    )


def measure(
    field: Field, clicks: int, warm_up: int
) -> tuple[dict[str, list[Timing]], list[Timing]]:
    """Return the timings of each action, and those of the first clicks."""
    first = [act(field, "add", number) for number in range(warm_up)]
    for _ in first:
        act(field, "undo", 0)
    times: dict[str, list[Timing]] = {action: [] for action in ACTIONS}
    for number in range(clicks):
        kinds = len(ACTIONS) - 1
        action = ACTIONS[number % kinds]
        timing = act(field, action, number // kinds)
        back = act(field, "undo", number)
        for name, value in ((action, timing), ("undo", back)):
            if value is not None:
                times[name].append(value)
    return times, [timing for timing in first if timing is not None]


def summarise(timings: list[Timing]) -> dict[str, dict[str, float]]:
    """Return median, 95th percentile and largest of each part, in milliseconds."""
    found = {}
    for part in PARTS:
        values = np.array([getattr(timing, part) for timing in timings])
        found[part] = {
            "median": round(float(np.median(values)), 1),
            "p95": round(float(np.percentile(values, 95)), 1),
            "max": round(float(values.max()), 1),
        }
    return found


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[100, 1000, 2000])
    parser.add_argument("--clicks", type=int, default=24, help="for each number")
    parser.add_argument("--warm-up", type=int, default=3, help="clicks told apart")
    parser.add_argument("--quick", action="store_true", help="12 clicks each")
    parser.add_argument("--json", type=Path)
    parsed = parser.parse_args()
    # before there is a window
    import_torch()
    out = sys.stdout.write
    out("milliseconds, median / 95th percentile / largest\n\n")
    out(
        "| prompts | action | events | to the screen | window's thread | painting |"
        " later |\n"
    )
    out("|---|---|---|---|---|---|---|\n")
    record: dict[str, Any] = {}
    loaded = None
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_SAC_HOME"] = home
        for count in parsed.prompts:
            viewer = Viewer()
            field = Field(viewer, count, loaded)
            loaded = field.session.loaded
            clicks = 12 if parsed.quick else parsed.clicks
            times, first = measure(field, clicks, parsed.warm_up)
            times["all"] = [t for timings in times.values() for t in timings]
            summary = {name: summarise(t) for name, t in times.items() if t}
            for name, parts in summary.items():
                cells = [
                    f"{v['median']:.0f} / {v['p95']:.0f} / {v['max']:.0f}"
                    for v in parts.values()
                ]
                events = len(times[name])
                row = [f"{count:,}", name, str(events), *cells]
                out("| " + " | ".join(row) + " |\n")
            out(f"| {count:,} | first clicks | {len(first)} | ")
            out(", ".join(f"{t.screen:.0f}" for t in first) + " | ")
            out(", ".join(f"{t.gui:.0f}" for t in first) + " | ")
            out(", ".join(f"{t.paint:.0f}" for t in first) + " | ")
            out(", ".join(f"{t.later:.0f}" for t in first) + " |\n")
            sys.stdout.flush()
            record[str(count)] = summary | {"first": [vars(t) for t in first]}
            viewer.close()
    gc.unfreeze()
    if parsed.json:
        parsed.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
