"""A form built from a config dataclass, which knows labels, ranges and defaults."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from magicgui.widgets import Container, create_widget

if TYPE_CHECKING:
    from collections.abc import Collection

    from psygnal import SignalInstance
    from qtpy.QtWidgets import QWidget

_Config = TypeVar("_Config")

_RANGE_OPTIONS = ("min", "max", "step")


class ConfigForm(Generic[_Config]):
    """Inputs for the fields of a config.

    Parameters
    ----------
    kind : type
        A dataclass of :mod:`napari_sac.core.config`.
    without : collection of str
        Fields that are shown elsewhere, or not at all.
    """

    def __init__(self, kind: type[_Config], without: Collection[str] = ()) -> None:
        self._kind = kind
        self._inputs = Container(
            widgets=[_input(f) for f in fields(kind) if f.name not in without]  # type: ignore[arg-type]
        )
        self._inputs.margins = (0, 0, 0, 0)

    @property
    def changed(self) -> SignalInstance:
        """Emitted when an input was changed."""
        signal: SignalInstance = self._inputs.changed
        return signal

    @property
    def native(self) -> QWidget:
        """The Qt widget."""
        native: QWidget = self._inputs.native
        return native

    def show(self, config: _Config) -> None:
        """Make the form show a config."""
        names = {widget.name for widget in self._inputs}
        values = asdict(config)  # type: ignore[call-overload]
        self._inputs.update({k: v for k, v in values.items() if k in names})

    def config(self, **others: Any) -> _Config:
        """Return the config as it stands in the form, with other fields as given."""
        return self._kind(**self._inputs.asdict(), **others)


def _input(field: Any) -> Any:
    """Return the input of one field."""
    told = field.metadata
    options = {name: told[name] for name in _RANGE_OPTIONS if name in told}
    options["tooltip"] = told["tooltip"]
    if "choices" in told:
        options["choices"] = told["choices"]
    return create_widget(
        value=field.default, name=field.name, label=told["label"], options=options
    )
