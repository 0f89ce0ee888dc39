"""``napari-sac finetune``: the adapter and its proof are there, errors are one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from synthetic import draw_nuclei

from napari_sac.cli.finetune import _tell
from napari_sac.cli.main import main
from napari_sac.core.errors import Cancelled
from napari_sac.core.inference.imports import prompts_from_labels
from napari_sac.core.models.adapter import find_adapter, read_adapter_info
from napari_sac.core.models.registry import get_spec
from napari_sac.core.session.image import ImageReference, hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.state import AnnotationState
from napari_sac.core.training.events import Working
from napari_sac.core.training.run import Outcome
from napari_sac.core.types import Prompts, PromptState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from napari_sac.core.training.run import Job


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three drawn images with their labels."""
    draw(tmp_path, range(3))
    return tmp_path


def draw(folder: Path, seeds: Iterable[int]) -> None:
    """Write an image and its labels for each seed."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for seed in seeds:
        drawn = draw_nuclei((120, 140), 8, 11, seed)
        Image.fromarray(drawn.image).save(folder / "images" / f"{seed}.png")
        labels = Image.fromarray(drawn.labels.astype(np.uint16))
        labels.save(folder / "labels" / f"{seed}.png")


def arguments(folder: Path, *more: object, output: str = "mine") -> list[str]:
    fixed = ["finetune", "--images", folder / "images", "--labels", folder / "labels"]
    fixed += ["--output", folder / output, "--device", "cpu", "--batch", "2"]
    return list(map(str, [*fixed, *more]))


def losses(folder: Path) -> list[float]:
    with (folder / "run" / "curve.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def test_quick_run_writes_adapter_and_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(folder, "--quick", "--epochs", 5, "--tissue", "drawn")) == 0
    out, err = capsys.readouterr()
    report = json.loads((folder / "mine" / "report.json").read_text())
    assert out.startswith("promoted" if report["promoted"] else "NOT promoted")
    assert out.count("\n") == 1
    validations = [line for line in err.splitlines() if line.startswith("step ")]
    assert validations[0].startswith("step 0: held out f1 ")
    assert len(validations) >= 2
    assert (folder / "mine" / "report.html").is_file()
    info = read_adapter_info(folder / "mine")
    assert info.licence == get_spec("sac_tiny").licence
    assert info.tissue == "drawn"
    images = folder / "images"
    result = ["--adapter", folder / "mine", "--output", folder / "out"]
    assert main(["segment", str(images), *map(str, result), "--device", "cpu"]) == 0
    assert main(arguments(folder, "--quick", "--epochs", 5)) == 1
    assert "--resume" in capsys.readouterr().err
    # a folder of an adapter, as the report suggests, and not a name
    on = ("--quick", "--epochs", 2, "--adapter", folder / "mine")
    assert main(arguments(folder, *on, output="second")) == 0
    assert read_adapter_info(folder / "second").parent == "mine"


def test_a_folder_to_validate_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw(folder / "val", (3, 4))
    quick = ("--quick", "--epochs", 5, "--val", folder / "val")
    assert main(arguments(folder, *quick)) == 0
    report = json.loads((folder / "mine" / "report.json").read_text())
    assert report["held_out"] == "folder"
    assert report["held_out_names"] == ["3", "4"]
    draw(folder / "same", (2, 3))
    assert main(arguments(folder, "--val", folder / "same", output="proof")) == 1
    assert "1 of the 2 images to validate on" in capsys.readouterr().err


def test_originals_that_prove_or_teach_already_are_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = []

    def note(job: Job, *_: object, **__: object) -> None:
        jobs.append(job)
        raise Cancelled("enough")

    monkeypatch.setattr("napari_sac.core.training.fine_tuning.finetune", note)
    draw(folder / "val", (3,))
    draw(folder / "original", (2, 3, 4))
    given = ("--val", folder / "val", "--original", folder / "original")
    assert main(arguments(folder, *given)) != 0
    assert [one.name for one in jobs[0].original] == ["4"]
    assert "2 of the 3 images of --original" in capsys.readouterr().err


def test_images_with_channels_to_choose_from_are_told_with_the_flag(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "images" / "0.png").unlink()
    two = np.zeros((2, 120, 140), np.uint16)
    tifffile.imwrite(folder / "images" / "0.tif", two, photometric="minisblack")
    assert main(arguments(folder)) == 1
    assert "--channels N[,N]" in capsys.readouterr().err


@pytest.mark.parametrize("promoted", [True, False])
def test_how_to_use_an_adapter_says_if_it_was_not_promoted(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    promoted: bool,
) -> None:
    report = {"promoted": promoted, "reason": "So it is."}
    monkeypatch.setattr(
        "napari_sac.core.training.fine_tuning.finetune",
        lambda *_, **__: Outcome(find_adapter("he"), report),
    )
    assert main(arguments(folder)) == 0
    told = capsys.readouterr().err
    assert "segment --adapter" in told
    assert ("The adapter (not promoted), report.html" in told) == (not promoted)


@pytest.fixture
def session(folder: Path) -> Path:
    """A session of the second image with all nuclei accepted."""
    drawn = draw_nuclei((120, 140), 8, 11, 1)
    prompts = prompts_from_labels(drawn.labels)
    accepted = np.full(len(prompts), PromptState.ACCEPTED.value)
    state = AnnotationState(
        replace(prompts, state=accepted),
        Prompts.empty(),
        drawn.labels.astype(np.uint32),
    )
    sha256 = hash_pixels(drawn.image)
    image = ImageReference(None, "in the session", sha256, drawn.labels.shape)
    journal = Journal.create(folder / "cells.sac")
    journal.add_annotation(image, state, drawn.image)
    journal.close(clean=True)
    return folder / "cells.sac"


def test_sessions_are_learned_from(folder: Path, session: Path) -> None:
    line = arguments(folder, "--quick", "--epochs", 5, "--session", session)
    alone = [line[0], *line[5:]]
    assert main(alone) == 0
    report = json.loads((folder / "mine" / "report.json").read_text())
    assert report["training_names"] == ["in the session"]
    assert report["held_out"] == "block"


def test_sessions_stand_beside_folders(
    folder: Path, session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []

    def note(job: Job, *_: object, **__: object) -> None:
        names.extend(one.name for one in (*job.data.training, *job.data.held_out))
        raise Cancelled("That was enough.")

    monkeypatch.setattr("napari_sac.core.training.fine_tuning.finetune", note)
    main(arguments(folder, "--session", session, session))
    # given twice, it is learned from once
    assert sorted(names) == ["0", "1", "2", "in the session"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--images", "a"], "--images and --labels together"),
        ([], "or --session"),
        (["--session", "a", "--prompts", "b"], "--prompts need --images"),
        (["--session", "a", "--stain", "haematoxylin"], "as they were segmented"),
        (["--session", "a", "--channels", "0"], "as they were segmented"),
    ],
)
def test_there_must_be_something_to_learn_from(
    line: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", *line, "--output", "nowhere"]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        (("--rank", "0"), 2, "at least 1"),
        (("--max-minutes", "-1"), 2, "at least 0"),
        (("--reviewed", "a", "--prompts", "b"), 2, "not both"),
        (("--val", "nowhere"), 1, "subfolders images and labels"),
        (("--adapter", "nowhere"), 1, "no adapter nowhere"),
        (("--model", "nothing"), 1, "no model nothing"),
    ],
)
def test_what_cannot_be_is_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    status: int,
    words: str,
) -> None:
    try:
        found = main(arguments(folder, *more))
    except SystemExit as stopped:
        found = stopped.code  # type: ignore[assignment]
    assert found == status
    assert words in capsys.readouterr().err
    assert not (folder / "mine").exists()


def test_a_folder_to_compare_on_where_one_may_not_look_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs this may be root, who may look everywhere: the system is played."""
    look = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("/private/"):
            raise PermissionError(13, "Permission denied", path)
        return look(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert main(arguments(folder, "--val", "/private/theirs")) == 1
    error = capsys.readouterr().err
    assert "where you may look" in error
    assert "did not expect" not in error


def test_an_output_where_one_may_not_look_is_one_line(
    folder: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for more in ((), ("--resume",)):
        assert main(arguments(folder, *more, output="private/theirs")) == 1
        error = capsys.readouterr().err
        assert "private" in error
        assert "did not expect" not in error


def command(folder: Path, *more: object, output: str) -> list[str]:
    return ["-m", "napari_sac", *arguments(folder, *more, output=output)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_goes_on_and_ends_the_same(folder: Path) -> None:
    more = ("--epochs", 15)
    whole = [sys.executable, *command(folder, *more, output="whole")]
    subprocess.run(whole, check=True, env=environment())
    line = [sys.executable, *command(folder, *more, output="mine")]
    killed = subprocess.Popen(line, env=environment())
    curve = folder / "mine" / "run" / "curve.csv"
    while not curve.exists() or curve.read_text().count("\n") < 3:
        assert killed.poll() is None
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    subprocess.run([*line, "--resume"], check=True, env=environment())
    assert losses(folder / "mine") == losses(folder / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_processes_learn_as_one(folder: Path) -> None:
    pytest.importorskip("accelerate")
    more = ("--epochs", 5)
    one = [sys.executable, *command(folder, *more, output="one")]
    subprocess.run(one, check=True, env=environment())
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    # its --cpu starts several processes by mpirun alone; this one does by torch
    launch += ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    two = [*launch, *command(folder, *more, output="two")]
    subprocess.run(two, check=True, env=environment())
    assert losses(folder / "two") == pytest.approx(losses(folder / "one"), rel=2e-3)
    report = json.loads((folder / "two" / "report.json").read_text())
    assert report["processes"] == 2


@pytest.mark.parametrize("seen", [True, False])
def test_a_download_is_shown_where_a_person_is_looking(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: seen)
    _tell(Working("downloading vit_b", 1, 10))
    assert ("downloading vit_b 1/10" in capsys.readouterr().err) == seen
