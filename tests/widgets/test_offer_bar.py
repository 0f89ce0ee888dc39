"""The bar that offers what was left: it asks twice before it deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from qtpy.QtWidgets import QPushButton

from napari_sac.widgets._offer_bar import OfferBar

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot


@pytest.fixture
def buttons() -> tuple[QPushButton, QPushButton]:
    return QPushButton("Look"), QPushButton("Go on")


@pytest.fixture
def bar(qtbot: QtBot, buttons: tuple[QPushButton, QPushButton]) -> OfferBar:
    made = OfferBar("Delete it for good?", *buttons)
    qtbot.addWidget(made)
    return made


def test_an_offer_shows_the_button_that_takes_it_up(
    bar: OfferBar, buttons: tuple[QPushButton, QPushButton]
) -> None:
    look, go_on = buttons
    assert bar.isHidden()
    bar.offer("Unsaved work.", go_on)
    assert not bar.isHidden()
    assert bar.text.text() == "Unsaved work."
    assert look.isHidden()
    assert not go_on.isHidden()
    bar.offer("It goes on.", look, discardable=False)
    assert not look.isHidden()
    assert go_on.isHidden()
    assert bar.discard.isHidden()


def test_discarding_asks_once_more(
    bar: OfferBar, buttons: tuple[QPushButton, QPushButton]
) -> None:
    _, go_on = buttons
    discarded: list[bool] = []
    later: list[bool] = []
    bar.discard_requested.connect(lambda: discarded.append(True))
    bar.later_requested.connect(lambda: later.append(True))
    bar.offer("Unsaved work.", go_on)
    bar.discard.click()
    assert not discarded
    assert bar.text.text() == "Delete it for good?"
    assert go_on.isHidden()
    bar.later.click()
    assert not later
    assert bar.text.text() == "Unsaved work."
    assert not go_on.isHidden()
    bar.discard.click()
    bar.discard.click()
    assert discarded == [True]
    assert bar.discard.text() == "Delete for good"
    # the next offer starts from the beginning
    bar.offer("Other work.", go_on)
    assert bar.text.text() == "Other work."
    bar.later.click()
    assert later == [True]


def test_what_is_not_deleted_is_not_said_to_be(
    bar: OfferBar, buttons: tuple[QPushButton, QPushButton]
) -> None:
    bar.offer("mine.sac", buttons[1], forgetting="Offer mine.sac no more?")
    bar.discard.click()
    assert bar.text.text() == "Offer mine.sac no more?"
    assert bar.discard.text() == "Forget it"
