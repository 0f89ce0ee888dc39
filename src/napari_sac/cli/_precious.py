"""Which files that a command would write over may be a person's work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.core.folders import identity_of
from napari_sac.core.names import LABELS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable


def find_precious(
    targets: Iterable[Path], given: Iterable[Path], mark: str
) -> tuple[Path, str] | None:
    """Return the first file that may be a person's work, and why; None without any.

    In a folder of their own the results of a command are replaced by newer ones. Beside
    what is read, files of these names are as likely what somebody drew or decided; and
    anywhere, labels that the command did not write may have been corrected.

    Parameters
    ----------
    targets : iterable of Path
        What would be written.
    given : iterable of Path
        What is read.
    mark : str
        What the labels of the command have in :func:`read_made_by`, and no others.
    """
    from napari_sac.core.io import read_made_by

    # a link lies in one folder, and what it leads to in another
    places = [place for path in given for place in (path, Path(os.path.realpath(path)))]
    folders = {identity_of(place.parent) for place in places} - {None}
    for target in targets:
        if not os.path.lexists(target):
            continue
        if identity_of(target.parent) in folders:
            return target, "beside what is given to read"
        if target.name.endswith(LABELS_FILE) and mark not in read_made_by(target):
            return target, "not written by this command: perhaps somebody corrected it"
    return None
