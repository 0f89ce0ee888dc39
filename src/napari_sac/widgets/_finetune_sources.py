"""What to learn from: annotations of the viewer, sessions, folders, with counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QListWidget,
    QListWidgetItem,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_sac.widgets._finetune_wording import (
    WHAT_COUNTS,
    describe_counts,
    describe_total,
)
from napari_sac.widgets._panel import narrow_button, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QResizeEvent

    from napari_sac.viewer.finetuning import Counts

_KEY = Qt.ItemDataRole.UserRole
_TALLEST = 220


@dataclass(frozen=True)
class Listed:
    """A line of the list.

    Parameters
    ----------
    key : hashable
        Tells it from the others, so that its tick stays when the list is made anew.
    name : str
    counts : Counts
    tooltip : str
    """

    key: object
    name: str
    counts: Counts
    tooltip: str = ""


class SourceList(QListWidget):
    """A list that wraps its lines, and is as tall as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._is_fitting = False
        self.setWordWrap(True)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setMinimumWidth(60)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Be as tall as the lines, which may be more when it is narrower."""
        super().resizeEvent(event)
        self.fit()

    def changeEvent(self, event: QEvent | None) -> None:
        """Be as tall as the lines in another style."""
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.StyleChange:
            self.fit()

    def sizeHint(self) -> QSize:
        """Return the size of all lines."""
        # not sizeHintForRow, which knows nothing of words that wrap
        items = (self.item(i) for i in range(self.count()))
        lines = sum(self.visualItemRect(item).height() for item in items)
        return QSize(120, min(_TALLEST, lines + 2 * self.frameWidth() + 4))

    def fit(self) -> None:
        """Take the height that the lines need."""
        if self._is_fitting:
            # a scroll bar that comes or goes is a change of size too
            return
        self._is_fitting = True
        # it takes the width by which more words would wrap
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.doItemsLayout()  # type: ignore[attr-defined]
        height = max(24, self.sizeHint().height())
        if height == _TALLEST:
            self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        self.setFixedHeight(height)
        self._is_fitting = False


class SourcesPanel(QWidget):
    """The list with its buttons.

    Attributes
    ----------
    changed : Signal
        Another line was ticked.
    session_requested, folder_requested : Signal
        Somebody wants to add one.
    removed : Signal(object)
        Key of a line that somebody wants off the list.
    """

    changed = Signal()
    session_requested = Signal()
    folder_requested = Signal()
    removed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Listed] = []
        self._unticked: set[object] = set()
        self.about = note()
        self.about.setText(WHAT_COUNTS)
        self.list = SourceList()
        self.total = note()
        self.add_session = narrow_button(
            "Add session", "Learn from a saved session too (a folder NAME.sac)."
        )
        self.add_folder = narrow_button(
            "Add folder",
            "Learn from images and their labels: a folder with the subfolders images "
            "and labels, or two folders with files of the same names.",
        )
        self.remove = narrow_button(
            "Take off the list", "Takes the selected session or folder off the list."
        )
        self._lay_out()
        self.list.itemChanged.connect(self._on_ticked)
        self.list.itemSelectionChanged.connect(self._on_selected)
        self.add_session.clicked.connect(self.session_requested)
        self.add_folder.clicked.connect(self.folder_requested)
        self.remove.clicked.connect(self._on_remove)
        self.show_lines(())

    def show_lines(self, lines: Sequence[Listed]) -> None:
        """Show what there is; what was unticked before stays so while it is there."""
        # the images of another session get the same numbers
        self._unticked.intersection_update(line.key for line in lines)
        if list(lines) != self._lines or self.list.count() != len(lines):
            self._lines = list(lines)
            blocked = self.list.blockSignals(True)
            self.list.clear()
            for line in self._lines:
                self.list.addItem(self._item(line))
            self.list.blockSignals(blocked)
            self.list.fit()
        self.list.setVisible(bool(lines))
        self._tell()

    def chosen(self) -> list[Listed]:
        """Return the lines that are ticked and can be learned from."""
        return [
            line
            for line in self._lines
            if line.counts.problem is None and line.key not in self._unticked
        ]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing on the list."""
        return not self._lines

    def _item(self, line: Listed) -> QListWidgetItem:
        item = QListWidgetItem(f"{line.name}\n{describe_counts(line.counts)}")
        item.setData(_KEY, line.key)
        item.setToolTip(line.tooltip or line.name)
        flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        usable = line.counts.problem is None
        ticked = usable and line.key not in self._unticked
        if usable:
            flags |= Qt.ItemFlag.ItemIsUserCheckable
        item.setFlags(flags)
        item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
        return item

    def _on_ticked(self, item: QListWidgetItem) -> None:
        key = item.data(_KEY)
        if item.checkState() == Qt.CheckState.Checked:
            self._unticked.discard(key)
        else:
            self._unticked.add(key)
        self._tell()
        self.changed.emit()

    def _on_selected(self) -> None:
        self.remove.setVisible(self._selected() is not None)

    def _on_remove(self) -> None:
        key = self._selected()
        if key is not None:
            self.removed.emit(key)

    def _selected(self) -> object | None:
        """Return the key of the selected line, unless it is one of the viewer."""
        chosen = self.list.selectedItems()
        key = chosen[0].data(_KEY) if chosen else None
        return None if isinstance(key, int) else key

    def _tell(self) -> None:
        chosen = self.chosen()
        if chosen:
            self.total.setText(describe_total([line.counts for line in chosen]))
        self.total.setVisible(bool(chosen))
        self._on_selected()

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        for button in (self.add_session, self.add_folder):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.about)
        layout.addWidget(self.list)
        layout.addWidget(self.total)
        layout.addLayout(buttons)
        layout.addWidget(self.remove)
