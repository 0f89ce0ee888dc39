"""Take the pictures of the documentation and of the README, by doing what they say.

::

    xvfb-run -a -s "-screen 0 1400x900x24" python docs/screenshots.py [NAME...]

Without names all pictures are taken; else those whose names begin so: ``finetune``.
"""

from __future__ import annotations

import os
import sys
import tempfile
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
    from napari_sac.widgets.finetune_widget import FinetuneWidget
    from napari_sac.widgets.segment_widget import SegmentWidget

FOLDER = Path(__file__).parent / "_static"
MISSED_YX = (358.0, 188.0)
"""A place in the sample image where a nucleus is added."""
REJECTED = 40
"""Doubtful nuclei of the review queue that are rejected."""


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
    """Save a picture of the whole window, if it is wanted."""
    if sys.argv[1:] and not name.startswith(tuple(sys.argv[1:])):
        return
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


def decide(annotation: Annotation, widget: SegmentWidget) -> None:
    """Reject the next nuclei of the queue; say that all of the image was reviewed."""
    session = widget.session
    for _ in range(REJECTED):
        current = annotation.prompts.object_id == session.review.current
        session.reject(annotation, np.flatnonzero(current))
        widget.review.next.click()
    settle(widget)
    height, width = annotation.state.labels.shape
    corners = [(0, 0), (0, width), (height, width), (height, 0)]
    session.set_reviewed(annotation, (np.array(corners, float) - 0.5,))
    session.regions.show_reviewed(annotation)


def is_half_way(dock: FinetuneWidget) -> bool:
    """Return whether half of the training is done."""
    status = dock.watch.status
    return status is not None and 2 * status.step >= status.steps > 0


def fine_tune(viewer: napari.Viewer) -> None:
    """Learn from what was decided, and take a picture of each state of the dock."""
    dock: FinetuneWidget
    _, dock = viewer.window.add_plugin_dock_widget(
        "napari-sac", "Fine-tune", tabify=True
    )
    dock.train.quick.setChecked(True)
    dock.adapter.tissue.setText("stained tissue")
    rest(1)
    viewer.reset_view()
    wait(dock.train.start.isEnabled)
    take(viewer, "finetune-1-choose")
    dock.train.start.click()
    wait(lambda: dock.watch.is_going)
    wait(lambda: dock.watch.folder is None or is_half_way(dock), 900)
    take(viewer, "finetune-2-learns")
    wait(lambda: not dock.result.isHidden(), 900)
    take(viewer, "finetune-3-verdict")


def main() -> int:
    """Take all pictures."""
    FOLDER.mkdir(exist_ok=True)
    # neither adapters nor sessions of the person who takes them
    os.environ["NAPARI_SAC_HOME"] = tempfile.mkdtemp()
    viewer = napari.Viewer()
    viewer.window.resize(1400, 900)
    viewer.open_sample("napari-sac", "immunohistochemistry")
    _, widget = viewer.window.add_plugin_dock_widget("napari-sac", "Segment nuclei")
    widget.models.adapter.setCurrentText("Brown tissue (DAB)")
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
    take(viewer, "review")
    decide(widget.session.annotations[-1], widget)
    fine_tune(viewer)
    viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
