"""Which model, which adapter, and where they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sac.core.device import DEVICE_NAMES
from napari_sac.core.models.adapter import AdapterInfo, list_adapters
from napari_sac.core.models.registry import DEFAULT_MODEL, ModelSpec, model_specs
from napari_sac.viewer.inference import ModelChoice
from napari_sac.widgets._panel import combo, form, note

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model

_DEVICE_TITLES = {
    "auto": "automatic",
    "cpu": "processor (CPU)",
    "cuda": "NVIDIA graphics card (CUDA)",
    "mps": "Apple graphics (MPS)",
}


class ModelPanel(QWidget):
    """Choice of model, adapter and device.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "mps"}
        What to choose at first.

    Attributes
    ----------
    changed : Signal
    """

    changed = Signal()

    def __init__(self, device: str = "auto") -> None:
        super().__init__()
        self._specs: tuple[ModelSpec, ...] = model_specs()
        self._adapters: list[AdapterInfo | None] = []
        self.model = combo("The network that outlines the nuclei.")
        self.adapter = combo(
            "What the model has learned beside: for a stain, or from your corrections."
        )
        self.device = combo("Where the model computes.")
        self.about_model, self.about_adapter, self.about_device = note(), note(), note()
        self._lay_out()
        self.model.addItems([spec.title for spec in self._specs])
        self.device.addItems([_DEVICE_TITLES[name] for name in DEVICE_NAMES])
        self.device.setCurrentIndex(DEVICE_NAMES.index(device))
        names = [spec.name for spec in self._specs]
        self.model.setCurrentIndex(names.index(DEFAULT_MODEL))
        self._list_adapters()
        self.model.currentIndexChanged.connect(self._list_adapters)
        for box in (self.model, self.adapter, self.device):
            box.currentIndexChanged.connect(self._on_choice)
        self.show_device(None)

    def choice(self) -> ModelChoice:
        """Return what is chosen."""
        adapter = self._adapter()
        return ModelChoice(
            self._specs[self.model.currentIndex()].name,
            None if adapter is None else adapter.path,
            DEVICE_NAMES[self.device.currentIndex()],
        )

    def show_device(self, model: Model | None) -> None:
        """Say where the model was loaded to, and why."""
        if model is None:
            self.about_device.setText("Chosen at the first use.")
        else:
            self.about_device.setText(f"{model.device.title}: {model.device.reason}.")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, box, about in (
            ("Model", self.model, self.about_model),
            ("Adapter", self.adapter, self.about_adapter),
            ("Device", self.device, self.about_device),
        ):
            layout.addLayout(form((name, box)))
            layout.addWidget(about)

    def _adapter(self) -> AdapterInfo | None:
        index = self.adapter.currentIndex()
        return self._adapters[index] if 0 <= index < len(self._adapters) else None

    def _list_adapters(self) -> None:
        name = self._specs[self.model.currentIndex()].name
        fitting = [info for info in list_adapters() if info.base == name]
        self._adapters = [None, *fitting]
        blocked = self.adapter.blockSignals(True)
        self.adapter.clear()
        self.adapter.addItems(["none", *(info.title for info in fitting)])
        self.adapter.blockSignals(blocked)
        self._describe()

    def _describe(self) -> None:
        spec, adapter = self._specs[self.model.currentIndex()], self._adapter()
        self.about_model.setText(spec.description)
        self.model.setToolTip(f"{spec.source}. Licence: {spec.licence}.")
        self.about_adapter.setVisible(adapter is not None)
        if adapter is not None:
            self.about_adapter.setText(
                f"{adapter.description} Licence: {adapter.licence}."
            )

    def _on_choice(self) -> None:
        self._describe()
        self.changed.emit()
