"""Public archives: downloaded with a known hash, unpacked with distrust.

A file is at its place only when it is whole: what fails or is cancelled leaves nothing.
"""

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import pooch

from napari_sac.core.errors import DownloadError, OutputError
from napari_sac.core.io import cache_folder
from napari_sac.core.progress import Progress, ignore_progress

MAX_MEMBERS = 200_000
MAX_BYTES = 8 * 1024**3

_CHUNK_BYTES = 1 << 20
# Seconds without a byte from the server.
_TIMEOUT = 30


@dataclass(frozen=True)
class RemoteArchive:
    """A zip file on the web.

    Parameters
    ----------
    title : str
        What it is called in the middle of a sentence.
    file_name : str
        Its name on disk.
    url : str
        Where it is downloaded from.
    sha256 : str
        Hash of the file, 64 hexadecimal digits.
    homepage : str
        Where a person finds it.
    licence : str
        Of the data in it.
    """

    title: str
    file_name: str
    url: str
    sha256: str
    homepage: str
    licence: str


def dataset_cache() -> Path:
    """Return the folder of this user where downloaded collections are kept."""
    return cache_folder() / "datasets"


def fetch_archive(
    archive: RemoteArchive,
    folder: str | Path,
    progress: Progress = ignore_progress,
) -> Path:
    """Return the path of the archive, downloaded to ``folder`` if it is not there yet.

    A file of that name that the user put there is taken if it has the right hash.

    Raises
    ------
    DownloadError
        If there is no network, the server refuses, or the file is not the expected
        one.
    OutputError
        If the folder cannot be written.
    """
    # Imported here, as pooch does, for it takes long and is needed only to download.
    from requests.exceptions import RequestException

    target = Path(folder) / archive.file_name
    by_hand = (
        f"Check the network and try again, or download it in a browser from "
        f"{archive.homepage} and save it as {target}."
    )
    bar = _DownloadProgress(progress, f"downloading {archive.title}")
    try:
        pooch.retrieve(
            url=archive.url,
            known_hash=f"sha256:{archive.sha256}",
            fname=archive.file_name,
            path=folder,
            downloader=pooch.HTTPDownloader(
                progressbar=bar, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT
            ),
        )
    except RequestException as error:
        raise DownloadError(
            f"Could not download {archive.title}: no network, or "
            f"{archive.url} does not answer ({type(error).__name__}). "
            f"Nothing was kept. {by_hand}"
        ) from error
    except ValueError as error:
        raise DownloadError(
            f"What came from {archive.url} is not {archive.title}: it does not have "
            f"the SHA-256 {archive.sha256}. It was deleted. {by_hand}"
        ) from error
    except OSError as error:
        raise OutputError(
            f"Could not save {archive.title} as {target} "
            f"({error.strerror or error}). Free some space or choose another folder."
        ) from error
    return target


def extract_archive(
    archive: Path,
    folder: Path,
    wanted: Callable[[PurePosixPath], bool],
    progress: Progress = ignore_progress,
) -> None:
    """Unpack the wanted files of a zip archive as ``folder``, all or nothing.

    Parameters
    ----------
    archive : Path
        A zip file.
    folder : Path
        Made by this call, and not before every file is in it.
    wanted : callable
        Chooses files by their path in the archive.
    progress : Progress, optional
        Called for each file.

    Raises
    ------
    DownloadError
        If the archive is damaged, too large, has none of the wanted files, or a name
        that leads out of the folder.
    OutputError
        If the files cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            members = _checked(content, archive)
            chosen = [m for m in members if wanted(PurePosixPath(m.filename))]
            if not chosen:
                raise _refused(archive, "it has none of the files looked for")
            _extract(content, chosen, folder, progress)
    # RuntimeError: a password, or a method that zipfile does not know. ValueError: a
    # name that is no text.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _refused(archive, f"it is damaged ({error})") from error
    except OSError as error:
        raise OutputError(
            f"{archive.name} could not be unpacked to {folder} "
            f"({error.strerror or error}). Nothing was kept there; free some space or "
            "choose another folder."
        ) from error


def _checked(content: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """Return the files of an archive, after looking at all that it announces."""
    members = content.infolist()
    if len(members) > MAX_MEMBERS:
        raise _refused(archive, f"it has {len(members)} files")
    size = sum(m.file_size for m in members)
    if size > MAX_BYTES:
        raise _refused(archive, f"it would unpack to {size} bytes")
    for member in members:
        # The stricter of the two kinds of path, whatever machine this is.
        path = PureWindowsPath(member.filename)
        if path.anchor or ".." in path.parts:
            raise _refused(archive, f"{member.filename!r} leads out of the folder")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise _refused(archive, f"{member.filename!r} is a link")
    return [m for m in members if not m.is_dir()]


def _extract(
    content: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    folder: Path,
    progress: Progress,
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as holder:
        partial = Path(holder) / "content"
        for i, member in enumerate(members, start=1):
            target = partial / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            # zipfile stops reading at the size that the member announced.
            with content.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, _CHUNK_BYTES)
            progress("unpacking", i, len(members))
        try:
            os.replace(partial, folder)
        except OSError:
            # another program has unpacked it meanwhile
            if not folder.is_dir():
                raise


def _refused(archive: Path, why: str) -> DownloadError:
    return DownloadError(
        f"{archive} was not unpacked: {why}. Nothing was kept. "
        "Delete the file and download it again."
    )


class _DownloadProgress:
    """What pooch drives as a progress bar; passes it on, and lets Cancelled through."""

    def __init__(self, progress: Progress, stage: str) -> None:
        self.total = 0
        self._done = 0
        self._progress = progress
        self._stage = stage

    def update(self, n: int) -> None:
        self._done += n
        # A server need not say how much there is to come.
        self._progress(self._stage, self._done, max(self.total, self._done))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Do nothing: there is nothing open."""
