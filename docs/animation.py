"""Make the animated picture of correcting, by doing it with mouse and keys.

::

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/animation.py

The mouse moves, clicks and presses keys in a real window; a pointer and a line of words
are drawn over the pictures, because a picture of a window shows neither. A frame stays
as long as nothing changes, so the file is small.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import napari
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont
from qtpy import QtTest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QScrollArea
from screenshots import MISSED_YX, rest, wait

if TYPE_CHECKING:
    from napari.layers import Layer
    from qtpy.QtWidgets import QWidget

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget

OUTPUT = Path(__file__).parent / "_static" / "correct.gif"
MAX_BYTES = 3_000_000

WINDOW = (1180, 760)
WIDTH = 860
"""Of the picture, in pixels."""
COLOURS = 96
CLOSE_ZOOM = 8.0
STEP_SECONDS = 0.12
"""Between two pictures while something moves."""
CAPTION_HEIGHT = 28

# PyQt's annotations give its static functions a self
QTest: Any = QtTest.QTest
Key, Modifier = Qt.Key, Qt.KeyboardModifier
LEFT = Qt.MouseButton.LeftButton


class Film:
    """Frames of the window, with the pointer and what is being done.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._frames: list[Image.Image] = []
        self._seconds: list[float] = []
        self._font = ImageFont.load_default(15)
        self.caption = ""
        self.pointer = (0, 0)
        self.pressed = False

    @property
    def seconds(self) -> float:
        """How long the film is."""
        return sum(self._seconds)

    def shoot(self, seconds: float = STEP_SECONDS) -> None:
        """Add a picture that stays for a while."""
        rest(0.05)
        frame = self._picture()
        if (
            self._frames
            and not ImageChops.difference(frame, self._frames[-1]).getbbox()
        ):
            self._seconds[-1] += seconds
            return
        self._frames.append(frame)
        self._seconds.append(seconds)

    def write(self, path: Path, colours: int = COLOURS) -> None:
        """Write the film as a GIF that repeats."""
        # one palette for all pictures: then only what changes is stored
        palette = self._sample().quantize(
            colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        frames = [
            f.quantize(palette=palette, dither=Image.Dither.NONE) for f in self._frames
        ]
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=[round(1000 * s) for s in self._seconds],
            loop=0,
            optimize=True,
        )

    def _sample(self) -> Image.Image:
        """Return a picture with the colours of the whole film."""
        some = self._frames[:: max(1, len(self._frames) // 8)]
        width, height = some[0].width // 2, some[0].height // 2
        sample = Image.new("RGB", (width, height * len(some)))
        for i, frame in enumerate(some):
            sample.paste(frame.resize((width, height)), (0, i * height))
        return sample

    def _picture(self) -> Image.Image:
        shot = self._viewer.screenshot(canvas_only=False, flash=False)
        window = Image.fromarray(np.asarray(shot)[..., :3])
        self._draw_pointer(window)
        height = round(window.height * WIDTH / window.width)
        small = window.resize((WIDTH, height), Image.Resampling.LANCZOS)
        picture = Image.new("RGB", (WIDTH, height + CAPTION_HEIGHT), "black")
        picture.paste(small, (0, CAPTION_HEIGHT))
        draw = ImageDraw.Draw(picture)
        draw.text((10, 5), self.caption, fill="white", font=self._font)
        return picture

    def _draw_pointer(self, window: Image.Image) -> None:
        x, y = self.pointer
        draw = ImageDraw.Draw(window)
        if self.pressed:
            box = (x - 13, y - 13, x + 13, y + 13)
            draw.ellipse(box, outline="#F0E442", width=3)
        arrow = ((0, 0), (0, 19), (5, 15), (9, 23), (12, 21), (8, 14), (14, 14))
        draw.polygon([(x + a, y + b) for a, b in arrow], fill="white", outline="black")


class Hand:
    """Moves the pointer to places, clicks there, and presses keys.

    Parameters
    ----------
    film : Film
    viewer : napari.Viewer
    dock : SegmentWidget
    """

    def __init__(self, film: Film, viewer: napari.Viewer, dock: SegmentWidget) -> None:
        from qtpy.QtOpenGLWidgets import QOpenGLWidget

        self._film = film
        self._viewer = viewer
        self._dock = dock
        self._window = cast("QWidget", dock.window())
        self._canvas: Any = self._window.findChild(QOpenGLWidget)

    def say(self, words: str, seconds: float = 3.2) -> None:
        """Show what comes next, long enough to be read."""
        self._film.caption = words
        self._film.shoot(seconds)

    def click(
        self,
        layer: Layer,
        yx: Any,
        modifier: Qt.KeyboardModifier = Modifier.NoModifier,
    ) -> None:
        """Click at a place (y, x) of a layer and wait for the masks."""
        place = self._place(layer, yx)
        self._glide(self._canvas, place)
        self._press(True)
        QTest.mouseClick(self._canvas, LEFT, modifier, place)
        self._settle()
        self._press(False)

    def drag(self, layer: Layer, start: Any, end: Any) -> None:
        """Drag from one place of a layer to another."""
        first, last = self._place(layer, start), self._place(layer, end)
        self._glide(self._canvas, first)
        QTest.mousePress(self._canvas, LEFT, Modifier.NoModifier, first)
        self._press(True)
        for part in np.linspace(0.2, 1, 5):
            place = first + (last - first) * float(part)
            QTest.mouseMove(self._canvas, place)
            self._point(self._canvas, place)
            self._film.shoot()
        QTest.mouseRelease(self._canvas, LEFT, Modifier.NoModifier, last)
        self._settle()
        self._press(False)

    def push(self, button: QWidget) -> None:
        """Push a button of the dock and wait for what it starts."""
        column = self._dock.findChild(QScrollArea)
        if column is not None:
            column.ensureWidgetVisible(button, 0, 130)
            rest(0.1)
        middle = button.rect().center()
        self._glide(button, middle)
        self._press(True)
        QTest.mouseClick(button, LEFT, Modifier.NoModifier, middle)
        self._settle()
        self._press(False)

    def key(
        self, key: Qt.Key, modifier: Qt.KeyboardModifier = Modifier.NoModifier
    ) -> None:
        """Press a key over the canvas and wait for the masks."""
        QTest.keyClick(self._canvas, key, modifier)
        self._settle()
        self._film.shoot(0.5)

    def _place(self, layer: Layer, yx: Any) -> QPoint:
        camera: Any = self._viewer.scene.camera
        world = layer.data_to_world(np.asarray(yx, float))[-2:]
        size = (self._canvas.height(), self._canvas.width())
        y, x = (
            (w - c) * camera.zoom + n / 2
            for w, c, n in zip(world, camera.center[-2:], size, strict=True)
        )
        return QPoint(round(x), round(y))

    def _glide(self, widget: QWidget, place: QPoint) -> None:
        """Move the pointer there, in steps that the eye can follow."""
        there = widget.mapTo(self._window, place)
        start = np.array(self._film.pointer, float)
        end = np.array((there.x(), there.y()), float)
        steps = max(2, min(6, round(float(np.linalg.norm(end - start)) / 80)))
        for part in np.linspace(0, 1, steps + 1)[1:]:
            x, y = start + (end - start) * part
            self._film.pointer = (round(x), round(y))
            if widget is self._canvas:
                at = widget.mapFrom(self._window, QPoint(round(x), round(y)))
                QTest.mouseMove(widget, at)
            self._film.shoot()

    def _point(self, widget: QWidget, place: QPoint) -> None:
        there = widget.mapTo(self._window, place)
        self._film.pointer = (there.x(), there.y())

    def _press(self, pressed: bool) -> None:
        self._film.pressed = pressed
        self._film.shoot(0.25)

    def _settle(self) -> None:
        dock = self._dock
        wait(lambda: not dock.worker.busy)
        lane, queue = dock.correcting.lane, dock.session.live
        wait(lambda: not lane.busy and not queue.waiting)
        rest(0.1)


def act(hand: Hand, viewer: napari.Viewer, dock: SegmentWidget) -> None:
    """Do everything that the film shows."""
    hand.say("An image is open. Find nuclei ...", 2)
    hand.push(dock.find_button)
    hand.say("... and segment them.", 2)
    hand.push(dock.segment_button)
    annotation = dock.session.annotations[-1]
    points: Any = annotation.points
    come_closer(viewer, points)
    hand.say("Click: a nucleus that was missed. Its mask comes at once.")
    hand.key(Key.Key_2)
    hand.click(points, MISSED_YX)
    hand.say("Shift-click: not here.", 2.8)
    hand.click(points, np.add(MISSED_YX, (0, 7)), Modifier.ShiftModifier)
    hand.say("Ctrl-Z takes back anything, in one order.", 2.8)
    hand.key(Key.Key_Z, Modifier.ControlModifier)
    hand.say("3, then drag: move a point.", 2.8)
    hand.key(Key.Key_3)
    row = nearest(annotation, np.add(MISSED_YX, (25, 0)))
    start = annotation.prompts.yx[row].copy()
    hand.drag(points, start, np.add(start, (3, 4)))
    hand.say("Q: there is no nucleus.", 2.8)
    hand.click(points, annotation.prompts.yx[nearest(annotation, MISSED_YX, skip=1)])
    hand.key(Key.Key_Q)
    hand.say("Review: the most doubtful nuclei come first, and it says why.")
    hand.push(dock.review.next)
    hand.say("D: right, and on to the next.", 2.8)
    for _ in range(3):
        hand.key(Key.Key_D)
    hand.say("Q: wrong. J: the next.", 2.8)
    hand.key(Key.Key_Q)
    hand.key(Key.Key_J)
    hand.say("Where points do not get you there: paint with napari's brush.")
    come_closer(viewer, points)
    paint(hand, viewer, annotation)
    hand.say("Undo by name, as far back as you like.", 2.8)
    for _ in range(4):
        hand.push(dock.correct.undo)
    hand.say("Every step is kept at once. Nothing is lost.", 3)


def paint(hand: Hand, viewer: napari.Viewer, annotation: Annotation) -> None:
    """Draw a nucleus by hand."""
    labels: Any = annotation.labels
    viewer.layers.selection.active = labels
    labels.brush_size = 5
    hand.key(Key.Key_M)
    hand.key(Key.Key_P)
    hand.drag(labels, np.add(MISSED_YX, (12, -22)), np.add(MISSED_YX, (18, -14)))
    viewer.layers.selection.active = annotation.points


def come_closer(viewer: napari.Viewer, layer: Layer) -> None:
    """Show the surroundings of the missed nucleus, enlarged."""
    viewer.layers.selection.active = layer
    camera: Any = viewer.scene.camera
    camera.center = tuple(layer.data_to_world(MISSED_YX))[-2:]
    camera.zoom = CLOSE_ZOOM
    rest(0.3)


def nearest(annotation: Annotation, yx: Any, skip: int = 0) -> int:
    """Return the row of the point nearest to a place, but for the nearest ones."""
    distance = np.linalg.norm(annotation.prompts.yx - np.asarray(yx), axis=1)
    return int(np.argsort(distance)[skip])


def main() -> int:
    """Act, and write the film."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    output: Path = parser.parse_args().output
    started = time.monotonic()
    # not the sessions of the person who makes it
    os.environ["NAPARI_SAC_HOME"] = tempfile.mkdtemp()
    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW)
    viewer.open_sample("napari-sac", "immunohistochemistry")
    _, dock = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    dock.models.adapter.setCurrentText("Brown tissue (DAB)")
    rest(1)
    film = Film(viewer)
    act(Hand(film, viewer, dock), viewer, dock)
    for colours in (COLOURS, 64, 48, 32):
        film.write(output, colours)
        if output.stat().st_size < MAX_BYTES:
            break
    QApplication.processEvents()
    viewer.close()
    sys.stdout.write(
        f"{output.name}: {film.seconds:.0f} s, {output.stat().st_size / 1e6:.1f} MB, "
        f"made in {time.monotonic() - started:.0f} s\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
