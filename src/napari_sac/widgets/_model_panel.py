"""Which model, which adapter, and where they run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from napari_sac.core.device import DEVICE_NAMES
from napari_sac.core.errors import NapariSacError
from napari_sac.core.models.adapter import AdapterInfo, find_adapter, list_adapters
from napari_sac.core.models.registry import ModelSpec, model_specs
from napari_sac.viewer.adapters import adapter_key, bring_adapter
from napari_sac.viewer.inference import ModelChoice
from napari_sac.widgets._adapters_wording import describe_chosen
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._files import ask_folder
from napari_sac.widgets._panel import (
    WARNING_STYLE,
    combo,
    form,
    note,
    whole_button,
)
from napari_sac.widgets._wording import (
    describe_adapter,
    describe_adapter_gone,
    name_adapters,
    suggest_adapter,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sac.core.models.registry import Model
    from napari_sac.viewer.session import AnnotationSession
    from napari_sac.widgets._worker import Worker

HE_ADAPTER, BROWN_ADAPTER = "he", "ihc"
"""The shipped adapters for tissue: stained with haematoxylin and eosin, and brown."""

_DEVICE_TITLES = {
    "auto": "automatic",
    "cpu": "processor (CPU)",
    "cuda": "NVIDIA graphics card (CUDA)",
    "mps": "Apple graphics (MPS)",
}


class ModelPanel(QWidget):
    """Choice of model, adapter and device.

    Model and adapter are the session's choice, so that others can choose too.

    Parameters
    ----------
    session : AnnotationSession
    worker : Worker
        Copies an adapter that is added.
    device : {"auto", "cpu", "cuda", "mps"}
        What to choose at first.
    ask : callable, optional
        Given a widget and a title, returns a folder or None.

    Attributes
    ----------
    changed : Signal
    """

    changed = Signal()

    def __init__(
        self,
        session: AnnotationSession,
        worker: Worker,
        device: str = "auto",
        ask: Callable[[QWidget, str], Path | None] = ask_folder,
    ) -> None:
        super().__init__()
        self._session = session
        self._worker = worker
        self._ask = ask
        self._specs: tuple[ModelSpec, ...] = ()
        self._adapters: list[AdapterInfo | None] = []
        self._suggested = ""
        self.model = combo("The network that outlines the nuclei.")
        self.adapter = combo(
            "What the model has learned beside: for a stain, or from your corrections."
        )
        # the menu of a narrow box is as wide as its entries; a cut button says nothing
        self.adapter.setMinimumContentsLength(4)
        self.add = whole_button(
            "Add ...", "Adapter from a folder: copies it to your own, and uses it."
        )
        self.device = combo("Where the model computes.")
        self.about_model, self.about_adapter, self.about_device = note(), note(), note()
        self.refused = note()
        self.refused.setStyleSheet(WARNING_STYLE)
        self.refused.hide()
        self._lay_out()
        self.device.addItems([_DEVICE_TITLES[name] for name in DEVICE_NAMES])
        self.device.setCurrentIndex(DEVICE_NAMES.index(device))
        self._show_choice()
        self.model.currentIndexChanged.connect(self._on_model)
        self.adapter.currentIndexChanged.connect(self._on_adapter)
        self.device.currentIndexChanged.connect(self.changed)
        self.add.clicked.connect(self._on_add)
        worker.busy_changed.connect(self.add.setDisabled)
        # a model or an adapter may come or go while nobody tells
        self.adapter.installEventFilter(self)
        self.model.installEventFilter(self)
        self.show_device(None)

    def follow_session(self) -> None:
        """Show what is chosen in the session, from now on."""
        self._session.adapters_changed.connect(self._on_adapters_changed)
        self._session.model_chosen.connect(self._on_chosen)
        self._show_choice()

    def leave_session(self) -> None:
        """Listen to the session no more."""
        self._session.adapters_changed.disconnect(self._on_adapters_changed)
        self._session.model_chosen.disconnect(self._on_chosen)

    def choice(self) -> ModelChoice:
        """Return what is chosen."""
        adapter = self._adapter()
        return ModelChoice(
            self._spec().name,
            None if adapter is None else adapter.path,
            DEVICE_NAMES[self.device.currentIndex()],
        )

    def show_device(self, model: Model | None) -> None:
        """Say where the model was loaded to, and why."""
        if model is None:
            self.about_device.setText("Chosen at the first use.")
        else:
            self.about_device.setText(f"{model.device.title}: {model.device.reason}.")

    def suggest(self, adapter: str) -> None:
        """Say that an adapter is meant for the image; an empty name is none."""
        if adapter != self._suggested:
            self._suggested = adapter
            self._describe()

    def add_from(self, folder: Path) -> None:
        """Copy the adapter in a folder to the user's own, and use it."""
        if not self._worker.busy:
            work = partial(bring_adapter, folder)
            self._worker.start("Adding the adapter", work, self._on_added, lasting=True)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Read what there is again before it is looked at."""
        if event is not None and event.type() == QEvent.Type.MouseButtonPress:
            self._show_choice()
        return super().eventFilter(watched, event)

    def _lay_out(self) -> None:
        adapter = QWidget()
        row = QHBoxLayout(adapter)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.adapter, 1)
        row.addWidget(self.add)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, box, about in (
            ("Model", self.model, self.about_model),
            ("Adapter", adapter, self.about_adapter),
            ("Device", self.device, self.about_device),
        ):
            layout.addLayout(form((name, box)))
            layout.addWidget(about)
        layout.addWidget(self.refused)

    def _spec(self) -> ModelSpec:
        return self._specs[self.model.currentIndex()]

    def _adapter(self) -> AdapterInfo | None:
        index = self.adapter.currentIndex()
        return self._adapters[index] if 0 <= index < len(self._adapters) else None

    def _show_choice(self) -> None:
        """Make the boxes show what the session has chosen."""
        model, name = self._session.chosen_model
        self._show_model(model)
        try:
            chosen = find_adapter(name) if name else None
        except NapariSacError:
            # its folder was deleted or damaged by somebody else
            self._session.choose_model(self._spec().name, None)
            self._refuse(describe_adapter_gone(name or ""))
            chosen = None
        self._list_adapters(chosen)

    def _show_model(self, name: str) -> None:
        specs = model_specs()
        names = [spec.name for spec in specs]
        blocked = self.model.blockSignals(True)
        if specs != self._specs:
            self._specs = specs
            self.model.clear()
            self.model.addItems([spec.title for spec in specs])
        if name in names:
            self.model.setCurrentIndex(names.index(name))
        self.model.blockSignals(blocked)

    def _list_adapters(self, chosen: AdapterInfo | None) -> None:
        name = self._spec().name
        listed = [info for info in list_adapters() if info.base == name]
        places = [info.path.resolve() for info in listed]
        if chosen is not None and chosen.path.resolve() not in places:
            listed.append(chosen)
            places.append(chosen.path.resolve())
        self._adapters = [None, *listed]
        blocked = self.adapter.blockSignals(True)
        self.adapter.clear()
        self.adapter.addItems(["none", *name_adapters(listed)])
        if chosen is not None:
            self.adapter.setCurrentIndex(1 + places.index(chosen.path.resolve()))
        self.adapter.blockSignals(blocked)
        self._describe()

    def _describe(self) -> None:
        spec, adapter = self._spec(), self._adapter()
        self.about_model.setText(spec.description)
        self.model.setToolTip(f"{spec.source}. Licence: {spec.licence}.")
        about = "" if adapter is None else describe_adapter(adapter)
        chosen = "" if adapter is None else adapter.name
        # one's own adapter is for what it was trained on, whatever that looks like
        if chosen in ("", HE_ADAPTER, BROWN_ADAPTER) and chosen != self._suggested:
            for info in self._adapters:
                if info and info.name == self._suggested:
                    about = f"{suggest_adapter(info)} {about}".rstrip()
        self.about_adapter.setText(about)
        self.about_adapter.setVisible(bool(about))

    def _choose(self, model: str, adapter: str | None) -> None:
        self._refuse("")
        before = self._session.chosen_model
        try:
            self._session.choose_model(model, adapter)
        except NapariSacError as error:
            self._refuse(str(error))
        if self._session.chosen_model == before:
            self._show_choice()

    def _refuse(self, sentence: str) -> None:
        self.refused.setText(sentence)
        self.refused.setVisible(bool(sentence))

    def _on_model(self) -> None:
        self._choose(self._spec().name, None)

    def _on_adapter(self) -> None:
        adapter = self._adapter()
        self._choose(
            self._spec().name, None if adapter is None else adapter_key(adapter)
        )

    def _on_add(self) -> None:
        folder = self._ask(self, "Add an adapter: choose its folder")
        if folder is not None:
            self.add_from(folder)

    def _on_added(self, info: AdapterInfo) -> None:
        self._session.adapters_changed.emit()
        self._choose(info.base, info.name)
        if not self.refused.text():
            self._session.told.emit(describe_chosen(info.shown_title))

    def _on_adapters_changed(self) -> None:
        if is_alive(self):
            self._show_choice()
            self.changed.emit()

    def _on_chosen(self, *_: str) -> None:
        if is_alive(self):
            self._show_choice()
            self.changed.emit()
