"""Where the work is kept, how it gets out, and what was not closed the last time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QGridLayout, QMenu, QVBoxLayout, QWidget

from napari_sac.widgets._panel import WARNING_STYLE, narrow_button, note

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
