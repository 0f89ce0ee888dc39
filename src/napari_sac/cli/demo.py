"""``napari-sac demo``: the main job on a sample image, in napari's own window.

It presses the dock's buttons and clicks into the image as a person would. Without a
display it starts one of its own, which nobody sees, and leaves a picture of the window.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from napari_sac.cli._probe import ask_apart
from napari_sac.cli._terminal import make_folder
from napari_sac.cli.doctor import installed_version
from napari_sac.core.errors import NapariSacError, OutputError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from napari_sac.cli._options import Subparsers
    from napari_sac.core.types import IntArray
    from napari_sac.viewer.annotation import Annotation
    from napari_sac.widgets.segment_widget import SegmentWidget

DEFAULT_OUTPUT = Path("demo-output")

_PLUGIN, _DOCK, _SAMPLE = "napari-sac", "Segment nuclei", "immunohistochemistry"
_ADAPTER = "ihc"
"""The shipped adapter that is meant for the sample."""

_RESULTS = ("screenshot.png", "labels.tif", "prompts.csv", "demo.sac")
_SUMMARY = "summary.json"
_SUMMARY_FIELDS = {"image", "nuclei", "points", "recomputed_after_the_click", "seconds"}
"""By which a summary is known as a demo's."""
_WINDOW_SIZE = (1400, 900)
_XVFB_SECONDS = 30
_WORK_SECONDS = 1800
WINDOW_PACKAGES = (
    "xvfb xauth libgl1 libegl1 libglx-mesa0 libgl1-mesa-dri libglib2.0-0 "
    "libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 "
    "libxcb-render-util0 libxcb-xinerama0 libxcb-shape0 libxcb-randr0 libdbus-1-3 "
    "libfontconfig1"
)
"""What a window of Qt with OpenGL needs, by Debian's names; the Makefile's list."""
_PACKAGES = ("napari-sac", "napari", "torch", "numpy", "scikit-image", "PyQt6")


