"""Our keys: what each does, which it is by default, and how it is bound to our layers.

A layer's own keys win over those of napari, so none of the defaults is one of napari's
in a Points, Labels or Shapes layer. The one exception is meant: undo and redo.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app_model.types import KeyBinding, KeyCode, SimpleKeyBinding
from napari.layers import Labels, Points, Shapes
from napari.utils.key_bindings import coerce_keybinding

from napari_sac.core.errors import NapariSacError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Layer


class KeyTakenError(NapariSacError):
    """A key that cannot be bound: it is no key, or does something else already."""


@dataclass(frozen=True)
class Action:
    """Something that a key does.

    Parameters
    ----------
    name : str
        As Preferences know it, and as the method of the gestures is called.
    title : str
        For the table of keys.
    key : str
        By default.
    kinds : tuple of type
        Which of our layers it works in.
    """

    name: str
    title: str
    key: str
    kinds: tuple[type, ...] = (Points, Labels)


_EVERYWHERE = (Points, Labels, Shapes)

ACTIONS = (
    Action("accept", "Accept", "W"),
    Action("reject", "Reject", "Q"),
    Action("negate", 'Turn into "not this", or back', "N"),
    Action("accept_next", "Accept, and go to the next", "D"),
    Action("go_next", "Next in the review queue", "J"),
    Action("go_previous", "Previous in the review queue", "K"),
    Action("merge", "Merge the selected nuclei", "G"),
    Action("split", "Make each point a nucleus", "Shift+G"),
    Action("redraw", "Let the model draw it again", "R"),
    Action("undo", "Undo", "Ctrl+Z", _EVERYWHERE),
    Action("redo", "Redo", "Ctrl+Shift+Z", _EVERYWHERE),
)

DEFAULTS = {action.name: action.key for action in ACTIONS}


def check_keys(keys: Mapping[str, str]) -> dict[str, KeyBinding | None]:
    """Return the key of every action; the default where ``keys`` has none.

    Parameters
    ----------
    keys : mapping of str to str
        By name of the action: "W", "Shift+G", "Ctrl+Z"; empty for no key. On a Mac,
        Ctrl is read as Cmd.

    Raises
    ------
    KeyTakenError
        If a text is no key, a name no action, or two actions in one layer have one key.
    """
    unknown = sorted(set(keys) - set(DEFAULTS))
    if unknown:
        raise KeyTakenError(
            f"There is nothing called {', '.join(unknown)} to bind a key to. "
            "The keys were left as they are."
        )
    bound: dict[str, KeyBinding | None] = {}
    for action in ACTIONS:
        text = keys.get(action.name, action.key).strip()
        binding = _parse(text, action) if text else None
        for other in ACTIONS:
            same = binding is not None and bound.get(other.name) == binding
            if same and set(other.kinds) & set(action.kinds):
                raise KeyTakenError(
                    f"{text} is the key of two things: {other.title}, and "
                    f"{action.title}. The keys were left as they are; choose another."
                )
        bound[action.name] = binding
    return bound


def rebind(
    layer: Layer,
    before: Mapping[str, KeyBinding | None],
    after: Mapping[str, KeyBinding | None],
    functions: Mapping[str, Callable[[Layer], None]],
) -> None:
    """Give a layer of ours its keys.

    Parameters
    ----------
    layer : Layer
    before, after : mapping of str to KeyBinding or None
        The keys that the layer has, and those it gets, by name of the action.
    functions : mapping of str to callable
        What each action does; given the layer.
    """
    mine = [action for action in ACTIONS if isinstance(layer, action.kinds)]
    for action in mine:
        old = before.get(action.name)
        if old is not None and old in layer.keymap:
            layer.bind_key(old, None)
    for action in mine:
        new = after[action.name]
        if new is not None:
            layer.bind_key(new, functions[action.name], overwrite=True)


def _parse(text: str, action: Action) -> KeyBinding:
    try:
        binding: KeyBinding = coerce_keybinding(text)
    except (ValueError, KeyError, TypeError) as error:
        raise _no_key(text, action) from error
    # what is not a key at all is read as an unknown one
    if any(part.key == KeyCode.UNKNOWN for part in binding.parts):
        raise _no_key(text, action)
    # "Ctrl" is the key of commands, as for Qt and in napari's own shortcuts
    has_command = any(part.meta for part in binding.parts)
    return binding if has_command or not _is_mac() else _swapped(binding)


def key_text(binding: KeyBinding | None) -> str:
    """Return a key as it is written: empty for none, with Cmd on a Mac."""
    text = "" if binding is None else str(binding)
    return text.replace("Meta+", "Cmd+") if _is_mac() else text


def _is_mac() -> bool:
    return sys.platform == "darwin"


def _swapped(binding: KeyBinding) -> KeyBinding:
    parts = [
        SimpleKeyBinding(
            ctrl=part.meta,
            shift=part.shift,
            alt=part.alt,
            meta=part.ctrl,
            key=part.key,
        )
        for part in binding.parts
    ]
    return KeyBinding(parts=parts)


def _no_key(text: str, action: Action) -> KeyTakenError:
    return KeyTakenError(
        f"{text!r} is not a key that napari knows, so {action.title!r} was left as it "
        "is. Write a letter, or a combination like Shift+G or Ctrl+Z."
    )
