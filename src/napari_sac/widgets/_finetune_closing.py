"""What happens to a training when the window is closed: the user is asked."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton, QWidget

from napari_sac.core.errors import NapariSacError
from napari_sac.core.training.events import Wish
from napari_sac.core.training.run_folder import ask_for
from napari_sac.widgets._docking import (
    is_closed,
    is_hidden_by,
    no_window,
    outermost,
    watch_window,
)
from napari_sac.widgets._finetune_wording import (
    CLOSING,
    CLOSING_PAUSED,
    CLOSING_PAUSED_WAYS,
    CLOSING_WAYS,
    GOES_ON,
    STAYS_PAUSED,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sac.widgets._docking import FindWindow
    from napari_sac.widgets._finetune_watch import RunWatch


class Closing(Enum):
    """What to do with a training when the window is closed."""

    KEEP = "keep it as it is"
    STOP = "stop and keep the best"
    CANCEL = "cancel the training"
    STAY = "do not close"


def build_question(
    window: QWidget, name: str, wish: Wish
) -> tuple[QMessageBox, dict[Closing, QPushButton | None]]:
    """Return the question what to do with a training, and its buttons."""
    paused = wish is Wish.PAUSE
    box = QMessageBox(window)
    box.setIcon(QMessageBox.Icon.Question)
    box.setWindowTitle("Segment Any Cell")
    box.setText((CLOSING_PAUSED if paused else CLOSING).format(name))
    box.setInformativeText(CLOSING_PAUSED_WAYS if paused else CLOSING_WAYS)
    keep = "Keep it paused" if paused else "Keep training"
    role = QMessageBox.ButtonRole
    buttons = {
        Closing.KEEP: box.addButton(keep, role.AcceptRole),
        Closing.STOP: box.addButton("Stop, keep the best", role.AcceptRole),
        Closing.CANCEL: box.addButton("Cancel the training", role.DestructiveRole),
        Closing.STAY: box.addButton("Do not close", role.RejectRole),
    }
    box.setDefaultButton(buttons[Closing.KEEP])
    box.setEscapeButton(buttons[Closing.STAY])
    return box, buttons


def ask_closing(window: QWidget, name: str, wish: Wish) -> Closing:
    """Ask what to do with the training of an adapter, and wait for the answer."""
    box, buttons = build_question(window, name, wish)
    box.exec()
    pressed = box.clickedButton()
    found = [answer for answer, button in buttons.items() if button is pressed]
    box.deleteLater()
    return found[0] if found else Closing.STAY


class ClosingGuard(QObject):
    """Asks when the window of a dock is closed while its run is going.

    Parameters
    ----------
    dock : QWidget
    watch : RunWatch
    ask : callable
        Given the window, the name of the adapter and what is wished of its run.
    """

    def __init__(
        self,
        dock: QWidget,
        watch: RunWatch,
        ask: Callable[[QWidget, str, Wish], Closing] = ask_closing,
    ) -> None:
        super().__init__(dock)
        self.ask = ask
        self._dock = dock
        self._watch = watch
        self._window: FindWindow = no_window
        self._wishes: dict[Path, Wish] = {}
        app = QApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self._tell_runs)

    def watch_window(self) -> None:
        """Guard the window that the dock is in now."""
        if outermost(self._dock) is not self._dock:
            self._window = watch_window(self, self._dock, self._window)

    def tell_what_goes_on(self) -> None:
        """Say that a run goes on while its dock is closed, unless the window is too."""
        folder = self._watch.folder
        if folder is not None and self._watch.is_going and not is_closed(self._window):
            paused = self._watch.wish is Wish.PAUSE
            show_info((STAYS_PAUSED if paused else GOES_ON).format(folder.name))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask before the window closes."""
        closing = event is not None and event.type() == QEvent.Type.Close
        if closing and event is not None and not self._may_close():
            event.ignore()
            return True
        if is_hidden_by(event):
            _tell(self._wishes)
        return super().eventFilter(watched, event)

    def _may_close(self) -> bool:
        # of a closing before, which napari's own question may have stopped
        self._wishes = {}
        folder, window = self._watch.folder, self._window()
        if folder is None or window is None or not self._watch.is_going:
            return True
        answer = self.ask(window, folder.name, self._watch.wish)
        if answer is Closing.STAY:
            return False
        wishes = {Closing.STOP: Wish.STOP, Closing.CANCEL: Wish.CANCEL}
        self._wishes = {folder: wishes[answer]} if answer in wishes else {}
        # napari may ask whether to close too, and stay open: so they are told when the
        # window hides, or, where it never was shown, when it is gone
        QTimer.singleShot(0, partial(_tell_if_gone, self._window, self._wishes))
        return True

    def _tell_runs(self) -> None:
        _tell(self._wishes)


def _tell_if_gone(find_window: FindWindow, wishes: dict[Path, Wish]) -> None:
    if is_closed(find_window):
        _tell(wishes)


def _tell(wishes: dict[Path, Wish]) -> None:
    """Tell runs what is wished; each once."""
    while wishes:
        folder, wish = wishes.popitem()
        with suppress(NapariSacError):
            ask_for(folder, wish)
