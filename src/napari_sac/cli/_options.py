"""Flags that several commands have."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sac.core.config import STAINS

if TYPE_CHECKING:
    from collections.abc import Callable

    # What add_subparsers returns; the class has no public name.
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_option(
    parser: argparse.ArgumentParser, flag: str, kind: type[Any], name: str
) -> None:
    """Add a flag with the default, the range and the words of a config's field."""
    field = next(f for f in dataclasses.fields(kind) if f.name == name)
    choices = field.metadata.get("choices")
    words = f"{field.metadata['tooltip']} Default: {field.default}."
    parser.add_argument(
        flag,
        dest=name,
        default=field.default,
        choices=choices,
        type=str if choices else _checked(kind, name, type(field.default)),
        metavar=None if choices else field.metadata["label"].upper().replace(" ", "_"),
        help=words.replace("%", "%%"),
    )


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add what of an image's pixels is looked at: channels, or a stain."""
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--channels",
        type=_channels,
        metavar="N[,N]",
        help="the channels, counted from 0, that show nuclei; by default all of grey "
        "and colour images",
    )
    shown.add_argument(
        "--stain",
        choices=STAINS,
        help="look at this stain of tissue alone, such as the blue beside a brown one",
    )


def adapter_or_folder(text: str) -> str | Path:
    """Return the name of an adapter as text, or its folder as a path."""
    from napari_sac.core.errors import NapariSacError
    from napari_sac.core.models.adapter import INFO_FILE, find_adapter

    folder = Path(text)
    # pathlib raises where one may not look
    if not os.path.isfile(folder / INFO_FILE):
        return text
    try:
        named = find_adapter(text).path.resolve()
    except NapariSacError:
        return folder
    if named != folder.resolve():
        raise argparse.ArgumentTypeError(
            f"{text} is the name of the adapter at {named} and a folder here with "
            f"another. Write {folder.resolve()} for that folder, or go elsewhere for "
            "the other"
        )
    return folder


def _checked(kind: type[Any], name: str, convert: type[Any]) -> Callable[[str], Any]:
    """Return a parser of one field's values, which the config itself checks."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
            kind(**{name: value})
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return parse


def _channels(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0 or 0,2")
    return [int(part) for part in parts]
