"""``napari-sac replay`` with the shipped model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_sac.cli import replay as command
from napari_sac.cli.main import main
from napari_sac.core.io import (
    normalise_image,
    read_labels,
    read_made_by,
    read_prompts,
    write_labels,
)
from napari_sac.core.models.registry import load_model
from napari_sac.core.session import replay as replaying
from napari_sac.core.session.image import ImageReference, hash_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.replay import compute_labels
from napari_sac.core.session.state import AnnotationState, Settings
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from synthetic import Nuclei


@pytest.fixture
def session(nuclei: Nuclei, tmp_path: Path) -> Path:
    """A session of two images, one in a file, segmented with ``sac_tiny``."""
    pixels = normalise_image(nuclei.image)
    centres = [
        np.argwhere(nuclei.labels == i).mean(0) for i in range(1, nuclei.labels.max())
    ]
    model = load_model(device="cpu")
    state = AnnotationState(
        prompts=Prompts.from_points(centres, state="added"),
        hidden=Prompts.empty(),
        labels=np.zeros(nuclei.labels.shape, np.uint32),
        settings=Settings(diameter=20.0, model_key=model.key),
    )
    state.labels[...] = compute_labels(pixels, state, model)
    folder = tmp_path / "cells.sac"
    journal = Journal.create(folder)
    digest, shape = hash_pixels(pixels), nuclei.labels.shape
    imsave(tmp_path / "cells.png", nuclei.image, check_contrast=False)
    for path, name, kept in (
        (None, "../sample / a", pixels),
        (str(tmp_path / "cells.png"), "cells.png", None),
    ):
        image = ImageReference(path, name, digest, shape)
        journal.add_annotation(image, state, kept)
    journal.close(clean=True)
    return folder


def never(*_: object) -> None:
    raise AssertionError("the work has begun")


def test_it_writes_labels_and_prompts_and_says_whether_they_agree(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    # of a run that was killed
    (output / ".0123456789ab.part").mkdir(parents=True)
    (output / ".0123456789ab.lock").touch()
    os.utime(output / ".0123456789ab.lock", (0, 0))
    arguments = ["replay", str(session), "--output", str(output), "--device", "cpu"]
    assert main([*arguments, "--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1_a: identical to the labels in the session",
        "2_cells: identical to the labels in the session",
    ]
    names = ["1_a_labels.tif", "1_a_prompts.csv", "2_cells_labels.tif"]
    assert sorted(p.name for p in output.iterdir()) == [*names, "2_cells_prompts.csv"]
    labels = read_labels(output / "1_a_labels.tif")
    assert len(np.unique(labels)) > 8
    assert len(read_prompts(output / "1_a_prompts.csv")) == 11
    # labels that somebody changed behind the journal's back
    journal = Journal.open(session)
    restored = journal.restore()
    state = restored.states[1]
    pixels, _ = journal.find_image(1, restored.images[1])
    state.labels[:5, :5] = 77
    journal.add_annotation(restored.images[1], state, pixels)
    journal.close(clean=True)
    assert main(arguments) == 0
    assert main([*arguments, "--check"]) == 1
    assert "3_a: 25 pixels differ from" in capsys.readouterr().out


def test_the_size_of_a_pixel_goes_along(nuclei: Nuclei, tmp_path: Path) -> None:
    file, pixels = tmp_path / "cells.tif", nuclei.image[..., 0]
    tifffile.imwrite(
        file, pixels, imagej=True, resolution=(4, 2), metadata={"unit": "um"}
    )
    looked_at = normalise_image(pixels)
    state = AnnotationState(
        prompts=Prompts.empty(),
        hidden=Prompts.empty(),
        labels=np.zeros(nuclei.labels.shape, np.uint32),
        settings=Settings(diameter=20.0),
    )
    journal = Journal.create(tmp_path / "cells.sac")
    digest, shape = hash_pixels(looked_at), nuclei.labels.shape
    # as it comes from another computer
    image = ImageReference("/elsewhere/cells.tif", "cells", digest, shape)
    journal.add_annotation(image, state, None)
    journal.close(clean=True)
    output = tmp_path / "out"
    arguments = ["replay", str(tmp_path / "cells.sac"), "--output", str(output)]
    assert main([*arguments, "--device", "cpu"]) == 0
    with tifffile.TiffFile(output / "cells_labels.tif") as tiff:
        assert tiff.pages.first.get_resolution("MICROMETER") == (4, 2)


def test_what_is_no_session_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tmp_path), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "is not a session" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_lies_beside_the_images_is_not_written_over(
    session: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = tmp_path / "2_cells_labels.tif"
    drawn.write_bytes(b"a week of work")
    arguments = ["replay", str(session), "--output", str(tmp_path), "--device", "cpu"]
    assert main(arguments) == 1
    assert "Nothing was written" in capsys.readouterr().err
    assert drawn.read_bytes() == b"a week of work"
    assert not (tmp_path / "1_a_prompts.csv").exists()
    # before the work, for that would be for nothing
    with monkeypatch.context() as patch:
        patch.setattr(replaying, "compute_labels", never)
        assert main(arguments) == 1
    assert main([*arguments, "--overwrite"]) == 0
    assert read_labels(drawn).any()


def test_while_it_computes_somebody_can_go_on_in_the_session(
    session: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only = []

    def open_it(pixels: np.ndarray, *_: object) -> np.ndarray:
        journal = Journal.open(session)
        read_only.append(journal.read_only)
        journal.close(clean=True)
        return np.zeros(pixels.shape[:2], np.uint32)

    monkeypatch.setattr(replaying, "compute_labels", open_it)
    output = str(tmp_path / "out")
    assert main(["replay", str(session), "--output", output, "--device", "cpu"]) == 0
    assert read_only == [False, False]


def test_only_labels_of_a_replay_are_replaced_in_a_folder_of_their_own(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    arguments = ["replay", str(session), "--output", str(output), "--device", "cpu"]
    for _ in range(2):
        assert main(arguments) == 0
    corrected = output / "2_cells_labels.tif"
    assert read_made_by(corrected)["session"] == "cells.sac"
    # as the dock exports them
    write_labels(corrected, np.ones((3, 3), np.uint16))
    before = corrected.read_bytes()
    assert main(arguments) == 1
    assert "not written by this command" in capsys.readouterr().err
    assert corrected.read_bytes() == before
    assert main([*arguments, "--overwrite"]) == 0


def test_another_name_of_the_folder_is_no_leave_to_write_over_what_is_in_it(
    session: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    same_folder: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "2_cells_labels.tif").write_bytes(b"a week of work")
    other = tmp_path.with_name(tmp_path.name.upper())
    same_folder(tmp_path, other)
    monkeypatch.setattr(replaying, "compute_labels", never)
    assert main(["replay", str(session), "--output", str(other)]) == 1
    assert "Nothing was written" in capsys.readouterr().err


def test_what_was_computed_before_an_image_is_missed_is_kept(
    session: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells.png").unlink()
    output = tmp_path / "out"
    arguments = ["replay", str(session), "--output", str(output), "--device", "cpu"]
    assert main(arguments) == 1
    assert "cannot be used" in capsys.readouterr().err
    names = sorted(p.name for p in output.iterdir())
    assert names == ["1_a_labels.tif", "1_a_prompts.csv"]


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("field.ome", "field.ome"),
        ("patient 3.2", "patient 3.2"),
        ("img [1]", "img [1]"),
        ("cells.png", "cells"),
        ("C:\\images\\a?.TIF", "a_"),
        ("../..", "nuclei"),
    ],
)
def test_results_are_called_as_the_window_calls_them(name: str, stem: str) -> None:
    image = ImageReference(None, name, "", (2, 2))
    assert command._stems({1: image}) == {1: stem}
