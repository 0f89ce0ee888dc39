"""Which key and which click does what, as a table for the dock."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_sac.viewer.keys import Action

# Napari's own tools, and modifiers that Preferences cannot change.
_MOUSE = (
    ("2, then click", "Add a nucleus; inside one, split it"),
    ("Shift-click", "Not this: what is drawn there shrinks"),
    ("Ctrl-click", "Here too: the nucleus there, or a near one, grows"),
    ("3, then drag", "Move a point, or select those around"),
    ("Del", "Delete the selected points"),
)


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
