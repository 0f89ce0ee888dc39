"""The adapters there are, what can be done with one, and how two compare."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_sac.core.errors import NapariSacError
from napari_sac.core.io import safe_name
from napari_sac.core.models.adapter import (
    delete_adapter,
    export_adapter,
    retitle_adapter,
)
from napari_sac.viewer.adapters import (
    ListedAdapter,
    adapter_key,
    adapter_path,
    bring_adapter,
    check_choice,
    every_adapter,
    title_of,
    write_merged,
)
from napari_sac.viewer.comparing import (
    Candidate,
    ComparisonLayers,
    compare_on_image,
    plan_comparison,
)
from napari_sac.widgets._adapters_wording import (
    CANNOT_BE_USED,
    NO_ADAPTER_SELECTED,
    NO_IMAGE_TO_COMPARE,
    ask_delete,
    describe_added,
    describe_chosen,
    describe_comparison,
    describe_f1,
    describe_hindrance,
    describe_listed,
    describe_merged,
    describe_used,
    name_in_table,
    score_texts,
)
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._files import ask_folder, ask_save
from napari_sac.widgets._panel import combo, form, narrow_button, note, section
from napari_sac.widgets._questions import ask_text, ask_yes
from napari_sac.widgets._wording import (
    STILL_BUSY,
    describe_exported,
    name_adapters,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qtpy.QtGui import QShowEvent

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.progress import Progress
    from napari_sac.viewer.comparing import SideBySide
    from napari_sac.viewer.session import AnnotationSession
    from napari_sac.widgets._status_panel import StatusPanel
    from napari_sac.widgets._worker import Worker

_COLUMNS = ("Adapter", "F1 held out", "Tissue")
_TISSUE_WIDTH = 80
"""Of its column, in pixels: a long tag must not take the name's place."""

_SCORES = ("", "Nuclei", "F1", "PQ", "AJI", "Dice")
_ROWS_SHOWN = 6
_WEIGHTS = "SAM weights (*.pth)"


@dataclass(frozen=True)
class Dialogs:
    """How the panel asks; tests answer without a window.

    Parameters
    ----------
    yes : callable
        Given a widget, a question and the text of the button, returns a bool.
    text : callable
        Given a widget, a question and the text so far, returns a text or None.
    folder : callable
        Given a widget and a title, returns a folder or None.
    save : callable
        Given a widget, a title, patterns and a name, returns a path or None.
    """

    yes: Callable[[QWidget, str, str], bool] = ask_yes
    text: Callable[[QWidget, str, str], str | None] = ask_text
    folder: Callable[[QWidget, str], Path | None] = ask_folder
    save: Callable[[QWidget, str, str, str], Path | None] = ask_save


