"""``napari-sac evaluate``: flags, table, JSON."""

import argparse
import io
import json
import sys

import numpy as np
import pytest

from napari_sac.cli import evaluate
from napari_sac.cli.main import main
from napari_sac.core.errors import LabelFormatError, OutputError
from napari_sac.core.io import write_labels


def _run(*argv):
    parser = argparse.ArgumentParser()
    evaluate.add_parser(parser.add_subparsers(dest="command"))
    return evaluate.run(parser.parse_args(["evaluate", *map(str, argv)]))


@pytest.fixture
def folders(tmp_path):
    labels = np.array([[1, 1, 0, 2, 2]])
    write_labels(tmp_path / "prediction" / "cells_labels.tif", labels)
    write_labels(tmp_path / "truth" / "cells.tif", labels)
    return tmp_path / "prediction", tmp_path / "truth"


def test_prints_the_table(folders, capsys):
    assert _run("--prediction", folders[0], "--truth", folders[1]) == 0

    image, mean = capsys.readouterr().out.splitlines()[1:]
    assert image.split() == ["cells", *["1.000"] * 9]
    assert mean.startswith("mean of 1")


def test_who_looks_on_sees_how_far_it_is(folders, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _run("--prediction", folders[0], "--truth", folders[1])
    assert "evaluating 1/1" in capsys.readouterr().err


def test_writes_json_where_asked(folders, tmp_path, capsys):
    target = tmp_path / "scores.json"

    _run("--prediction", folders[0], "--truth", folders[1], "--json", target)

    assert json.loads(target.read_text())["mean"]["aji"] == 1
    assert "cells" in capsys.readouterr().out


def test_a_json_that_cannot_be_written_does_not_cost_the_scores(
    folders, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "scores.json"
    with pytest.raises(OutputError):
        _run("--prediction", folders[0], "--truth", folders[1], "--json", target)
    assert "mean of 1" in capsys.readouterr().out


def test_a_missing_folder_is_an_error_that_names_it(folders, tmp_path):
    with pytest.raises(LabelFormatError, match="nowhere is not there"):
        _run("--prediction", folders[0], "--truth", tmp_path / "nowhere")


@pytest.mark.parametrize("flags", [[], ["--truth", "x"], ["--prediction", "x"]])
def test_both_folders_are_required(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        _run(*flags)

    assert stopped.value.code == 2
    assert "required" in capsys.readouterr().err


def test_the_json_is_written_before_a_terminal_that_knows_few_letters(
    folders, tmp_path, monkeypatch
):
    for folder in folders:
        (file,) = folder.iterdir()
        file.rename(folder / "n核.tif")
    few = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr("sys.stdout", few)
    target = tmp_path / "scores.json"
    flags = ["--prediction", folders[0], "--truth", folders[1], "--json", target]
    assert main(["evaluate", *map(str, flags)]) == 0
    few.flush()
    assert b"n\\u6838" in few.buffer.getvalue()
    assert json.loads(target.read_text())["mean"]["aji"] == 1
