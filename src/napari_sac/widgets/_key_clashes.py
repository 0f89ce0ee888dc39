"""Keys of ours that napari has a use for too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding

from napari_sac.viewer.keys import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {"Points": "points", "Labels": "labels", "Shapes": "shapes"}


def find_clashes(keys: Mapping[str, str]) -> list[str]:
    """Return a sentence for each key that napari uses for something else.

    In our layers ours wins, so nothing breaks; but something of napari's is out of
    reach there, and that must be told. Undo and redo replace napari's on purpose.

    Parameters
    ----------
    keys : mapping of str to str
        The key of each action, by its name; "" is none.
    """
    sentences = []
    for action in ACTIONS:
        key = keys.get(action.name, "")
        if not key:
            continue
        for kind in (*action.kinds, ViewerModel):
            taken = kind.class_keymap.get(coerce_keybinding(key))
            name = getattr(taken, "__name__", "")
            if name and name != action.name:
                where = _KINDS.get(kind.__name__, "")
                sentences.append(_sentence(key, action.title, name, where))
                break
    return sentences


def _sentence(key: str, title: str, taken: str, kind: str) -> str:
    where = f"our {kind} layers" if kind else "our layers"
    return (
        f"{key} is also napari's key for {taken.replace('_', ' ')!r}. In {where} it "
        f"means {title!r}; Preferences can change either."
    )
