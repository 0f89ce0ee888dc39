"""Taking back, and what the mouse cannot do by itself."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QAbstractButton,
    QGridLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sac.widgets._keys_table import keys_html
from napari_sac.widgets._legend import Legend, mark
from napari_sac.widgets._panel import check_box, fold, narrow_button, note
from napari_sac.widgets._wording import MASKS_FOLLOW, name_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_sac.viewer.keys import Action

_TOOLS = (
    ("add", "Add", "Then click into a nucleus that was missed (key 2)."),
    (
        "exclude",
        "Not this",
        "Then click where a nucleus reaches too far (key 2, and Shift).",
    ),
    (
        "include",
        "Here too",
        "Then click where a nucleus should be too (key 2, and Ctrl).",
    ),
    (
        "select",
        "Select",
        "Then click a point, drag it, or draw around points (key 3).",
    ),
    ("pan_zoom", "Pan", "Then drag the image; the wheel zooms (key 4)."),
    (
        "paint",
        "Paint",
        "Then draw a nucleus with the brush: for what points do not get right.",
    ),
)
_TOOLTIPS = {
    "accept": "The selected nuclei are right",
    "reject": "There is no nucleus: all its points stay, and have no mask. A negative "
    "point is rejected alone",
    "negate": 'Turns the selected points into "not this" of the nearest nucleus, or '
    "back",
    "merge": "Makes one nucleus of those whose points are selected",
    "split": "Makes a nucleus of each point of the selected nuclei",
    "redraw": "Lets the model draw the selected nuclei, also those that were painted "
    "by hand, imported or accepted",
}
"""By the name of the action; its key is told behind."""
_MARKED = ("add", "exclude", "include")
"""Tools that napari has one button for."""
_COLUMNS = 3
_TOOL_STYLE = (
    "QPushButton { padding: 3px 4px; } "
    "QPushButton:checked { background-color: #0072B2; color: white; }"
)


class CorrectPanel(QWidget):
    """Undo and redo by name, whether masks follow at once, keys, and rarer tools.

    Attributes
    ----------
    tool_requested : Signal(str)
        Which tool the mouse shall have: "add", "exclude", "include", "select",
        "pan_zoom" or "paint".
    accept, reject, delete, negate : QPushButton
        For the selected points.
    merge, split, redraw : QPushButton
        For the selected nuclei.
    undo, redo : QPushButton
    live : QCheckBox
        Whether masks follow each change at once.
    preview : QCheckBox
        Whether the mouse shows what a click would give.
    outlines : QCheckBox
        Whether nuclei are shown as outlines.
    regions, tools : QPushButton
        A layer to draw in.
    """

    tool_requested = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.tool_buttons = {
            name: _tool_button(name, title, tooltip) for name, title, tooltip in _TOOLS
        }
        self.accept = narrow_button("Accept", "")
        self.reject = narrow_button("Reject", "")
        self.delete = narrow_button("Delete", "Deletes the selected points (key Del).")
        self.merge = narrow_button("Merge", "")
        self.undo = narrow_button("Undo", "")
        self.redo = narrow_button("Redo", "")
        self.live = check_box(
            MASKS_FOLLOW,
            "Each change of a point computes the nuclei that it touches, as soon as "
            "there are labels. Off: press Segment when you are ready.",
        )
        self.live.setChecked(True)
        self.preview = check_box(
            "Preview the mask under the mouse",
            "While you add points: what a click would give.",
        )
        self.preview.setChecked(True)
        self.outlines = check_box(
            "Outlines only", "Shows nuclei as outlines, so that the image is seen."
        )
        self.split = narrow_button("Split", "")
        self.redraw = narrow_button("Draw again", "")
        self.negate = narrow_button("Negate", "")
        self.regions = narrow_button(
            "Reviewed regions",
            "Adds a layer in which you draw where all nuclei are right and none is "
            "missing: they are accepted, and the ground between them counts as "
            "background.",
        )
        self.tools = narrow_button(
            "Boxes and lasso",
            "Adds a layer in which a rectangle makes a nucleus, and a polygon selects "
            "the points in it.",
        )
        self.keys = note()
        self.key_clashes = note()
        self.key_clashes.hide()
        self._with_keys = {
            "accept": self.accept,
            "reject": self.reject,
            "negate": self.negate,
            "merge": self.merge,
            "split": self.split,
            "redraw": self.redraw,
        }
        self._lay_out()
        for name, tool in self.tool_buttons.items():
            tool.clicked.connect(partial(self._on_tool, name))
        self.show_history("", "")

    def show_tool(self, name: str) -> None:
        """Show which tool the mouse has; "" is another one than ours."""
        for tool, button in self.tool_buttons.items():
            button.setChecked(tool == name)

    def show_outlines(self, outlines: bool) -> None:
        """Show whether nuclei are outlines."""
        blocked = self.outlines.blockSignals(True)
        self.outlines.setChecked(outlines)
        self.outlines.blockSignals(blocked)

    def show_history(self, undo: str, redo: str) -> None:
        """Say on the buttons what they would take back or do again; "" is nothing."""
        for button, word, title in (
            (self.undo, "Undo", undo),
            (self.redo, "Redo", redo),
        ):
            button.setEnabled(bool(title))
            button.setText(f"{word} {name_step(title)}" if title else word)
            button.setToolTip(
                f"{word} {title}" if title else f"Nothing to {word.lower()}."
            )

    def show_keys(
        self,
        actions: Sequence[Action],
        keys: Mapping[str, str],
        clashes: Sequence[str],
    ) -> None:
        """Show which key does what, and which keys napari has a use for too."""
        for name, button in self._with_keys.items():
            key = f" (key {keys[name]})" if keys.get(name) else ""
            button.setToolTip(f"{_TOOLTIPS[name]}{key}.")
        self.keys.setText(keys_html(actions, keys))
        self.key_clashes.setText(" ".join(clashes))
        self.key_clashes.setVisible(bool(clashes))

    def allow(self, *, points: bool, editable: bool) -> None:
        """Enable what can be done: with points, and in a session that may change."""
        for button in (
            *self.tool_buttons.values(),
            self.accept,
            self.reject,
            self.delete,
            self.merge,
            self.split,
            self.redraw,
            self.negate,
            self.regions,
            self.tools,
        ):
            button.setEnabled(points and editable)
        self.live.setEnabled(editable)

    def _lay_out(self) -> None:
        tools = QWidget()
        rows = QVBoxLayout(tools)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        rows.addLayout(_row(self.split, self.redraw, self.negate))
        rows.addLayout(_row(self.tools, self.regions))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(Legend())
        layout.addLayout(_in_columns(*self.tool_buttons.values()))
        layout.addLayout(_row(self.accept, self.reject, self.delete, self.merge))
        layout.addWidget(self.undo)
        layout.addWidget(self.redo)
        layout.addLayout(_row(self.live, self.outlines))
        layout.addWidget(self.key_clashes)
        self.keys_fold = fold("Mouse and keys", self.keys)
        self.tools_fold = fold("More tools", tools, self.preview)
        layout.addWidget(self.keys_fold)
        layout.addWidget(self.tools_fold)

    def _on_tool(self, name: str, checked: bool = False) -> None:
        del checked
        self.tool_requested.emit(name)


def _tool_button(name: str, title: str, tooltip: str) -> QPushButton:
    button = narrow_button(title, tooltip)
    button.setCheckable(True)
    button.setStyleSheet(_TOOL_STYLE)
    if name in _MARKED:
        button.setIcon(QIcon(mark(name)))
    return button


def _in_columns(*buttons: QPushButton) -> QGridLayout:
    grid = QGridLayout()
    grid.setSpacing(4)
    for place, button in enumerate(buttons):
        grid.addWidget(button, *divmod(place, _COLUMNS))
    return grid


def _row(*buttons: QAbstractButton) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(4)
    for button in buttons:
        row.addWidget(button)
    return row
