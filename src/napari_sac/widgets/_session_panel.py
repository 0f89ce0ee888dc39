"""Where the work is kept, how it gets out, and what was not closed the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QVBoxLayout,
    QWidget,
)

from napari_sac.widgets._panel import WARNING_STYLE, narrow_button, note
from napari_sac.widgets._wording import DISCARD_QUESTION

if TYPE_CHECKING:
    from collections.abc import Iterable


class SessionPanel(QWidget):
    """Save, open, import, export; and what stands in the way.

    Parameters
    ----------
    imports, exports : iterable of (str, str)
        Name and title of what the menus offer.

    Attributes
    ----------
    save_requested, save_as_requested, open_requested : Signal
    import_requested, export_requested : Signal(str)
        Name of what was chosen.
    """

    save_requested = Signal()
    save_as_requested = Signal()
    open_requested = Signal()
    import_requested = Signal(str)
    export_requested = Signal(str)

    def __init__(
        self, imports: Iterable[tuple[str, str]], exports: Iterable[tuple[str, str]]
    ) -> None:
        super().__init__()
        self.place = note()
        self.notice = note()
        self.notice.setStyleSheet(WARNING_STYLE)
        self.notice.hide()
        self.open = narrow_button("Open ...", "Opens a session (a folder NAME.sac).")
        self.save = narrow_button("Save", "Writes the labels to the session now.")
        self.save_as = narrow_button(
            "Save as ...",
            "Copies points, labels and the whole history to a folder NAME.sac, and "
            "goes on there.",
        )
        self.bring = narrow_button("Import", "Start from what another tool made.")
        self.export = narrow_button("Export", "Write labels, points or outlines.")
        self.bring.setMenu(self._menu(imports, self.import_requested))
        self.export.setMenu(self._menu(exports, self.export_requested))
        grid = QGridLayout()
        grid.addWidget(self.open, 0, 0, 1, 2)
        grid.addWidget(self.save, 0, 2, 1, 2)
        grid.addWidget(self.save_as, 0, 4, 1, 2)
        grid.addWidget(self.bring, 1, 0, 1, 3)
        grid.addWidget(self.export, 1, 3, 1, 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.notice)
        layout.addLayout(grid)
        layout.addWidget(self.place)
        self.open.clicked.connect(self.open_requested)
        self.save.clicked.connect(self.save_requested)
        self.save_as.clicked.connect(self.save_as_requested)

    def show_place(self, place: str, notice: str) -> None:
        """Say where the work is kept and, in ``notice``, what is wrong with that."""
        self.place.setText(place)
        self.notice.setText(notice)
        self.notice.setVisible(bool(notice))

    def _menu(self, entries: Iterable[tuple[str, str]], signal: Signal) -> QMenu:
        menu = QMenu(self)
        for name, title in entries:
            action = menu.addAction(title)
            if action is not None:
                action.triggered.connect(lambda _=False, n=name: signal.emit(n))
        return menu


class RestoreBar(QFrame):
    """Offers work that was not closed; it waits, and stops nobody.

    Attributes
    ----------
    restore_requested, discard_requested, later_requested : Signal
    """

    restore_requested = Signal()
    discard_requested = Signal()
    later_requested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._offer = ""
        self._asking = False
        self.text = note()
        self.restore = narrow_button("Restore", "Opens it where it was left.")
        self.discard = narrow_button("Discard", "Deletes it, after one more question.")
        self.later = narrow_button("Later", "Keeps it, and asks the next time.")
        row = QHBoxLayout()
        for button in (self.restore, self.discard, self.later):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(3)
        layout.addWidget(self.text)
        layout.addLayout(row)
        self.restore.clicked.connect(self.restore_requested)
        self.discard.clicked.connect(self._on_discard)
        self.later.clicked.connect(self._on_later)
        self.hide()

    def offer(self, text: str) -> None:
        """Show the offer; an empty text takes it away."""
        self._offer = text
        self._ask(False)
        self.setVisible(bool(text))

    def _on_discard(self) -> None:
        if self._asking:
            self.discard_requested.emit()
        else:
            self._ask(True)

    def _on_later(self) -> None:
        if self._asking:
            self._ask(False)
        else:
            self.later_requested.emit()

    def _ask(self, asking: bool) -> None:
        """Ask whether to delete for good, in place of the offer."""
        self._asking = asking
        self.text.setText(DISCARD_QUESTION if asking else self._offer)
        self.restore.setVisible(not asking)
        self.discard.setText("Delete for good" if asking else "Discard")
        self.later.setText("Keep it" if asking else "Later")
