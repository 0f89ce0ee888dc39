"""A server of files on this machine, for downloads without a network."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from napari_sac.core.datasets.archive import RemoteArchive


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path):
    """Return a function that puts bytes on a server and returns the RemoteArchive."""
    root = tmp_path / "server"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def publish(content, sha256=None):
        (root / "data.zip").write_bytes(content)
        return RemoteArchive(
            title="the test images",
            file_name="kept.zip",
            url=f"http://127.0.0.1:{server.server_port}/data.zip",
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
            homepage="https://example.org/data",
            licence="CC0",
        )

    yield publish
    server.shutdown()
    thread.join()
    server.server_close()
