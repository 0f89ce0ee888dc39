"""The form is the config: its fields, labels, ranges and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QLabel

from napari_sac.core.config import DecodeConfig, ProposalConfig
from napari_sac.widgets._config_form import ConfigForm

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


def test_untouched_it_gives_the_defaults(qtbot: QtBot) -> None:
    for kind in (ProposalConfig, DecodeConfig):
        form = ConfigForm(kind)
        qtbot.addWidget(form.native)
        assert form.config() == kind()


def test_a_field_shown_elsewhere_is_given(qtbot: QtBot) -> None:
    form = ConfigForm(ProposalConfig, without=("score_threshold",))
    qtbot.addWidget(form.native)
    labels = [label.text() for label in form.native.findChildren(QLabel)]
    assert "Minimum score" not in labels
    assert form.config(score_threshold=0.7) == ProposalConfig(score_threshold=0.7)


def test_inputs_have_the_label_range_and_tooltip_of_their_field(qtbot: QtBot) -> None:
    form = ConfigForm(ProposalConfig)
    qtbot.addWidget(form.native)
    labels = [label.text() for label in form.native.findChildren(QLabel)]
    assert "Foreground threshold" in labels
    boxes = form.native.findChildren(QDoubleSpinBox)
    (box,) = [b for b in boxes if "this probable" in b.toolTip()]
    assert (box.minimum(), box.maximum(), box.singleStep()) == (0.05, 0.95, 0.05)
    box.setValue(0.8)
    (strategy,) = form.native.findChildren(QComboBox)
    strategy.setCurrentText("probability")
    assert form.config() == ProposalConfig(
        strategy="probability", foreground_threshold=0.8
    )
