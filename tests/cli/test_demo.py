"""The demo in a process of its own, as a person starts it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from napari_sac.cli import demo
from napari_sac.cli.main import main
from napari_sac.core.errors import NapariSacError, OutputError
from napari_sac.core.io import read_labels, read_prompts
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "import sys; from napari_sac.cli.main import main; sys.exit(main(sys.argv[1:]))"


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, "demo", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


@pytest.mark.gui
@pytest.mark.skipif(sys.platform != "linux", reason="Xvfb is for Linux")
@pytest.mark.timeout(1200)
def test_headless_it_leaves_what_it_did(tmp_path: Path) -> None:
    # in a fresh process torch is imported after the window has loaded Mesa, which
    # crashes if it is done carelessly
    result = start("--headless", "--output", str(tmp_path / "new" / "folder"))
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "new" / "folder"
    assert {p.name for p in folder.iterdir()} == {
        "screenshot.png",
        "labels.tif",
        "prompts.csv",
        "demo.sac",
        "summary.json",
    }
    summary = json.loads((folder / "summary.json").read_text())
    labels = read_labels(folder / "labels.tif")
    prompts = read_prompts(folder / "prompts.csv")
    assert labels.shape == (512, 512)
    assert summary["nuclei"] == len(np.unique(labels)) - 1 > 20
    assert summary["points"] == len(prompts)
    assert list(prompts.state).count("added") == 1
    assert 1 <= summary["recomputed_after_the_click"] < summary["nuclei"]
    assert set(summary["seconds"]) >= {"proposals", "embedding", "decoding", "click"}
    assert summary["device"]["reason"]
    assert (summary["model"], summary["adapter"]) == ("sac_tiny", "ihc")
    assert summary["versions"]["napari"][0].isdigit()
    picture = np.asarray(Image.open(folder / "screenshot.png"))
    assert picture.shape[:2] == (900, 1400)
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 1000
    # the next demo may replace what this one has left
    demo._prepare(folder)
    for word in ("Xvfb", "Find nuclei", "Segment", "click", "Written to"):
        assert word in result.stdout
    assert main(["replay", str(folder / "demo.sac"), "--output", str(tmp_path)]) == 0
    (replayed,) = tmp_path.glob("*.tif")
    np.testing.assert_array_equal(read_labels(replayed), labels)


@pytest.mark.skipif(sys.platform != "linux", reason="Xvfb is for Linux")
def test_without_xvfb_it_names_the_package_in_one_line(tmp_path: Path) -> None:
    result = start("--headless", "--output", str(tmp_path), PATH=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "apt install xvfb" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="Xvfb is for Linux")
def test_an_xvfb_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "Xvfb"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    parser = ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    with pytest.raises(NapariSacError, match="did not start"):
        demo.run(parser.parse_args(["demo", "--headless"]))


def is_there(display: int) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(f"/tmp/.X11-unix/X{display}") == 0


@contextmanager
def program_with_display(code: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run code in a session of its own that prints the display it has begun."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        display = next(line for line in program.stdout if line.startswith(":"))
        yield program, int(display[1:])


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb")
@pytest.mark.parametrize("way", ["kill", "hangup of its terminal", "end"])
def test_its_display_ends_with_it(way: str) -> None:
    hold = (
        "import os; from napari_sac.cli.demo import _virtual_display\n"
        "with _virtual_display(): print(os.environ['DISPLAY'], flush=True); input()"
    )
    with program_with_display(hold) as (program, number):
        assert is_there(number)
        if way == "kill":
            program.kill()
        elif way == "hangup of its terminal":
            os.killpg(program.pid, signal.SIGHUP)
        else:
            program.communicate("\n")
            # it has waited for it
            assert not is_there(number)
    until = time.monotonic() + 30
    while is_there(number) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_there(number)


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb")
def test_ctrl_c_leaves_its_display_until_its_windows_are_closed() -> None:
    hold = (
        "import os, signal, time; from napari_sac.cli.demo import _virtual_display\n"
        # who runs the tests in the background ignores it
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with _virtual_display():\n"
        "    try: print(os.environ['DISPLAY'], flush=True); input()\n"
        "    except KeyboardInterrupt: print('closing', flush=True); input()"
    )
    with program_with_display(hold) as (program, number):
        os.killpg(program.pid, signal.SIGINT)
        assert program.stdout is not None
        assert next(program.stdout) == "closing\n"
        time.sleep(1)
        assert is_there(number)
        program.communicate("\n")
        assert not is_there(number)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have all of it")
def test_missing_system_libraries_are_one_line_before_qt_ends_the_program(
    tmp_path: Path,
) -> None:
    qtpy = tmp_path / "qtpy"
    qtpy.mkdir()
    (qtpy / "__init__.py").write_text(
        "raise ImportError('libEGL.so.1: cannot open shared object file')"
    )
    result = start(
        "--headless", "--output", str(tmp_path / "out"), PYTHONPATH=str(tmp_path)
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "libEGL.so.1: cannot open" in last
    assert "apt install xvfb" in last
    assert "libegl1" in last


def test_the_packages_of_a_window_are_the_same_everywhere() -> None:
    root = Path(__file__).parents[2]
    for file in ("Makefile", "docs/how-to/install.md"):
        text = (root / file).read_text()
        found = text[text.index("xvfb xauth") :].replace("\\", " ").split()
        wanted = demo.WINDOW_PACKAGES.split()
        assert found[: len(wanted)] == wanted, file


def test_the_nucleus_to_add_is_the_best_of_those_not_shown() -> None:
    shown = Prompts.from_points([(20.0, 20.0), (70.0, 70.0)])
    # the best lies beside a point that is there
    hidden = Prompts.from_points(
        [(24.0, 21.0), (50.0, 30.0), (80.0, 10.0)], score=np.array([0.5, 0.3, 0.4])
    )
    annotation = SimpleNamespace(prompts=shown, hidden=hidden, diameter=10.0)
    assert tuple(demo._place_to_add(annotation)) == (80.0, 10.0)
    for few in (hidden.select(np.array([0])), Prompts.empty()):
        annotation.hidden = few
        with pytest.raises(NapariSacError, match="none can be added"):
            demo._place_to_add(annotation)


def test_files_that_no_demo_has_left_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "labels.tif").write_bytes(b"a week of work")
    with pytest.raises(
        OutputError,
        match=r"labels\.tif already, and no summary\.json .*Nothing was written",
    ):
        demo._prepare(tmp_path)
    # that of another program gives no leave
    for other in ("{}", "[]", "no JSON", '{"image": "a", "nuclei": 3}'):
        (tmp_path / "summary.json").write_text(other)
        with pytest.raises(OutputError, match=r"labels\.tif already"):
            demo._prepare(tmp_path)
    (tmp_path / "labels.tif").unlink()
    with pytest.raises(OutputError, match=r"summary\.json already"):
        demo._prepare(tmp_path)
