"""What an adapter, and those it was made from, have learned from."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING

from napari_sac.core.errors import NapariSacError
from napari_sac.core.models.adapter import find_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from napari_sac.core.models.adapter import AdapterInfo
    from napari_sac.core.training.training_set import ReviewedImage

_LARGEST_REPORT = 16 << 20
_GENERATIONS = 16


class Seen(StrEnum):
    """Whether an adapter has learned from the nuclei that it is measured by."""

    NO = "no"
    MAYBE = "maybe"
    YES = "yes"


def has_seen(adapter: AdapterInfo, reviewed: ReviewedImage) -> Seen:
    """Return whether an adapter, or one that it was made from, has learned from nuclei.

    It has if the hash of its data is that of these nuclei, or of the part of them that
    training would learn from. It may have if its report names the image.
    """
    # imported late: it takes long, which opening a dock need not
    from napari_sac.core.training.training_set import TrainingSet, split

    sets = (TrainingSet((reviewed,), (), "none"), split((reviewed,)))
    digests = {one.digest() for one in sets}
    maybe = False
    for ancestor in _lineage(adapter):
        if ancestor.data_sha256 in digests:
            return Seen.YES
        maybe |= reviewed.name in _training_names(ancestor.path)
    return Seen.MAYBE if maybe else Seen.NO


def _lineage(adapter: AdapterInfo) -> list[AdapterInfo]:
    """Return an adapter, and those it was made from as far as they are here."""
    found = [adapter]
    while found[-1].parent and len(found) < _GENERATIONS:
        try:
            found.append(find_adapter(found[-1].parent))
        except NapariSacError:
            break
    return found


def _training_names(folder: Path) -> list[str]:
    """Return the images that the report beside an adapter names, if there is one."""
    file = folder / "report.json"
    try:
        if file.stat().st_size > _LARGEST_REPORT:
            return []
        report = json.loads(file.read_text(encoding="utf-8"))
        return [str(name) for name in report["training_names"]]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return []
