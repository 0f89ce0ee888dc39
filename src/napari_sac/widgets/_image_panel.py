"""Which image, and which of its channels or stains, shows the nuclei."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QWidget

from napari_sac.core.config import STAINS
from napari_sac.viewer.planes import (
    ImagePlane,
    are_axes_unnamed,
    channel_count,
    current_plane,
)
from napari_sac.widgets._alive import is_alive
from napari_sac.widgets._panel import combo, form, note
from napari_sac.widgets._wording import CHANNELS_GUESSED

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.utils.events import Event

    from napari_sac.core.config import Stain


class ImagePanel(QWidget):
    """Choice of an image layer, and of up to two channels or a stain of it.

    Parameters
    ----------
    viewer : ViewerModel

    Attributes
    ----------
    changed : Signal
        Another image, other channels, another stain, or another plane.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._layers: list[Image] = []
        self._kept = False
        self.image = combo("The image layer in which to look for nuclei.")
        self.first = combo("The channel that shows nuclei.")
        self.second = combo("A second channel that shows nuclei; it is added.")
        self.stain = combo(
            "The stain that shows nuclei. Haematoxylin alone helps where blue nuclei "
            "lie beside or under brown."
        )
        self.stain.addItems(["as shown", *STAINS])
        self.guessed = note()
        self.guessed.setText(CHANNELS_GUESSED)
        self._form = form(
            ("Image", self.image),
            ("Channel", self.first),
            ("and", self.second),
            ("Stain", self.stain),
        )
        self._form.addRow(self.guessed)
        self.setLayout(self._form)
        self.image.activated.connect(self.keep)
        for box in (self.image, self.first, self.second, self.stain):
            box.currentIndexChanged.connect(self._on_choice)

    def follow_viewer(self) -> None:
        """List the viewer's images, from now on."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.connect(self.refresh)
        self._viewer.dims.events.point.connect(self._on_dims)
        self._viewer.dims.events.order.connect(self._on_dims)
        self._viewer.dims.events.ndisplay.connect(self._on_dims)
        self.refresh()

    def leave_viewer(self) -> None:
        """Listen to the viewer no more."""
        events = self._viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self.refresh)
        self._viewer.dims.events.point.disconnect(self._on_dims)
        self._viewer.dims.events.order.disconnect(self._on_dims)
        self._viewer.dims.events.ndisplay.disconnect(self._on_dims)
        for layer in self._layers:
            self._let_go(layer)
        self._layers = []

    def layer(self) -> Image | None:
        """Return the chosen layer."""
        index = self.image.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def plane(self) -> ImagePlane | None:
        """Return the plane of the chosen layer that the viewer shows."""
        layer = self.layer()
        if layer is None:
            return None
        point = self._viewer.dims.point
        return current_plane(layer, point, self._channels(), self._stain())

    def look_at(self, plane: ImagePlane) -> None:
        """Look at the image of a plane, and at the channels or the stain of it."""
        if plane.layer not in self._layers:
            # it was added just now, and others were told first
            self.refresh()
        self.keep()
        for box in (self.image, self.first, self.second):
            box.blockSignals(True)
        self.image.setCurrentIndex(self._layers.index(plane.layer))
        self._list_channels()
        for box, channel in zip(
            (self.first, self.second), plane.channels, strict=False
        ):
            box.setCurrentIndex(1 + channel)
        for box in (self.image, self.first, self.second):
            box.blockSignals(False)
        self.show_stain(plane.stain)
        self._show_channels()
        self.changed.emit()

    def show_stain(self, stain: Stain | None) -> None:
        """Show which stain is looked at, and tell nobody."""
        blocked = self.stain.blockSignals(True)
        self.stain.setCurrentIndex(0 if stain is None else 1 + STAINS.index(stain))
        self.stain.blockSignals(blocked)

    def keep(self) -> None:
        """Keep the choice when other images come; until then it is the newest one."""
        self._kept = True

    def refresh(self, event: Event | None = None) -> None:
        """List the images that the viewer has now."""
        if not is_alive(self):
            return
        chosen = self.layer()
        before = self._layers
        self._layers = [x for x in self._viewer.layers if isinstance(x, Image)][::-1]
        for layer in set(self._layers).difference(before):
            layer.events.name.connect(self.refresh)
            layer.events.data.connect(self._on_data)
        for layer in set(before).difference(self._layers):
            self._let_go(layer)
        blocked = self.image.blockSignals(True)
        self.image.clear()
        self.image.addItems([layer.name for layer in self._layers])
        if chosen in self._layers and (self._kept or len(before) >= len(self._layers)):
            self.image.setCurrentIndex(self._layers.index(chosen))
        self.image.blockSignals(blocked)
        if self.layer() is not chosen:
            self._list_channels()
            self._forget_stain()
        self._show_channels()
        self.changed.emit()

    def _channels(self) -> tuple[int, ...]:
        first, second = self.first.currentIndex() - 1, self.second.currentIndex() - 1
        if first < 0:
            return ()
        return (first,) if second in (-1, first) else (first, second)

    def _stain(self) -> Stain | None:
        index = self.stain.currentIndex() - 1
        return None if index < 0 else STAINS[index]

    def _forget_stain(self) -> None:
        """Look at another image as it is shown."""
        self.show_stain(None)

    def _list_channels(self) -> None:
        layer = self.layer()
        names = [f"{i}" for i in range(channel_count(layer) if layer else 0)]
        for box, none in ((self.first, "as shown"), (self.second, "no other")):
            blocked = box.blockSignals(True)
            box.clear()
            box.addItems([none, *names])
            box.blockSignals(blocked)

    def _show_channels(self) -> None:
        layer = self.layer()
        self._form.setRowVisible(self.stain, layer is not None and bool(layer.rgb))
        several = self.first.count() > 1
        self._form.setRowVisible(self.first, several)
        unnamed = layer is not None and are_axes_unnamed(layer)
        self._form.setRowVisible(self.guessed, several and unnamed)
        self._form.setRowVisible(self.second, several and self.first.currentIndex() > 0)

    def _on_choice(self) -> None:
        if self.sender() is self.image:
            self._list_channels()
            self._forget_stain()
        self._show_channels()
        self.changed.emit()

    def _on_data(self, event: Event) -> None:
        if not is_alive(self):
            return
        layer = self.layer()
        count = 0 if layer is None else channel_count(layer)
        if self.first.count() != 1 + count:
            # other channels than those that were chosen
            self._list_channels()
            self._show_channels()
        self.changed.emit()

    def _let_go(self, layer: Image) -> None:
        layer.events.name.disconnect(self.refresh)
        layer.events.data.disconnect(self._on_data)

    def _on_dims(self, event: Event) -> None:
        if is_alive(self):
            self.changed.emit()
