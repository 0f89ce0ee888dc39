"""A dock on a viewer without a window, and a model that needs no loading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from annotating import import_labels
from napari.components import ViewerModel

from napari_sac.viewer import keys
from napari_sac.viewer.inference import LoadedModel
from napari_sac.widgets.segment_widget import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot
    from synthetic import Nuclei

    from napari_sac.core.models.registry import Model
    from napari_sac.viewer.annotation import Annotation


@pytest.fixture(autouse=True)
def same_keys_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl mean Ctrl on a Mac too; a test of its own looks at Cmd."""
    monkeypatch.setattr(keys, "_is_mac", lambda: False)


@pytest.fixture
def viewer(nuclei: Nuclei) -> ViewerModel:
    model = ViewerModel()
    model.add_image(nuclei.image, rgb=True, name="field")
    return model


@pytest.fixture
def dock(
    viewer: ViewerModel, disc_model: Model, qtbot: QtBot
) -> Iterator[SegmentWidget]:
    widget = SegmentWidget(viewer)
    qtbot.addWidget(widget)
    widget.session.loaded = LoadedModel(widget.models.choice(), disc_model)
    yield widget
    widget.leave()


@pytest.fixture
def annotated(dock: SegmentWidget, nuclei: Nuclei) -> Annotation:
    """Twelve nuclei with labels, as another tool would give them."""
    return import_labels(dock.session, dock.images.plane(), nuclei.labels)
