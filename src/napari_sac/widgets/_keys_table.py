"""Which key and which click does what, as a table for the dock."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_sac.viewer.keys import Action

# Napari's own tools, and modifiers that Preferences cannot change.
_MOUSE = (
    ("2, then click", "a nucleus; inside one: split it"),
    ("Shift-click", "not here, says the nearest nucleus"),
    ("Ctrl-click", "here too, says the nearest nucleus"),
    ("3, then drag", "move; draw around points to select"),
    ("Del", "delete the selected points"),
)

_DAILY = {
    "accept": "accept",
    "reject": "reject",
    "negate": "+ or -",
    "accept_next": "accept, next",
    "go_next": "next",
    "go_previous": "previous",
}


def keys_html(actions: Sequence[Action], keys: Mapping[str, str]) -> str:
    """Return what to press and what it does, the mouse first.

    Parameters
    ----------
    actions : sequence of Action
    keys : mapping of str to str
        Key of each action, by its name; one with "" or without a key is left out.
    """
    rows = [(keys[a.name], a.title) for a in actions if keys.get(a.name)]
    cells = "".join(
        f"<tr><td><b>{escape(key)}</b>&nbsp;&nbsp;</td><td>{escape(what)}</td></tr>"
        for key, what in (*_MOUSE, *rows)
    )
    return f"<table>{cells}</table>"


def keys_line(keys: Mapping[str, str]) -> str:
    """Return the keys that are needed all the time, in a line."""
    shown = [
        f"<b>{escape(keys[name])}</b> {title}"
        for name, title in _DAILY.items()
        if keys.get(name)
    ]
    return " &nbsp; ".join(shown)
