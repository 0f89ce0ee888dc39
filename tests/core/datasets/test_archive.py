"""Downloads that are whole or not there, and archives that mean harm."""

import dataclasses
import io
import os
import stat
import struct
import zipfile

import pytest

from napari_sac.core.datasets import archive as archives
from napari_sac.core.datasets.archive import extract_archive, fetch_archive
from napari_sac.core.errors import Cancelled, DownloadError, OutputError


def _zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in files.items():
            content.writestr(name, data)
    return buffer.getvalue()


def _everything(_):
    return True


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks bytes and returns the folder."""

    def run(content, wanted=_everything, **options):
        path = tmp_path / "given.zip"
        path.write_bytes(content)
        extract_archive(path, tmp_path / "out" / "content", wanted, **options)
        return tmp_path / "out" / "content"

    yield run
    assert not list(tmp_path.rglob(".unpack-*"))


def test_download_keeps_the_file_and_reports_bytes(serve, tmp_path):
    content = os.urandom(3 << 20)
    calls = []

    path = fetch_archive(serve(content), tmp_path / "cache", lambda *c: calls.append(c))

    assert path == tmp_path / "cache" / "kept.zip"
    assert path.read_bytes() == content
    assert calls[-1] == ("downloading the test images", len(content), len(content))
    assert len(calls) > 2


def test_a_file_that_is_there_is_not_downloaded_again(serve, tmp_path):
    archive = serve(b"content")
    fetch_archive(archive, tmp_path)
    gone = dataclasses.replace(archive, url="http://127.0.0.1:9/data.zip")

    assert fetch_archive(gone, tmp_path).read_bytes() == b"content"


def test_no_network_says_so_and_how_to_go_on(tmp_path, serve):
    offline = dataclasses.replace(serve(b""), url="http://127.0.0.1:9/data.zip")

    with pytest.raises(DownloadError) as error:
        fetch_archive(offline, tmp_path / "cache")

    message = str(error.value)
    assert "no network" in message
    assert "https://example.org/data" in message
    assert str(tmp_path / "cache" / "kept.zip") in message
    assert not list((tmp_path / "cache").iterdir())


def test_a_page_that_is_not_there_is_a_download_error(serve, tmp_path):
    archive = serve(b"content")
    missing = dataclasses.replace(archive, url=archive.url + ".old")

    with pytest.raises(DownloadError, match="does not answer"):
        fetch_archive(missing, tmp_path)


def test_a_wrong_file_is_deleted(serve, tmp_path):
    with pytest.raises(DownloadError, match="does not have the SHA-256"):
        fetch_archive(serve(b"<html>virus scan</html>", "0" * 64), tmp_path / "cache")

    assert not list((tmp_path / "cache").iterdir())


def test_cancelling_a_download_leaves_nothing(serve, tmp_path):
    def cancel(*_):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fetch_archive(serve(os.urandom(3 << 20)), tmp_path / "cache", cancel)

    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_that_cannot_be_written_is_an_output_error(serve, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputError, match="Could not save the test images"):
        fetch_archive(serve(b"content"), tmp_path / "file" / "cache")


def test_unpacking_takes_what_is_wanted(unpack):
    folder = unpack(
        _zip({"a/": "", "a/b.txt": "one", "a/c.png": "two"}),
        lambda path: path.suffix == ".txt",
    )

    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*.*")] == [
        "a/b.txt"
    ]
    assert (folder / "a" / "b.txt").read_text() == "one"


@pytest.mark.parametrize(
    "name",
    ["../out.txt", "a/../../out.txt", "/out.txt", "C:/out.txt", "a\\..\\..\\out.txt"],
)
def test_a_name_that_leads_out_refuses_the_whole_archive(unpack, tmp_path, name):
    with pytest.raises(DownloadError, match="leads out of the folder"):
        unpack(_zip({"good.txt": "x", name: "y"}))

    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("out.txt"))


def test_a_link_refuses_the_whole_archive(unpack):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16

    with pytest.raises(DownloadError, match="is a link"):
        unpack(_zip({link: "/etc/passwd"}))


def test_too_many_or_too_large_files_are_not_begun(unpack, monkeypatch):
    bomb = _zip({"zeros": bytes(1 << 20)})
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 19)
    with pytest.raises(DownloadError, match="would unpack to 1048576 bytes"):
        unpack(bomb)

    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    with pytest.raises(DownloadError, match="has 3 files"):
        unpack(_zip({"a": "", "b": "", "c": ""}))


def test_a_size_that_lies_does_not_fill_the_disk(unpack, tmp_path):
    # The directory announces 10 bytes of a member that holds a million.
    content = bytearray(_zip({"zeros": bytes(1 << 20)}))
    entry = content.rindex(b"PK\x01\x02")
    struct.pack_into("<I", content, entry + 24, 10)

    with pytest.raises(DownloadError, match="damaged"):
        unpack(bytes(content))

    assert not (tmp_path / "out" / "content").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: b"",
        lambda c: b"<html>",
        lambda c: c[: len(c) // 2],
        lambda c: c.replace(b"needle", b"poison"),
    ],
    ids=["empty", "a page", "truncated", "changed"],
)
def test_a_damaged_archive_leaves_nothing(unpack, tmp_path, spoil):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        content.writestr("a.txt", "the needle in the hay")

    with pytest.raises(DownloadError, match="damaged"):
        unpack(spoil(buffer.getvalue()))

    assert not (tmp_path / "out" / "content").exists()


def test_an_archive_behind_a_password_is_refused(unpack):
    content = bytearray(_zip({"a.txt": "x"}))
    struct.pack_into("<H", content, content.rindex(b"PK\x01\x02") + 8, 1)
    struct.pack_into("<H", content, content.index(b"PK\x03\x04") + 6, 1)

    with pytest.raises(DownloadError, match="damaged"):
        unpack(bytes(content))


def test_an_archive_of_something_else_is_refused(unpack):
    with pytest.raises(DownloadError, match="none of the files"):
        unpack(_zip({"a.txt": "x"}), lambda path: path.suffix == ".png")


def test_cancelling_leaves_no_folder(unpack, tmp_path):
    def cancel(*_):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        unpack(_zip({"a": "x", "b": "y"}), progress=cancel)

    assert not (tmp_path / "out" / "content").exists()


def test_a_folder_that_cannot_be_made_is_an_output_error(unpack, tmp_path):
    (tmp_path / "out").write_text("a file is in the way")

    with pytest.raises(OutputError, match="could not be unpacked"):
        unpack(_zip({"a": "x"}))


def test_another_program_may_have_unpacked_it_meanwhile(unpack, tmp_path):
    def other(stage, done, total):
        folder = tmp_path / "out" / "content"
        folder.mkdir(exist_ok=True)
        (folder / "a.txt").write_text("theirs")

    folder = unpack(_zip({"a.txt": "a"}), progress=other)
    assert (folder / "a.txt").read_text() == "theirs"
    assert [p.name for p in folder.parent.iterdir()] == ["content"]
