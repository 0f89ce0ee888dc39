"""What lies where in a session folder, and what is refused before it is opened.

``NAME.sac/`` holds ``session.json``, ``journal.sqlite``, ``labels-N.zarr/``,
``image-N.tif`` and ``lock``. Names are made from numbers, never read from a file.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sac.core.errors import SessionError
from napari_sac.core.folders import rename, sync_folder
from napari_sac.core.progress import ignore_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sac.core.progress import Progress

SUFFIX = ".sac"
FORMAT = "napari-sac session"
FORMAT_VERSION = 1

MAX_ANNOTATIONS = 10_000

HEADER = "session.json"
JOURNAL = "journal.sqlite"
LOCK = "lock"

_MAX_HEADER_BYTES = 1 << 20
_MAX_FILES = 2_000 * MAX_ANNOTATIONS
"""The labels of one image of 20,000 x 20,000 pixels are 1,600 files."""

_PACKAGES = ("napari-sac", "napari", "numpy", "torch")


def labels_path(folder: Path, annotation: int) -> Path:
    """Return where the labels of an annotation are."""
    return folder / f"labels-{annotation}.zarr"


def image_path(folder: Path, annotation: int) -> Path:
    """Return where the pixels of an image without a file are."""
    return folder / f"image-{annotation}.tif"


def is_session(path: str | Path) -> bool:
    """Return whether a folder looks like a session; reads next to nothing."""
    return all(os.path.isfile(Path(path) / name) for name in (HEADER, JOURNAL))


def make_header() -> str:
    """Return the text of ``session.json``."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
    }
    return json.dumps(header, indent=2) + "\n"


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not safe to open as a session.

    Raises
    ------
    SessionError
        If the folder is no session, is from a newer version, or has a link or
        something else in it that is neither file nor folder: what is written there
        would land elsewhere.
    """
    # pathlib raises where one may not look
    if not os.path.isdir(folder):
        raise SessionError(
            f"{folder} is not there, or no folder. Nothing was changed; choose a "
            f"session, a folder whose name ends in {SUFFIX}."
        )
    if not is_session(folder):
        raise SessionError(
            f"{folder} is not a session, or a damaged one: it needs {HEADER} and "
            f"{JOURNAL}. Nothing was changed; choose another folder."
        )
    _check_header(folder)
    try:
        _check_entries(folder)
    except OSError as error:
        raise SessionError(
            f"{folder} cannot be read ({error.strerror}). Nothing was changed; check "
            "that you may read all its files."
        ) from error


def read_plain(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file; ``ValueError`` if it has more than limit."""
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError(f"{path.name} is no file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path.name} is larger than {limit:,} bytes")
    return data


def copy_file(source: Path, target: Path) -> None:
    """Copy a file so that the copy is whole, also after a loss of power.

    Where it fails, the file that was there is kept.
    """
    partial = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(source, partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        rename(partial, target)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def copy_files(
    files: Sequence[Path],
    source: Path,
    target: Path,
    progress: Progress = ignore_progress,
) -> None:
    """Copy files of a folder to another one, so that they outlive a loss of power.

    Chunks of labels, whose names have no ending, may have been taken away since they
    were listed.
    """
    folders = {target}
    for done, file in enumerate(files):
        progress("copying the session", done, len(files))
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        folders.update(p for p in copy.parents if p.is_relative_to(target))
        try:
            copy_file(file, copy)
        except FileNotFoundError:
            if file.suffix or file.exists():
                raise
    for folder in folders:
        sync_folder(folder)


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that after a kill it is the old one or the new one."""
    partial = path.with_name(f"{path.name}.part")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    rename(partial, path)


def _check_header(folder: Path) -> None:
    try:
        header = json.loads(read_plain(folder / HEADER, _MAX_HEADER_BYTES))
        if not isinstance(header, dict) or header["format"] != FORMAT:
            raise ValueError("it is something else")
        number = header["version"]
        if not isinstance(number, int) or number < 1:
            raise ValueError("it has no version")
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise SessionError(
            f"The session {folder} is damaged: {HEADER} cannot be read ({error}). "
            "Nothing was changed; open a copy of the session, if there is one."
        ) from error
    if number > FORMAT_VERSION:
        versions = header.get("versions")
        writer = versions.get("napari-sac") if isinstance(versions, dict) else None
        raise SessionError(
            f"The session {folder} was written by a newer napari-sac "
            f"({str(writer)[:40]}, format {number}). Nothing was changed; update "
            "napari-sac to open it."
        )


def _check_entries(folder: Path) -> None:
    count = 0
    for path, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(path, name)).st_mode
            if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                raise SessionError(
                    f"The session {folder} was not opened: {name[:80]!r} in it is a "
                    "link or no file. Replace it by the file it stands for."
                )
        count += len(files)
        if count > _MAX_FILES:
            raise SessionError(
                f"The session {folder} was not opened: it has more than "
                f"{_MAX_FILES:,} files, which no session has."
            )


def _raise(error: OSError) -> None:
    raise error
