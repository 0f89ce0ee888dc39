"""Downloads are checked, atomic, and go on where they stopped."""

import hashlib
import random
import shutil
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from filelock import FileLock

from napari_sac.core.errors import Cancelled, DownloadError
from napari_sac.core.models.download import download_file
from napari_sac.core.progress import ignore_progress

CONTENT = random.Random(0).randbytes(1_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A web server on this computer that fails as it is told to."""

    def __init__(self):
        self.content = CONTENT
        self.status = None
        self.cut_after = None
        self.ranges = True
        self.tells_length = True
        self.kind = "application/octet-stream"
        self.asked = []
        self.sent = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.pth"

    def answer(self, request):
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        if self.status is not None:
            request.send_error(self.status)
            return
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", self.kind)
        body = self.content[start:]
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        body = body[: self.cut_after]
        request.wfile.write(body)
        self.sent += len(body)

    def close(self):
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = Server()
    yield running
    running.close()


def fetch(server, path, progress=ignore_progress, **values):
    options = {"sha256": SHA256, "size_bytes": len(CONTENT)} | values
    download_file(server.url, path, progress=progress, **options)


def names(folder):
    """Return the files in a folder, without the hidden lock."""
    return [p.name for p in folder.iterdir() if not p.name.startswith(".")]


def test_file_arrives_whole_with_progress(server, tmp_path):
    path = tmp_path / "models" / "weights.pth"
    reports = []
    fetch(server, path, lambda *report: reports.append(report))
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["weights.pth"]
    total = len(CONTENT) >> 10
    assert reports[0] == ("downloading weights.pth", 0, total)
    assert reports[-1] == ("downloading weights.pth", total, total)
    assert len(reports) > 4
    fetch(server, path)
    assert len(server.asked) == 1


def test_broken_connection_goes_on_where_it_stopped(server, tmp_path):
    path = tmp_path / "weights.pth"
    server.cut_after = 700_000
    with pytest.raises(DownloadError, match="MB that came are kept"):
        fetch(server, path)
    assert not path.exists()
    came = (tmp_path / "weights.pth.part").stat().st_size
    assert came > 400_000
    server.cut_after = None
    fetch(server, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={came}-"]
    assert names(tmp_path) == ["weights.pth"]


def test_server_that_cannot_go_on_starts_again(server, tmp_path):
    path = tmp_path / "weights.pth"
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:1000])
    server.ranges = False
    fetch(server, path)
    assert path.read_bytes() == CONTENT


def test_early_end_without_a_length_is_noticed(server, tmp_path):
    server.tells_length = False
    server.cut_after = 900_000
    with pytest.raises(DownloadError, match="the connection broke"):
        fetch(server, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth.part").stat().st_size == 900_000


def test_whole_part_needs_no_network(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    fetch(server, tmp_path / "weights.pth")
    assert server.asked == []
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_other_bytes_leave_nothing_behind(server, tmp_path):
    server.content = CONTENT[::-1]
    with pytest.raises(DownloadError, match="other bytes than expected"):
        fetch(server, tmp_path / "weights.pth")
    assert names(tmp_path) == []


@pytest.mark.parametrize("wrong", [b"<html>Log in</html>", CONTENT * 2])
@pytest.mark.parametrize("ranges", [True, False])
def test_something_of_another_size_leaves_what_came(server, tmp_path, wrong, ranges):
    part = tmp_path / "weights.pth.part"
    part.write_bytes(CONTENT[:10])
    content, server.content, server.ranges = server.content, wrong, ranges
    with pytest.raises(DownloadError, match="login page may stand between"):
        fetch(server, tmp_path / "weights.pth")
    assert part.read_bytes() == CONTENT[:10]
    server.content, server.ranges = content, True
    fetch(server, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_page_of_unknown_length_leaves_what_came(server, tmp_path):
    part = tmp_path / "weights.pth.part"
    part.write_bytes(CONTENT[:10])
    server.content, server.ranges, server.tells_length = b"<html>", False, False
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="login page may stand between"):
        fetch(server, tmp_path / "weights.pth")
    assert part.read_bytes() == CONTENT[:10]


def test_wrong_part_does_not_stay_in_the_way(server, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(bytes(1000))
    with pytest.raises(DownloadError, match="other bytes"):
        fetch(server, tmp_path / "weights.pth")
    fetch(server, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"half")
    fetch(server, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 416, 500])
def test_refusal_is_told(server, tmp_path, status):
    server.status = status
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match=f"the server answered {status}"):
        fetch(server, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth.part").exists() == (status != 416)


def test_no_network_is_told(server, tmp_path):
    server.url = "http://127.0.0.1:1/weights.pth"
    with pytest.raises(DownloadError, match=r"no connection.*Check the network"):
        fetch(server, tmp_path / "weights.pth")
    assert names(tmp_path) == []


def test_cancel_keeps_what_came(server, tmp_path):
    def cancel(stage, done, total):
        if done > 300:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(server, tmp_path / "weights.pth", cancel)
    assert names(tmp_path) == ["weights.pth.part"]
    fetch(server, tmp_path / "weights.pth")
    assert server.asked[1].startswith("bytes=")


def test_full_disk_is_told_before(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1 << 20))
    with pytest.raises(DownloadError, match=r"has 1 MB left.*NAPARI_SAC_HOME"):
        fetch(server, tmp_path / "weights.pth")
    assert server.asked == []


def test_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="could not be saved"):
        fetch(server, tmp_path / "file" / "weights.pth")


def test_two_at_once_do_not_spoil_each_other(server, tmp_path):
    path = tmp_path / "weights.pth"
    stages = []
    first = FileLock(tmp_path / ".weights.pth.lock")
    first.acquire()

    def progress(stage, *_):
        stages.append(stage)
        if first.is_locked and len(stages) > 1:
            assert server.asked == []
            first.release()

    fetch(server, path, progress)
    assert stages[0] == "waiting for another download of weights.pth"
    assert path.read_bytes() == CONTENT


def test_waiting_for_another_download_can_be_cancelled(server, tmp_path):
    def cancel(*_):
        raise Cancelled("enough")

    with FileLock(tmp_path / ".weights.pth.lock"), pytest.raises(Cancelled):
        fetch(server, tmp_path / "weights.pth", cancel)
    assert server.asked == []
