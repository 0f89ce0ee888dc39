"""Take the pictures of the documentation and of the README, by doing what they say.

::

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/screenshots.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget

FOLDER = Path(__file__).parent / "_static"
MISSED_YX = (267.0, 67.0)
"""A place in the sample image where a nucleus is added."""


def wait(done: Callable[[], bool], seconds: float = 300) -> None:
    """Let the window live until something is the case.

    Raises
    ------
    TimeoutError
        If that takes too long.
    """
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise TimeoutError("the window did not get ready")
        QApplication.processEvents()
        time.sleep(0.02)


def rest(seconds: float) -> None:
    """Let the window live for a while, so that it is drawn."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def take(viewer: napari.Viewer, name: str) -> None:
    """Save a picture of the whole window."""
    rest(1.5)
    picture = viewer.screenshot(canvas_only=False, flash=False)
    colours = Image.fromarray(picture[..., :3]).quantize(
        256, method=Image.Quantize.FASTOCTREE
    )
    colours.save(FOLDER / f"{name}.png", optimize=True)
    sys.stdout.write(f"{name}.png\n")


def correct(annotation: Annotation, widget: SegmentWidget) -> None:
    """Add a nucleus as napari's tool does, and reject one."""
    points = annotation.points
    if points is None:
        raise RuntimeError("there is no points layer")
    points.add(np.array([MISSED_YX]))
    widget.session.reject(annotation, np.array([0]))


def review(widget: SegmentWidget) -> None:
    """Accept a few nuclei by the buttons, and stop at one."""
    widget.review.next.click()
    for _ in range(5):
        widget.review.accept.click()
    widget.correct.keys_fold.collapse(animate=False)


def settle(widget: SegmentWidget) -> None:
    """Wait until all masks are drawn."""
    lane, queue = widget.correcting.lane, widget.session.live
    wait(lambda: not widget.worker.busy)
    wait(lambda: not lane.busy and not queue.waiting)


def main() -> int:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    viewer.open_sample("napari-sac", "immunohistochemistry")
    _, widget = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    take(viewer, "tutorial-1-open")
    widget.find_button.click()
    wait(lambda: not widget.worker.busy)
    take(viewer, "tutorial-2-found")
    widget.segment_button.click()
    wait(lambda: not widget.worker.busy)
    take(viewer, "tutorial-3-segmented")
    correct(widget.session.annotations[-1], widget)
    settle(widget)
    take(viewer, "main")
    review(widget)
    viewer.scene.camera.zoom *= 4
    take(viewer, "review")
    viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