def add_parser(subparsers: Subparsers) -> None:
    """Add the command and its flags."""
    parser = subparsers.add_parser(
        "demo",
        help="open napari and segment a sample image",
        description="Open napari with a sample image, find its nuclei, segment them, "
        "add one by a click. Without a display the same happens in a window that "
        "nobody sees, and its picture is left in the output folder.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="leave screenshot.png, labels.tif, prompts.csv, the session demo.sac and "
        f"summary.json here (without a display: {DEFAULT_OUTPUT}, if nothing else is "
        "said)",
    )
    parser.add_argument(
        "--headless", action="store_true", help="do not show the window"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo and return 0.

    Raises
    ------
    NapariSacError
        If there is no way to open a window, or a step fails.
    """
    if not args.headless and _has_display():
        _run_in_window(args.output, stay_open=True)
    else:
        with _virtual_display():
            _run_in_window(args.output or DEFAULT_OUTPUT, stay_open=False)
    return 0


def _has_display() -> bool:
    return sys.platform != "linux" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )


@contextmanager
def _virtual_display() -> Iterator[None]:
    """Run an X server without a screen, and show windows there."""
    if shutil.which("Xvfb") is None:
        raise NapariSacError(
            "There is no display, and Xvfb, which stands in for one, is not installed. "
            "Install it (on Debian and Ubuntu: apt install xvfb), or run the demo on a "
            "desktop without --headless."
        )
    _say("Starting a display that nobody sees (Xvfb).")
    screen = "{}x{}x24".format(*_WINDOW_SIZE)
    # a pipe ends with the program that holds it, however that ends: then it goes too
    server = subprocess.Popen(
        [
            "sh",
            "-c",
            'Xvfb "$@" & exec >/dev/null; cat; kill $!; wait',
            "sh",
            "-displayfd",
            "1",
            "-screen",
            "0",
            screen,
            "-nolisten",
            "tcp",
        ],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # of its own: Ctrl-C would end it before napari has closed its windows, and a
        # terminal that is closed would end who waits for the pipe, but not Xvfb
        start_new_session=True,
    )
    # closes its pipe, and waits for it
    with server:
        pipe = cast("IO[bytes]", server.stdout)
        os.environ["DISPLAY"] = f":{_read_number(pipe)}"
        os.environ["QT_QPA_PLATFORM"] = "xcb"
        yield


def _read_number(pipe: IO[bytes]) -> int:
    """Return the number that Xvfb writes once it is ready."""
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], _XVFB_SECONDS)
        part = pipe.read(16) if ready else b""
        if not part:
            raise NapariSacError(
                "Xvfb did not start. Run it in a terminal to see why: Xvfb -displayfd 1"
            )
        text += part
    return int(text)


def _prepare(folder: Path) -> None:
    """Make the folder for the results, before anything is computed.

    Raises
    ------
    OutputError
        If it cannot be made, or has files of these names that no demo has left.
    """
    make_folder(folder)
    names = (*_RESULTS, _SUMMARY)
    # pathlib raises where one may not look
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not _is_of_a_demo(folder / _SUMMARY):
        raise OutputError(
            f"{folder} has {there[0]} already, and no {_SUMMARY} of a demo beside it, "
            "so it may be somebody's work. Nothing was written; choose another "
            "--output."
        )


def _is_of_a_demo(summary: Path) -> bool:
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= _SUMMARY_FIELDS


def _check_window() -> None:
    """Raise where Qt lacks a library of the system; it would end the whole program."""
    if sys.platform != "linux":
        return
    failure = ask_apart("window").get("FAILED")
    if failure is not None:
        raise NapariSacError(
            f"No window can be opened ({failure}). If Qt is missing: pip install "
            '"napari-sac[all]". If libraries of the system are, on Debian and Ubuntu: '
            f"apt install {WINDOW_PACKAGES}"
        )


def _run_in_window(output: Path | None, *, stay_open: bool) -> None:
    if output is not None:
        _prepare(output)
    _check_window()
    try:
        import napari
        from napari.qt import get_qapp
    except ImportError as error:
        raise NapariSacError(
            f"napari cannot open a window ({error}). Install it with one of the Qt "
            'bindings: pip install "napari-sac[all]"'
        ) from error
    get_qapp()
    _say("Opening napari with stained tissue, a sample of scikit-image.")
    viewer = napari.Viewer(title="napari: Segment Any Cell", show=True)
    viewer.window.resize(*_WINDOW_SIZE)
    viewer.open_sample(_PLUGIN, _SAMPLE)
    _, dock = viewer.window.add_plugin_dock_widget(_PLUGIN, _DOCK)
    try:
        demo = _Demo(viewer, dock)
        demo.choose()
        demo.find()
        demo.segment()
        demo.correct()
        if output is not None:
            demo.write(output)
        if stay_open:
            _say("napari stays open; the demo ends when you close its window.")
            napari.run()
    finally:
        if not stay_open:
            viewer.close()


class _Demo:
    """The steps, each by the buttons and clicks that a person would use."""

    def __init__(self, viewer: Any, dock: SegmentWidget) -> None:
        self._viewer = viewer
        self._dock = dock
        self._seconds: dict[str, float] = {}
        self._recomputed = 0
        self._failures: list[str] = []
        dock.worker.failed.connect(lambda sentence, _: self._failures.append(sentence))
        self._settle()

    def choose(self) -> None:
        """Choose the adapter that is meant for the image, as the dock suggests."""
        from napari_sac.core.models.adapter import find_adapter

        title = find_adapter(_ADAPTER).shown_title
        box = self._dock.models.adapter
        box.setCurrentText(title)
        if box.currentText() != title:
            raise NapariSacError(
                f"The dock does not list the adapter {title}. Run napari-sac doctor, "
                "and report what it shows."
            )
        _say(f"Choosing the adapter {title}, as the dock suggests.")

    def find(self) -> None:
        _say(f"The dock looks for nuclei in the layer {self._image_name()}.")
        _say("Pressing Find nuclei; the first time, this loads the model.")
        self._press(self._dock.find_button)
        annotation = self._annotation()
        self._seconds |= annotation.seconds
        _say(
            f"  {len(annotation.prompts)} nuclei, about {annotation.diameter:.0f} "
            f"pixels across, in {sum(annotation.seconds.values()):.1f} s on "
            f"{self._device()['title']}."
        )

    def segment(self) -> None:
        _say("Pressing Segment.")
        self._press(self._dock.segment_button)
        for stage in ("embedding", "decoding", "instances"):
            self._seconds[stage] = self._annotation().seconds.get(stage, 0.0)
        _say(f"  {self._dock.status.message.text()}")

    def correct(self) -> None:
        """Add a nucleus that is not shown, by the mouse; its mask appears at once."""
        import numpy as np

        annotation = self._annotation()
        before = len(annotation.prompts)
        y, x = _place_to_add(annotation)
        _say(f"Adding a nucleus with a click at ({y:.0f}, {x:.0f}).")
        layer: Any = annotation.points
        self._viewer.layers.selection.active = layer
        layer.mode = "add"
        masks = dict(annotation.masks)
        start = time.perf_counter()
        self._click(layer.data_to_world((y, x)))
        added = annotation.prompts.yx[before:]
        if len(added) != 1 or np.abs(added[0] - (y, x)).max() > 2:
            raise NapariSacError(
                f"The click at ({y:.0f}, {x:.0f}) did not add a point there. "
                "Run napari-sac doctor, and report what it shows."
            )
        live = self._dock.session.live
        _process_events_while(lambda: live.waiting, _WORK_SECONDS)
        self._seconds["click"] = time.perf_counter() - start
        layer.mode = "pan_zoom"
        self._settle()
        self._check_failures()
        self._recomputed = sum(
            masks.get(k) is not mask for k, mask in annotation.masks.items()
        )
        _say(
            f"  Its mask was there after {1000 * self._seconds['click']:.0f} ms; "
            f"{self._recomputed} of {len(annotation.masks)} nuclei were decoded."
        )

    def write(self, folder: Path) -> None:
        """Write the picture of the window, the labels, the points and the summary."""
        from PIL import Image

        from napari_sac.core.io import atomic_path, write_labels, write_prompts

        annotation = self._annotation()
        labels = _pixels(annotation)
        self._settle()
        picture = self._viewer.screenshot(canvas_only=False, flash=False)
        # first: if this is killed, the next demo knows what it may replace
        with atomic_path(folder / _SUMMARY) as path:
            text = json.dumps(self._summary(annotation), indent=2)
            path.write_text(text + "\n", encoding="utf-8")
        with atomic_path(folder / "screenshot.png") as path:
            Image.fromarray(picture).save(path, format="PNG")
        write_labels(folder / "labels.tif", labels)
        write_prompts(folder / "prompts.csv", annotation.prompts)
        self._dock.session.save_as(folder / "demo.sac")
        _say(f"Written to {folder}: {', '.join((*_RESULTS, _SUMMARY))}.")

    def _summary(self, annotation: Annotation) -> dict[str, Any]:
        import numpy as np

        loaded = self._dock.session.loaded
        choice = None if loaded is None else loaded.choice
        return {
            "image": self._image_name(),
            "nuclei": int(np.count_nonzero(np.unique(_pixels(annotation)))),
            "points": len(annotation.prompts),
            "diameter_px": round(annotation.diameter, 2),
            "recomputed_after_the_click": self._recomputed,
            "seconds": {k: round(v, 3) for k, v in self._seconds.items()},
            "device": self._device(),
            "model": choice and choice.name,
            "adapter": choice and choice.adapter and choice.adapter.name,
            "versions": {"python": platform.python_version()}
            | {name: installed_version(name) for name in _PACKAGES},
        }

    def _image_name(self) -> str:
        layer = self._dock.images.layer()
        return "" if layer is None else str(layer.name)

    def _device(self) -> dict[str, str]:
        loaded = self._dock.session.loaded
        if loaded is None:
            return {"name": "", "title": "no device", "reason": ""}
        device = loaded.model.device
        return {"name": device.name, "title": device.title, "reason": device.reason}

    def _annotation(self) -> Annotation:
        if not self._dock.session.annotations:
            raise NapariSacError("The window was closed before the demo had finished.")
        return self._dock.session.annotations[-1]

    def _press(self, button: Any) -> None:
        _click_widget(button)
        worker = self._dock.worker
        _process_events_while(lambda: worker.busy, _WORK_SECONDS)
        self._check_failures()

    def _check_failures(self) -> None:
        if self._failures:
            raise NapariSacError(self._failures[0])

    def _click(self, world: tuple[float, ...]) -> None:
        """Click with the mouse where the canvas shows a place of the world."""
        from qtpy.QtOpenGLWidgets import QOpenGLWidget

        window: Any = self._dock.window()
        canvas = window.findChild(QOpenGLWidget)
        camera = self._viewer.scene.camera
        y, x = (
            (place - centre) * camera.zoom + size / 2
            for place, centre, size in zip(
                world[-2:],
                camera.center[-2:],
                (canvas.height(), canvas.width()),
                strict=True,
            )
        )
        _click_widget(canvas, (round(x), round(y)))

    def _settle(self) -> None:
        """Let the window draw itself."""
        end = time.monotonic() + 0.5
        _process_events_while(lambda: time.monotonic() < end, _WORK_SECONDS)


def _click_widget(widget: Any, xy: tuple[int, int] | None = None) -> None:
    """Click with the left button, in the middle if nothing else is said."""
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    click: Any = QTest.mouseClick
    place = widget.rect().center() if xy is None else QPoint(*xy)
    modifier = Qt.KeyboardModifier.NoModifier
    click(widget, Qt.MouseButton.LeftButton, modifier, place)


def _process_events_while(condition: Callable[[], bool], seconds: float) -> None:
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while condition():
        if time.monotonic() > end:
            raise NapariSacError(
                f"A step did not end within {seconds / 60:.0f} minutes."
            )
        QApplication.processEvents()
        time.sleep(0.005)


def _place_to_add(annotation: Annotation) -> npt.NDArray[Any]:
    """Return the place (y, x) of a nucleus that most likely is one, and has no point.

    It is the best of the proposals that the minimum score hides, away from the points
    there are; in the sample there are some.
    """
    import numpy as np
    from scipy.spatial import KDTree

    shown, hidden = annotation.prompts, annotation.hidden
    distance, _ = KDTree(shown.yx).query(hidden.yx)
    alone = np.flatnonzero(distance > annotation.diameter)
    if not len(alone):
        raise NapariSacError(
            "Every nucleus of the sample has a point already, so none can be added. "
            "Run napari-sac doctor, and report what it shows."
        )
    best: npt.NDArray[Any] = hidden.yx[alone[hidden.score[alone].argmax()]]
    return best


def _pixels(annotation: Annotation) -> IntArray:
    """Return the labels (H, W) as the layer has them."""
    if annotation.labels is None:
        raise NapariSacError("The labels were deleted before the demo had finished.")
    pixels: IntArray = annotation.labels.data
    return pixels


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
