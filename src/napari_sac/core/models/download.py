"""Fetch a weight file: checked by its hash, atomic, and going on where it stopped."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pooch
import requests
from filelock import FileLock, Timeout

from napari_sac.core.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_sac.core.progress import Progress

_CHUNK_BYTES = 1 << 18
_SPARE_BYTES = 64 << 20
_CONNECT_SECONDS = 15
_READ_SECONDS = 60
_WAIT_SECONDS = 0.2


def download_file(
    url: str, path: Path, *, sha256: str, size_bytes: int, progress: Progress
) -> None:
    """Download ``url`` to ``path`` unless it is there with the right hash.

    What came before a failure or a Cancel stays beside ``path`` as ``NAME.part``, and
    the next call goes on from there if the server can.

    Parameters
    ----------
    url : str
    path : Path
        Where the file appears once it is whole; folders are made.
    sha256 : str
        Of the whole file, in hexadecimal digits.
    size_bytes : int
        Of the whole file.
    progress : Progress
        Called with kibibytes done and in all: bytes would not fit into the 32 bits
        that some progress bars have.

    Raises
    ------
    DownloadError
        If the server cannot be reached, stops early, or has another file, or if the
        disk is full.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # our own progress tells the user; pooch's log would be a second voice
        pooch.get_logger().setLevel("WARNING")
        with _alone_at(part, progress):
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}",
                fname=path.name,
                path=path.parent,
                downloader=_resuming_downloader(part, size_bytes, progress),
            )
    except requests.RequestException as error:
        raise DownloadError(
            f"{path.name} could not be downloaded from {url} ({_reason(error)}). "
            f"{_kept(part)}Check the network and try again."
        ) from error
    except ValueError as error:
        part.unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name} came from {url} with other bytes than expected, and was "
            "deleted. A proxy or a login page may stand between; try again, or get the "
            "file another way and import it."
        ) from error
    except OSError as error:
        raise DownloadError(
            f"{path.name} could not be saved in {path.parent} "
            f"({error.strerror or error}). {_kept(part)}Free some space there or set "
            "NAPARI_SAC_HOME to another folder."
        ) from error


@contextmanager
def _alone_at(part: Path, progress: Progress) -> Iterator[None]:
    """Wait until no other program writes to ``part``.

    Two that append to one file would spoil it for both. Whoever waited finds the whole
    file, or goes on with what the other left.
    """
    # it stays: to delete a lock while another waits for it would let two in
    lock = FileLock(part.with_name(f".{part.stem}.lock"))
    while True:
        try:
            lock.acquire(timeout=_WAIT_SECONDS)
        except Timeout:
            progress(f"waiting for another download of {part.stem}", 0, 0)
        else:
            break
    try:
        yield
    finally:
        lock.release()


def _check_space(part: Path, size_bytes: int) -> None:
    folder = part.parent
    came = part.stat().st_size if part.exists() else 0
    needed = size_bytes - came + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"The download needs {needed >> 20} MB and {folder} has {free >> 20} MB "
            "left. Nothing was downloaded; free some space there or set "
            "NAPARI_SAC_HOME to another folder."
        )


def _resuming_downloader(
    part: Path, size_bytes: int, progress: Progress
) -> Callable[[str, str, object], None]:
    """Return what pooch calls to bring ``url`` to a temporary file of its own."""
    stage = f"downloading {part.stem}"

    def report(done: int) -> None:
        if done > size_bytes:
            raise ValueError(f"more than the {size_bytes} bytes expected")
        progress(stage, done >> 10, size_bytes >> 10)

    def download(url: str, temporary: str, _: object) -> None:
        _check_space(part, size_bytes)
        if part.exists() and part.stat().st_size > size_bytes:
            part.unlink()
        start = part.stat().st_size if part.exists() else 0
        report(start)
        if start < size_bytes:
            _receive(url, part, start, size_bytes, report)
        if part.stat().st_size < size_bytes:
            raise requests.exceptions.ChunkedEncodingError("ended early")
        os.replace(part, temporary)

    return download


class _OtherFile(requests.RequestException):
    """What the server is about to send cannot be the file."""


def _receive(
    url: str, part: Path, start: int, size_bytes: int, report: Callable[[int], None]
) -> None:
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    timeout = (_CONNECT_SECONDS, _READ_SECONDS)
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if response.status_code == requests.codes.range_not_satisfiable:
            part.unlink()
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        done = start if resumed else 0
        told = response.headers.get("Content-Length", "")
        packed = "Content-Encoding" in response.headers
        other_size = told.isdecimal() and done + int(told) != size_bytes
        page = "html" in response.headers.get("Content-Type", "").lower()
        if page or (other_size and not packed):
            # before it takes the place of what came, or gigabytes are added to it
            raise _OtherFile
        with part.open("ab" if resumed else "wb") as file:
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                report(done)


def _kept(part: Path) -> str:
    if not part.exists():
        return ""
    return f"The {part.stat().st_size >> 20} MB that came are kept. "


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, _OtherFile):
        return (
            "the server sends something else; a proxy or a login page may stand between"
        )
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    return "no connection to the server"