class AdaptersPanel(QWidget):
    """A table of adapters with what can be done with them.

    Parameters
    ----------
    session : AnnotationSession
    worker : Worker
    status : StatusPanel
        Where to say what was done; its owner shows how far the worker is.
    dialogs : Dialogs, optional

    Attributes
    ----------
    compared : Signal
        A comparison is shown.
    """

    compared = Signal()

    def __init__(
        self,
        session: AnnotationSession,
        worker: Worker,
        status: StatusPanel,
        dialogs: Dialogs | None = None,
    ) -> None:
        super().__init__()
        self._session = session
        self._worker = worker
        self._dialogs = dialogs or Dialogs()
        self._joined = False
        self._listed: tuple[ListedAdapter, ...] = ()
        self._opponents: list[Candidate] = []
        self._layers = ComparisonLayers(session.viewer)
        self.table = _table(_COLUMNS)
        header = self.table.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(2, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(2, _TISSUE_WIDTH)
        self.about, self.used, self.hindrance = note(), note(), note()
        self.use = narrow_button("Use", "Segment with it from now on.")
        self.switch_back = narrow_button("Switch back", "")
        self.rename = narrow_button("Rename ...", "Gives it another name in lists.")
        self.delete = narrow_button("Delete ...", "Deletes it, after a question.")
        self.add = narrow_button(
            "Add ...", "Adapter from a folder: copies it to your own."
        )
        self.export = narrow_button(
            "Export ...", "Copies it to a folder, to be sent or kept."
        )
        self.export_merged = narrow_button(
            "Export merged ...",
            "Writes model and adapter as one weight file (.pth), for other SAM tools.",
        )
        self.opponent = combo("What to compare the selected adapter with.")
        self.compare = narrow_button(
            "Compare",
            "Segments the image with both, and shows the outlines of each as a layer.",
        )
        self.why_not_compare = note()
        self.scores = _table(_SCORES)
        self.verdict, self.shown = note(), note()
        self.flip = narrow_button("Show the other", "Flips between the two layers.")
        self.remove = narrow_button("Remove both", "Takes the two layers away.")
        self.status = status
        self._result = QWidget()
        self._lay_out()
        self._connect()
        self.join()

    def join(self) -> None:
        """Follow the session and the viewer, from now on."""
        if not self._joined:
            self._joined = True
            layers = self._session.viewer.layers.events
            self._session.adapters_changed.connect(self.reload)
            self._session.model_chosen.connect(self._on_model_chosen)
            layers.inserted.connect(self._on_layers)
            layers.removed.connect(self._on_layers)
            self.reload()

    def leave(self) -> None:
        """Listen to the session and the viewer no more."""
        if self._joined:
            self._joined = False
            layers = self._session.viewer.layers.events
            self._session.adapters_changed.disconnect(self.reload)
            self._session.model_chosen.disconnect(self._on_model_chosen)
            layers.inserted.disconnect(self._on_layers)
            layers.removed.disconnect(self._on_layers)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Read the adapters again: they may have changed while nobody looked."""
        super().showEvent(event)
        self.reload()

    def selected(self) -> ListedAdapter | None:
        """Return the adapter that is selected in the table."""
        row = self.table.currentRow()
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def select(self, name: str) -> None:
        """Select the adapter whose folder has this name."""
        for row, listed in enumerate(self._listed):
            if listed.name == name:
                self.table.setCurrentCell(row, 0)
                return

    def reload(self) -> None:
        """List the adapters that there are now."""
        if not is_alive(self):
            return
        before = self.selected()
        self._listed = every_adapter()
        blocked = self.table.blockSignals(True)
        self._fill()
        self.table.clearSelection()
        self.table.setCurrentCell(-1, -1)
        self.table.blockSignals(blocked)
        paths = [listed.path for listed in self._listed]
        row = paths.index(before.path) if before and before.path in paths else 0
        if self._listed:
            self.table.setCurrentCell(row, 0)
        self._on_selected()

    # -- what it looks like -----------------------------------------------------

    def _lay_out(self) -> None:
        buttons = QGridLayout()
        buttons.setSpacing(4)
        for row, widgets in enumerate(
            (
                ((self.use, 3), (self.switch_back, 3)),
                ((self.rename, 2), (self.delete, 2), (self.add, 2)),
                ((self.export, 2), (self.export_merged, 4)),
            )
        ):
            place = 0
            for widget, wide in widgets:
                buttons.addWidget(widget, row, place, 1, wide)
                place += wide
        flipping = QGridLayout()
        flipping.addWidget(self.flip, 0, 0)
        flipping.addWidget(self.remove, 0, 1)
        result = QVBoxLayout(self._result)
        result.setContentsMargins(0, 0, 0, 0)
        result.setSpacing(3)
        result.addWidget(self.scores)
        result.addWidget(self.verdict)
        result.addWidget(self.shown)
        result.addLayout(flipping)
        self._result.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addLayout(
            section(
                "Adapters",
                self.used,
                self.table,
                self.about,
                buttons,
                self.hindrance,
            )
        )
        layout.addLayout(
            section(
                "Compare side by side",
                form(("Selected with", self.opponent)),
                self.compare,
                self.why_not_compare,
                self._result,
            )
        )
        layout.addStretch()

    def _connect(self) -> None:
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.table.cellDoubleClicked.connect(self._on_use)
        self.opponent.currentIndexChanged.connect(self._refresh)
        for button, slot in (
            (self.use, self._on_use),
            (self.switch_back, self._on_switch_back),
            (self.rename, self._on_rename),
            (self.delete, self._on_delete),
            (self.add, self._on_add),
            (self.export, self._on_export),
            (self.export_merged, self._on_export_merged),
            (self.compare, self._on_compare),
            (self.flip, self._on_flip),
            (self.remove, self._on_remove),
        ):
            button.clicked.connect(slot)
        self._worker.busy_changed.connect(self._refresh)

    def _fill(self) -> None:
        self.table.setRowCount(len(self._listed))
        used = self._path_in_use()
        for row, listed in enumerate(self._listed):
            info = listed.info
            texts = (
                name_in_table(listed),
                describe_f1(info),
                "" if info is None else info.tissue,
            )
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                if listed.path.resolve() == used:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                self.table.setItem(row, column, item)
        _fit_height(self.table)

    def _refresh(self) -> None:
        """Enable what applies, and say why the rest does not."""
        if not is_alive(self):
            return
        listed, idle = self.selected(), not self._worker.busy
        in_use = listed is not None and listed.path.resolve() == self._path_in_use()
        whole = listed is not None and listed.info is not None
        usable = whole and listed is not None and not listed.problem
        own = listed is not None and listed.own
        self.about.setText(
            "" if listed is None else describe_listed(listed, in_use=in_use)
        )
        self.use.setEnabled(usable and not in_use)
        self.rename.setEnabled(own and whole)
        self.delete.setEnabled(own and not in_use and idle)
        self.export.setEnabled(whole and idle)
        self.export_merged.setEnabled(usable and idle)
        self.add.setEnabled(idle)
        hindrance = describe_hindrance(listed, in_use=in_use)
        self.hindrance.setText(hindrance if idle else STILL_BUSY)
        self.hindrance.setVisible(bool(hindrance) or not idle)
        before = self._name_before()
        self.switch_back.setEnabled(before is not None)
        self.switch_back.setToolTip(f"Uses {before} again." if before else "")
        now = title_of(*self._session.chosen_model)
        self.used.setText(describe_used(now, before))
        self._refresh_compare(usable=usable, idle=idle)

    def _refresh_compare(self, *, usable: bool, idle: bool) -> None:
        images = [x for x in self._session.viewer.layers if isinstance(x, Image)]
        if not idle:
            why = STILL_BUSY
        elif not usable:
            why = NO_ADAPTER_SELECTED if self.selected() is None else CANNOT_BE_USED
        else:
            why = "" if images else NO_IMAGE_TO_COMPARE
        self.compare.setEnabled(not why and self._opponent() is not None)
        self.why_not_compare.setText(why)
        self.why_not_compare.setVisible(bool(why))
        both = len(self._layers.layers) == 2
        self.flip.setEnabled(both)
        self.remove.setEnabled(bool(self._layers.layers))
        self.shown.setText(f"Shown: {self._layers.shown()}" if both else "")
        self.shown.setVisible(both)

    def _list_opponents(self) -> None:
        """Offer the model alone first, then all other adapters."""
        listed, before = self.selected(), self._opponent()
        self._opponents = []
        if listed is not None and listed.info is not None and not listed.problem:
            base = listed.info.base
            others = [
                other.info
                for other in self._listed
                if other.info and not other.problem and other.path != listed.path
            ]
            self._opponents.append(Candidate(title_of(base, None), base))
            self._opponents += [
                Candidate(title, info.base, info)
                for info, title in zip(others, name_adapters(others), strict=True)
            ]
        blocked = self.opponent.blockSignals(True)
        self.opponent.clear()
        self.opponent.addItems([candidate.title for candidate in self._opponents])
        if before in self._opponents:
            self.opponent.setCurrentIndex(self._opponents.index(before))
        self.opponent.blockSignals(blocked)

    def _opponent(self) -> Candidate | None:
        index = self.opponent.currentIndex()
        return self._opponents[index] if 0 <= index < len(self._opponents) else None

    def _path_in_use(self) -> Path | None:
        _, adapter = self._session.chosen_model
        return adapter_path(adapter) if adapter else None

    def _name_before(self) -> str | None:
        """Return what was used before; None if nothing was, or it is gone."""
        before = self._session.previous_model
        if before is None:
            return None
        try:
            check_choice(*before)
        except NapariSacError:
            return None
        return title_of(*before)

    # -- what the buttons do ----------------------------------------------------

    def _on_selected(self) -> None:
        self._list_opponents()
        self._refresh()

    def _on_use(self, *_: Any) -> None:
        listed = self.selected()
        if listed is not None and listed.info is not None and self.use.isEnabled():
            self._choose(listed.info.base, adapter_key(listed.info))

    def _on_switch_back(self) -> None:
        before = self._session.previous_model
        if before is not None:
            self._choose(*before)

    def _choose(self, model: str, adapter: str | None) -> None:
        if self.status.attempt(partial(self._session.choose_model, model, adapter)):
            name = title_of(*self._session.chosen_model)
            self.status.say(describe_chosen(name))

    def _on_rename(self) -> None:
        listed = self.selected()
        if listed is None:
            return
        title = self._dialogs.text(self, "Name of the adapter:", listed.title)
        if title is None or title == listed.title:
            return
        if self.status.attempt(partial(retitle_adapter, listed.name, title)):
            self._session.adapters_changed.emit()

    def _on_delete(self) -> None:
        listed = self.selected()
        if listed is None:
            return
        question = ask_delete(listed.title, self._images_drawn_by(listed))
        if not self._dialogs.yes(self, question, "Delete for good"):
            return
        if self.status.attempt(partial(delete_adapter, listed.name)):
            self.status.say(f"{listed.title} was deleted.")
        self._session.adapters_changed.emit()

    def _on_add(self) -> None:
        folder = self._dialogs.folder(self, "Add an adapter: choose its folder")
        if folder is not None:
            self._start(
                "Adding the adapter", partial(bring_adapter, folder), self._on_added
            )

    def _on_added(self, info: AdapterInfo) -> None:
        self.status.say(describe_added(info))
        self._session.adapters_changed.emit()
        self.select(info.name)

    def _on_export(self) -> None:
        listed = self.selected()
        if listed is None or listed.info is None:
            return
        title = f"Export {listed.title}: a folder {listed.name} is made in"
        folder = self._dialogs.folder(self, title)
        if folder is not None:
            work = partial(_export, listed.info, folder / listed.name)
            self._start("Exporting", work, self._on_exported)

    def _on_exported(self, path: Path) -> None:
        self.status.say(describe_exported(path))

    def _on_export_merged(self) -> None:
        listed = self.selected()
        if listed is None or listed.info is None:
            return
        suggested = f"{listed.info.base}_{safe_name(listed.name)}.pth"
        file = self._dialogs.save(self, "Export weights", _WEIGHTS, suggested)
        if file is not None:
            work = partial(write_merged, listed.info, file)
            self._start("Exporting", work, self._on_merged)

    def _on_merged(self, path: Path) -> None:
        self.status.say(describe_merged(path))

    def _on_compare(self) -> None:
        listed, opponent = self.selected(), self._opponent()
        if listed is None or listed.info is None or opponent is None:
            return
        title = name_adapters([listed.info])[0]
        candidate = Candidate(title, listed.info.base, listed.info)
        try:
            request = plan_comparison(self._session, opponent, candidate)
        except NapariSacError as error:
            self.status.say_error(str(error), "")
            return
        work = partial(compare_on_image, request)
        self._start("Comparing", work, self._on_compared, lasting=False)

    def _on_compared(self, found: SideBySide) -> None:
        if not self.status.attempt(partial(self._layers.show, found)):
            return
        self.scores.setRowCount(len(found.sides))
        for row, side in enumerate(found.sides):
            texts = (side.candidate.title, f"{side.nuclei:,}", *score_texts(side))
            for column, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setToolTip(text)
                self.scores.setItem(row, column, item)
        for column in range(2, len(_SCORES)):
            self.scores.setColumnHidden(column, not found.reviewed)
        _fit_height(self.scores)
        self.verdict.setText(describe_comparison(found))
        self._result.show()
        self.status.say("Both are layers now, as outlines. Flip between them.")
        self._refresh()
        self.compared.emit()

    def _on_flip(self) -> None:
        self._layers.flip()
        self._refresh()

    def _on_remove(self) -> None:
        self._layers.remove()
        self._refresh()

    def _images_drawn_by(self, listed: ListedAdapter) -> int:
        used = [a.state.settings.adapter for a in self._session.annotations]
        mine = listed.path.resolve()
        return sum(x is not None and adapter_path(x) == mine for x in used)

    # -- what happens elsewhere -------------------------------------------------

    def _on_model_chosen(self, model: str, adapter: str) -> None:
        self.reload()

    def _on_layers(self, event: Any = None) -> None:
        self._refresh()

    def _start(
        self,
        title: str,
        work: Callable[[Progress], Any],
        done: Callable[[Any], None],
        *,
        lasting: bool = True,
    ) -> None:
        if self._worker.busy:
            self.status.say(STILL_BUSY)
            return
        self._worker.start(title, work, done, lasting=lasting)


def _export(info: AdapterInfo, folder: Path, progress: Progress) -> Path:
    progress("copying the adapter", 0, 0)
    return export_adapter(info, folder)


def _table(titles: tuple[str, ...]) -> QTableWidget:
    """Return an empty table whose first column takes what the others leave."""
    table = QTableWidget(0, len(titles))
    table.setHorizontalHeaderLabels(list(titles))
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    rows, header = table.verticalHeader(), table.horizontalHeader()
    if rows is not None:
        rows.hide()
    if header is not None:
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
    return table


def _fit_height(table: QTableWidget) -> None:
    """Make a table as high as its rows, up to some."""
    header = table.horizontalHeader()
    height = 0 if header is None else header.sizeHint().height()
    shown = max(1, min(table.rowCount(), _ROWS_SHOWN))
    height += shown * table.verticalHeader().defaultSectionSize()  # type: ignore[union-attr]
    table.setFixedHeight(height + 2 * table.frameWidth())
