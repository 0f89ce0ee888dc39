"""Questions that may crash: asked in a process of their own.

``python -m napari_sac.cli._probe device|opengl|window`` prints the answer as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

_SECONDS = 120


def ask_apart(question: str) -> dict[str, str]:
    """Return the answer of a process of its own, or under ``FAILED`` how it failed."""
    command = [sys.executable, "-m", "napari_sac.cli._probe", question]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            # of a driver or a loader, in whatever letters it has
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"FAILED": str(error)}
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        return {"FAILED": f"{last[0]} (exit status {done.returncode})"}
    return {str(name): str(value) for name, value in answer.items()}


def ask_device() -> dict[str, str]:
    """Return the device that ``auto`` takes, and torch's own version."""
    from napari_sac.core.device import select_device

    device = dataclasses.asdict(select_device())
    memory = f"{device.pop('memory_bytes') / 2**30:.1f} GB free"
    return {"memory": memory} | {name: str(value) for name, value in device.items()}


def ask_opengl() -> dict[str, str]:
    """Return who draws, from a context that Qt opens without a window."""
    import qtpy
    from OpenGL import GL
    from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext

    # kept in a name: Qt takes the application down with its last reference
    application = QGuiApplication([])
    surface = QOffscreenSurface()
    surface.create()
    context = QOpenGLContext()
    if not context.create() or not context.makeCurrent(surface):
        raise RuntimeError("no OpenGL context can be made")
    names = {
        "vendor": GL.GL_VENDOR,
        "renderer": GL.GL_RENDERER,
        "version": GL.GL_VERSION,
    }
    answer = {name: GL.glGetString(what).decode() for name, what in names.items()}
    platform = application.platformName()
    return {"qt": f"{qtpy.API_NAME} {qtpy.QT_VERSION}, {platform}"} | answer


def ask_window() -> dict[str, str]:
    """Return by which platform of Qt a window is opened; without its libraries, none.

    Qt ends the program if it cannot.
    """
    from OpenGL import GL
    from qtpy.QtGui import QGuiApplication

    application = QGuiApplication([])
    return {"platform": application.platformName(), "opengl": GL.__name__}


if __name__ == "__main__":
    questions = {"device": ask_device, "opengl": ask_opengl, "window": ask_window}
    ask = questions[sys.argv[1]]
    sys.stdout.write(json.dumps(ask()))
