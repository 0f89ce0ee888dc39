"""``napari-sac segment``: every file is written or named, and the status says which."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from napari_sac import __version__
from napari_sac.cli import segment as command
from napari_sac.cli.main import main
from napari_sac.core.geojson import read_geojson
from napari_sac.core.io import (
    read_labels,
    read_made_by,
    read_prompts,
    separate_haematoxylin,
    write_labels,
)
from napari_sac.core.models.adapter import INFO_FILE, SHIPPED_ADAPTERS


@pytest.fixture
def folder(tmp_path, nuclei):
    """Two images of the same nuclei: 8-bit colour and 16-bit grey."""
    place = tmp_path / "images"
    place.mkdir()
    Image.fromarray(nuclei.image).save(place / "a.png")
    tifffile.imwrite(place / "b.tif", nuclei.image[..., 0].astype(np.uint16) * 37)
    return place


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "deeper"


def segment(*arguments):
    return main(["segment", *map(str, arguments), "--device", "cpu"])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_folder_becomes_labels_and_prompts(folder, output, nuclei, capsys):
    assert segment(folder, "--output", output) == 0
    assert names(output) == [
        "a_labels.tif", "a_prompts.csv", "b_labels.tif", "b_prompts.csv",
    ]  # fmt: skip
    for stem in "ab":
        labels = read_labels(output / f"{stem}_labels.tif")
        prompts = read_prompts(output / f"{stem}_prompts.csv")
        assert labels.shape == nuclei.labels.shape
        assert labels.dtype == np.uint16
        assert 10 <= len(np.unique(labels)) - 1 <= 14
        assert set(np.unique(labels)) <= {0, *prompts.object_id.tolist()}
        inside = nuclei.labels[tuple(np.rint(prompts.yx).astype(int).T)] > 0
        assert inside.mean() > 0.8
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("sac_tiny on CPU")
    assert lines[1].startswith("[1/2] a.png: ")
    assert lines[2].startswith("[2/2] b.tif: ")
    assert "nuclei of about" in lines[1]
    assert len(lines) == 3


def test_what_a_killed_run_left_is_removed(folder, output):
    left = output / ".0123456789ab.part"
    left.mkdir(parents=True)
    (left / "a_labels.tif").write_text("half")
    lock = left.with_suffix(".lock")
    lock.touch()
    os.utime(lock, (0, 0))
    segment(folder, "--output", output)
    assert not [name for name in os.listdir(output) if name.startswith(".")]


def test_outlines_and_ome_zarr_beside_the_labels(folder, output):
    exports = ("--export", "geojson", "--export", "ome-zarr")
    for _ in range(2):  # a second time replaces the first
        assert segment(folder / "a.png", "--output", output, *exports) == 0
    assert names(output) == [
        "a.geojson", "a.ome.zarr", "a_labels.tif", "a_prompts.csv",
    ]  # fmt: skip
    labels = read_labels(output / "a_labels.tif")
    outlines = read_geojson(output / "a.geojson", labels.shape)
    np.testing.assert_array_equal(outlines.labels, labels)
    nuclei = zarr.open_array(output / "a.ome.zarr" / "labels" / "nuclei" / "0")
    np.testing.assert_array_equal(nuclei[...], labels)


def test_short_memory_is_a_sentence_and_not_what_torch_says(
    folder, output, capsys, monkeypatch
):
    def fail(*args, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("napari_sac.core.inference.segment.segment_image", fail)
    assert segment(folder, "--output", output) == 1
    said = capsys.readouterr().err
    assert "FAILED: it needs more memory than there is" in said
    assert "The others" not in said
    assert "enforce fail" not in said


def test_bad_files_are_named_and_the_others_done(folder, output, capsys):
    (folder / "aa_broken.png").write_bytes(b"no image")
    tifffile.imwrite(folder / "stack.tif", np.zeros((5, 9, 9), np.uint8))
    missing = folder / "missing.tif"
    assert segment(folder, missing, "--output", output) == 1
    assert names(output) == [
        "a_labels.tif", "a_prompts.csv", "b_labels.tif", "b_prompts.csv",
    ]  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert "aa_broken.png: FAILED: " in lines[2]
    bad = (folder / "aa_broken.png", folder / "stack.tif", missing)
    assert lines[-1] == (
        "napari-sac segment: 3 of 5 images failed: "
        f"{', '.join(map(str, bad))}. The others are in {output}."
    )
    assert not any("Traceback" in line for line in lines)


def test_a_link_to_itself_is_a_bad_file_as_others(folder, output, capsys):
    (folder / "round.png").symlink_to(folder / "round.png")
    assert segment(folder, "--output", output) == 1
    assert "round.png: FAILED" in capsys.readouterr().err
    assert len(list(output.glob("*_labels.tif"))) == 2


def test_debug_shows_where_a_file_failed(tmp_path, output, capsys):
    assert segment(tmp_path / "x.png", "--output", output, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_is_left_out_of_a_folder_is_told(folder, output, capsys):
    (folder / "notes.txt").write_text("")
    (folder / ".hidden").write_text("")
    (folder / "old").mkdir()
    shutil.copy(folder / "b.tif", folder / "a_labels.tif")
    assert segment(folder / "b.tif", "--output", folder) == 0
    assert segment(folder, "--output", output) == 0
    err = capsys.readouterr().err
    for name in ("notes.txt", "old", "a_labels.tif", "b_prompts.csv"):
        assert f"left out {folder / name}: " in err
    assert ".hidden" not in err
    assert len(names(output)) == 4


def test_what_lies_beside_the_images_is_not_written_over(folder, output, capsys):
    for name in ("a_labels.tif", "a_prompts.csv", "a.geojson"):
        (folder / name).write_text("a week of work")
        assert segment(folder / "a.png", "--output", folder) == (
            0 if name == "a.geojson" else 2
        ), "asked for no outlines, it writes none"
        assert (folder / name).read_text() == "a week of work"
        error = capsys.readouterr().err
        assert name == "a.geojson" or (name in error and "--overwrite" in error)
        (folder / name).unlink()
    assert segment(folder / "a.png", "--output", folder, "--overwrite") == 0


@pytest.mark.parametrize("elsewhere", [False, True])
def test_labels_that_somebody_corrected_are_not_written_over(
    folder, output, capsys, elsewhere
):
    assert segment(folder / "a.png", "--output", output) == 0
    target = output / "a_labels.tif"
    if elsewhere:
        tifffile.imwrite(target, np.ones((160, 200), np.uint16))
    else:
        # as the dock exports them
        write_labels(target, np.ones((160, 200), np.uint16))
    before = target.read_bytes()
    assert segment(folder, "--output", output) == 2
    error = capsys.readouterr().err
    assert f"{target} is there already, not written by this command" in error
    assert all(flag in error for flag in ("--overwrite", "--skip-existing"))
    assert target.read_bytes() == before
    assert not (output / "b_labels.tif").exists()
    assert segment(folder, "--output", output, "--skip-existing") == 0
    assert target.read_bytes() == before
    assert (output / "b_labels.tif").exists()
    assert segment(folder, "--output", output, "--overwrite") == 0
    assert "model" in read_made_by(target)


def test_what_is_read_is_never_written_over(folder, output, capsys):
    shutil.copy(folder / "b.tif", folder / "a_labels.tif")
    given = (folder / "a.png", folder / "a_labels.tif")
    before = given[1].read_bytes()
    assert segment(*given, "--output", folder, "--overwrite") == 2
    assert given[1].read_bytes() == before
    points = output / "a_prompts.csv"
    output.mkdir(parents=True)
    points.write_text("y,x\n5,5\n")
    flags = ("--points", points, "--output", output, "--overwrite")
    assert segment(folder / "a.png", *flags) == 2
    assert points.read_text() == "y,x\n5,5\n"
    assert "given to read" in capsys.readouterr().err


def test_a_folder_of_prompts_is_not_written_over_as_its_points_are_read(
    folder, tmp_path, capsys
):
    reviewed = tmp_path / "reviewed"
    assert segment(folder / "a.png", "--output", reviewed) == 0
    before = {file.name: file.read_bytes() for file in reviewed.iterdir()}
    flags = ("--points", reviewed, "--output", reviewed)
    assert segment(folder / "a.png", *flags, "--overwrite") == 2
    assert "a_prompts.csv is given to read" in capsys.readouterr().err
    (reviewed / "a_prompts.csv").rename(reviewed / "a.csv")
    assert segment(folder / "a.png", *flags) == 2
    assert "a_labels.tif is there already" in capsys.readouterr().err
    assert before["a_labels.tif"] == (reviewed / "a_labels.tif").read_bytes()


def test_labels_beside_a_link_to_an_image_are_not_written_over(
    folder, tmp_path, capsys
):
    links = tmp_path / "links"
    links.mkdir()
    (links / "a.png").symlink_to(folder / "a.png")
    (links / "a_labels.tif").write_text("a week of work")
    assert segment(links / "a.png", "--output", links) == 2
    assert (links / "a_labels.tif").read_text() == "a week of work"


def test_another_name_of_a_file_or_folder_is_no_leave_to_write_over_it(
    folder, output, capsys, same_folder
):
    output.mkdir(parents=True)
    os.link(folder / "b.tif", output / "a_labels.tif")
    before = (folder / "b.tif").read_bytes()
    assert segment(folder, "--output", output, "--overwrite") == 2
    assert "given to read" in capsys.readouterr().err
    (folder / "a_labels.tif").write_text("a week of work")
    same_folder(folder, folder.with_name("IMAGES"))
    assert segment(folder / "a.png", "--output", folder.with_name("IMAGES")) == 2
    assert "a_labels.tif is there already" in capsys.readouterr().err
    assert (folder / "b.tif").read_bytes() == before


def test_points_of_a_name_with_an_accent_are_found(folder, output, tmp_path):
    (folder / "a.png").rename(folder / "\u00e4.png")
    (tmp_path / "a\u0308.csv").write_text("y,x\n5,5\n")
    flags = ("--output", output, "--points", tmp_path)
    assert segment(folder / "\u00e4.png", *flags) == 0


def test_points_where_one_may_not_look_are_told(folder, output, capsys, monkeypatch):
    """Whoever runs this may be root, who may look everywhere: the system is played."""
    look, points = os.stat, output / "points"
    points.mkdir(parents=True)

    def stat(path, **options):
        if str(path).startswith(f"{points}{os.sep}"):
            raise PermissionError(13, "Permission denied", path)
        return look(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    for place in (points, points / "deeper"):
        assert segment(folder, "--output", output, "--points", place) == 2
        assert f"{place} is not there, or you may not look" in capsys.readouterr().err


def test_a_run_that_fails_leaves_all_files_of_the_one_before(
    folder, output, capsys, monkeypatch
):
    flags = ("--output", output, "--export", "geojson", "--export", "ome-zarr")
    assert segment(folder / "a.png", *flags) == 0

    def content():
        files = sorted(p for p in output.rglob("*") if p.is_file())
        return {file: file.read_bytes() for file in files}

    before = content()

    def fill_the_disk(*args, **options):
        raise OSError(28, "No space left on device")

    # the labels are what is written last
    monkeypatch.setattr(tifffile, "imwrite", fill_the_disk)
    assert segment(folder / "a.png", *flags, "--diameter", "10") == 1
    error = capsys.readouterr().err
    assert f"to {output} (No space left on device). Nothing there was changed" in error
    assert content() == before


def test_labels_say_what_made_them(folder, output, capsys):
    flags = ("--adapter", "he", "--diameter", 20)
    assert segment(folder / "a.png", "--output", output, *flags) == 0
    made_by = read_made_by(output / "a_labels.tif")
    assert made_by.pop("program") == f"napari-sac {__version__}"
    nuclei = len(np.unique(read_labels(output / "a_labels.tif"))) - 1
    assert f"{nuclei} nuclei" in capsys.readouterr().err
    assert made_by == {
        "model": "sac_tiny",
        "adapter": "he",
        "mode": "instance",
        "flags": "--diameter 20.0",
        "diameter_px": 20.0,
        "nuclei": nuclei,
    }
    assert segment(folder / "a.png", "--output", output, "--mode", "semantic") == 0
    made_by = read_made_by(output / "a_labels.tif")
    assert (made_by["adapter"], made_by["mode"]) == (None, "semantic")
    assert made_by["nuclei"] is None


def test_the_size_of_a_pixel_goes_along(folder, output, nuclei):
    image = nuclei.image[..., 0]
    micrometres = {"unit": "um"}
    tifffile.imwrite(
        folder / "c.tif", image, imagej=True, resolution=(4, 2), metadata=micrometres
    )
    flags = ("--output", output, "--export", "ome-zarr")
    assert segment(folder / "c.tif", *flags) == 0
    with tifffile.TiffFile(output / "c_labels.tif") as tiff:
        assert tiff.pages.first.get_resolution("MICROMETER") == (4, 2)
    assert read_made_by(output / "c_labels.tif")["model"] == "sac_tiny"
    ome = zarr.open_group(output / "c.ome.zarr", mode="r").attrs["ome"]
    (level, *_) = ome["multiscales"][0]["datasets"]
    assert level["coordinateTransformations"][0]["scale"] == [1, 0.5, 0.25]


def test_results_of_an_earlier_run_are_told_where_an_image_fails(
    folder, output, capsys
):
    assert segment(folder, "--output", output) == 0
    (folder / "a.png").write_bytes(b"no image")
    capsys.readouterr()
    assert segment(folder, "--output", output) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].endswith(
        "The earlier results are still there, not of this run: "
        "a_labels.tif, a_prompts.csv."
    )
    assert "earlier results" not in "".join(lines[2:])
    for file in output.glob("a_*"):
        file.unlink()
    assert segment(folder, "--output", output) == 1
    assert "earlier results" not in capsys.readouterr().err


def test_images_whose_results_are_there_are_left_out(folder, output, capsys):
    assert segment(folder / "a.png", "--output", output) == 0
    before = {file: file.stat().st_ino for file in output.iterdir()}
    capsys.readouterr()
    skip = ("--output", output, "--skip-existing")
    assert segment(folder, *skip) == 0
    assert {file: file.stat().st_ino for file in before} == before
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        f"left out 1 of 2 images: their results are in {output} already"
    )
    assert lines[-1].startswith("[1/1] b.tif: ")
    assert "warning" not in "".join(lines)
    assert segment(folder, *skip) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("left out 2 of 2 images")
    assert line.endswith("so nothing is left to do")


def test_an_image_without_an_export_that_is_asked_for_is_not_done(
    folder, output, capsys
):
    exports = ("--export", "geojson", "--export", "ome-zarr")
    assert segment(folder / "a.png", "--output", output, *exports) == 0
    assert segment(folder / "b.tif", "--output", output) == 0
    capsys.readouterr()
    for left_out in (1, 2):
        assert segment(folder, "--output", output, "--skip-existing", *exports) == 0
        assert f"left out {left_out} of 2 images" in capsys.readouterr().err
    assert (output / "b.geojson").is_file()


def test_labels_that_something_else_made_are_left_out_with_a_warning(
    folder, output, capsys
):
    assert segment(folder, "--output", output, "--mode", "semantic") == 0
    tifffile.imwrite(output / "b_labels.tif", np.zeros((160, 200), np.uint16))
    capsys.readouterr()
    skip = ("--output", output, "--skip-existing", "--adapter", "he")
    assert segment(folder, *skip) == 0
    asked = "and not by sac_tiny with he in instance mode, such as"
    assert capsys.readouterr().err.splitlines()[1:] == [
        "warning: 1 of them was made by sac_tiny without adapter in semantic mode, "
        f"{asked} a_labels.tif",
        f"warning: 1 of them was made by something that they do not name, {asked} "
        "b_labels.tif",
    ]


def test_labels_that_other_flags_made_are_left_out_with_a_warning(
    folder, output, capsys
):
    before = ("--threshold", "0.7", "--diameter", "20", "--channels", "0,2")
    assert segment(folder / "a.png", "--output", output, *before) == 0
    capsys.readouterr()
    skip = ("--output", output, "--skip-existing")
    assert segment(folder / "a.png", *skip, "--stain", "haematoxylin") == 0
    maker = "sac_tiny without adapter in instance mode and"
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"warning: 1 of them was made by {maker} --threshold 0.7 --diameter 20.0 "
        f"--channels 0,2, and not by {maker} --stain haematoxylin, such as a_labels.tif"
    ]
    assert segment(folder / "a.png", *skip, *before) == 0
    assert "warning" not in capsys.readouterr().err


def test_results_beside_the_images_are_left_out_and_others_there_spared(folder, capsys):
    assert segment(folder / "a.png", "--output", folder) == 0
    skip = ("--output", folder, "--skip-existing")
    (folder / "b_labels.tif").write_text("a week of work")
    assert segment(folder, *skip) == 2
    error = capsys.readouterr().err
    assert "b_labels.tif is there already" in error
    assert "its image lacks some of the results asked for" in error
    assert "--skip-existing" not in error
    (folder / "b_labels.tif").unlink()
    assert segment(folder, *skip) == 0
    assert (folder / "b_labels.tif").is_file()


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_that_is_stopped_says_how_far_it_is_and_how_to_go_on(
    folder, output, capsys, monkeypatch, earlier
):
    if earlier:
        assert segment(folder / "b.tif", "--output", output) == 0
    (folder / "aa.png").write_bytes(b"no image")
    real = command._segment

    def stop(image, stem, *others):
        if stem == "b":
            raise KeyboardInterrupt
        return real(image, stem, *others)

    monkeypatch.setattr(command, "_segment", stop)
    capsys.readouterr()
    assert segment(folder, "--output", output) == 130
    more = f", but leaves out 1 more, whose results of an earlier run are in {output}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        "napari-sac: stopped. 1 of 3 images are done, 1 failed: "
        f"{folder / 'aa.png'}. The same line with --skip-existing goes on from there"
        f"{more if earlier else ''}."
    )
    assert (output / "a_labels.tif").is_file()


def test_one_mask_of_all_nuclei_is_exported_without_the_score_of_one(folder, output):
    flags = ("--mode", "semantic", "--export", "geojson")
    assert segment(folder / "a.png", "--output", output, *flags) == 0
    (feature,) = json.loads((output / "a.geojson").read_text())["features"]
    assert "napari-sac score" not in feature["properties"]["measurements"]
    assert "metadata" not in feature["properties"]


def test_a_name_that_is_a_folder_too_is_asked_back(
    folder, output, capsys, tmp_path, monkeypatch
):
    shutil.copytree(SHIPPED_ADAPTERS / "he", tmp_path / "work" / "he")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SystemExit) as left:
        segment(folder / "a.png", "--output", output, "--adapter", "he")
    assert left.value.code == 2
    assert str(tmp_path / "work" / "he") in capsys.readouterr().err
    (tmp_path / "work" / "he").rename(tmp_path / "work" / "mine")
    assert segment(folder / "a.png", "--output", output, "--adapter", "mine") == 0
    assert "sac_tiny with mine" in capsys.readouterr().err


def test_an_adapter_that_was_not_promoted_is_told_once(folder, output, capsys, home):
    mine = home / "adapters" / "mine"
    shutil.copytree(SHIPPED_ADAPTERS / "he", mine)
    values = json.loads((mine / INFO_FILE).read_text()) | {"promoted": False}
    (mine / INFO_FILE).write_text(json.dumps(values))
    for adapter, told in (("he", 0), ("mine", 1)):
        assert segment(folder, "--output", output, "--adapter", adapter) == 0
        said = capsys.readouterr().err
        assert said.count(f"the adapter {adapter} was not promoted") == told


def test_images_without_nuclei_have_empty_results(tmp_path, output):
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(tmp_path / "one.png")
    tifffile.imwrite(tmp_path / "nan.tif", np.full((30, 20), np.nan, np.float32))
    assert segment(tmp_path / "one.png", tmp_path / "nan.tif", "--output", output) == 0
    assert not read_labels(output / "nan_labels.tif").any()
    assert read_labels(output / "one_labels.tif").shape == (1, 1)
    assert len(read_prompts(output / "one_prompts.csv")) == 0


def test_semantic_mode_writes_one_mask(folder, output, nuclei, capsys):
    assert segment(folder / "a.png", "--output", output, "--mode", "semantic") == 0
    labels = read_labels(output / "a_labels.tif")
    assert set(np.unique(labels)) == {0, 1}
    overlap = ((labels > 0) & (nuclei.labels > 0)).sum()
    assert 2 * overlap / ((labels > 0).sum() + (nuclei.labels > 0).sum()) > 0.7
    assert "of the image is nuclei" in capsys.readouterr().err


def test_flags_reach_the_engine(folder, output, nuclei, capsys):
    two = np.zeros((*nuclei.labels.shape, 5), np.uint8)
    two[..., 3] = nuclei.image[..., 0]
    tifffile.imwrite(folder / "five.tif", two, metadata={"axes": "YXC"})
    flags = ["--channels", "3", "--diameter", "21", "--strategy", "probability"]
    assert segment(folder / "five.tif", "--output", output, *flags) == 0
    assert "of about 21 pixels" in capsys.readouterr().err
    assert len(np.unique(read_labels(output / "five_labels.tif"))) > 5
    assert segment(folder / "a.png", "--output", output, "--threshold", "1") == 0
    assert len(read_prompts(output / "a_prompts.csv")) == 0


def write_points(file, yx):
    rows = [f"{x},{y}\n" for y, x in yx]
    file.write_text("x,y\n" + "".join(rows))


def test_points_of_a_table_are_segmented(folder, output, nuclei, tmp_path, capsys):
    middles = [np.argwhere(nuclei.labels == k).mean(0).tolist() for k in (2, 5, 7)]
    points = tmp_path / "points"
    points.mkdir()
    write_points(points / "a_points.csv", middles)
    write_points(points / "b.csv", middles[:1])
    assert segment(folder, "--points", points, "--output", output) == 0
    for stem, expected in (("a", middles), ("b", middles[:1])):
        prompts = read_prompts(output / f"{stem}_prompts.csv")
        np.testing.assert_allclose(prompts.yx, expected)
        assert set(prompts.state) == {"added"}
        labels = read_labels(output / f"{stem}_labels.tif")
        assert len(np.unique(labels)) - 1 == len(expected)
    table = points / "b.csv"
    assert segment(folder / "b.tif", "--points", table, "--output", output) == 0
    capsys.readouterr()
    assert segment(folder, "--points", table, "--output", output) == 2
    assert "cannot be that of several images" in capsys.readouterr().err
    assert segment(folder, "--points", tmp_path / "poinst", "--output", output) == 2
    assert "poinst is not there" in capsys.readouterr().err
    flags = ("--points", points, "--threshold", 0.9)
    assert segment(folder, *flags, "--output", output) == 2
    assert "are for points that are found" in capsys.readouterr().err
    (points / "b.csv").unlink()
    assert segment(folder, "--points", points, "--output", output) == 1
    assert "neither b_points.csv nor b.csv" in capsys.readouterr().err


def test_channels_must_be_chosen_where_there_are_many(tmp_path, output, capsys):
    image = np.zeros((8, 9, 6), np.uint16)
    tifffile.imwrite(tmp_path / "six.tif", image, metadata={"axes": "YXC"})
    pages = np.zeros((2, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "two.tif", pages, photometric="minisblack")
    for name, words in (("six", "6 channels"), ("two", "If they are channels, say")):
        assert segment(tmp_path / f"{name}.tif", "--output", output) == 1
        said = capsys.readouterr().err
        assert words in said
        assert "--channels N[,N]" in said
    assert segment(tmp_path / "two.tif", "--output", output, "--channels", 0) == 0


def test_a_stain_can_be_looked_at_alone(tmp_path, output, nuclei, capsys):
    colour = np.full((*nuclei.labels.shape, 3), 255, np.uint8)
    colour[nuclei.labels > 0] = (110, 90, 160)
    colour[:, :80] = np.minimum(colour[:, :80], (150, 90, 50))
    Image.fromarray(colour).save(tmp_path / "colour.png")
    tifffile.imwrite(tmp_path / "blue.tif", separate_haematoxylin(colour))
    flags = ["--output", output, "--diameter", "20"]
    stain = ["--stain", "haematoxylin"]
    assert segment(tmp_path / "colour.png", *flags, *stain) == 0
    assert segment(tmp_path / "blue.tif", *flags) == 0
    both = [read_labels(output / f"{stem}_labels.tif") for stem in ("colour", "blue")]
    assert both[0].any()
    np.testing.assert_array_equal(*both)
    capsys.readouterr()
    assert segment(tmp_path / "blue.tif", *flags, *stain) == 1
    assert "no colours" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        segment(tmp_path / "colour.png", *flags, *stain, "--channels", "0")
    assert raised.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_same_image_twice_is_done_once(folder, output, capsys):
    again = folder / ".." / "images" / "a.png"
    assert segment(folder / "a.png", again, "--output", output) == 0
    assert "[1/1]" in capsys.readouterr().err


def test_a_pattern_that_the_shell_left_is_what_it_stands_for(folder, output, capsys):
    # brackets are part of the name
    shutil.copy(folder / "a.png", folder / "[c].png")
    place = folder.rename(folder.with_name("[of today]"))
    assert segment(place / "?.*", place / "[c].p*", "--output", output) == 0
    labels = [name for name in names(output) if name.endswith("tif")]
    assert labels == ["[c]_labels.tif", "a_labels.tif", "b_labels.tif"]
    capsys.readouterr()
    assert segment(place / "[ab].png", "--output", output) == 1
    assert "images failed" in capsys.readouterr().err
    place.rename(folder)
    capsys.readouterr()
    missing = folder / "*.jpg"
    assert segment(folder, missing, "--output", output) == 2
    assert f"nothing is there that is called like {missing}" in capsys.readouterr().err


def test_two_images_with_one_name_end_with_status_2(folder, output, capsys):
    shutil.copy(folder / "a.png", folder / "A.PNG")
    shutil.copy(folder / "b.tif", folder / "b.tiff")
    assert segment(folder / "b.tif", folder / "b.tiff", "--output", output) == 2
    assert "would both be written as b_labels.tif" in capsys.readouterr().err
    assert segment(folder, "--output", output) == 2
    # an accented letter in one sign and in two
    spelled = [
        shutil.copy(folder / "a.png", folder / f"{n}.png")
        for n in ("\u00e4", "a\u0308")
    ]
    assert segment(*spelled, "--output", output) == 2
    assert not output.exists()


def test_folder_without_images_ends_with_status_2(tmp_path, output, capsys):
    (tmp_path / "empty").mkdir()
    assert segment(tmp_path / "empty", "--output", output) == 2
    assert "no image in the folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--threshold", "5"], "must be at most 1.0"),
        (["--threshold", "much"], "could not convert"),
        (["--mode", "panoptic"], "invalid choice"),
        (["--device", "tpu"], "invalid choice"),
        (["--diameter", "0"], "not a number above 0"),
        (["--diameter", "wide"], "not a number above 0"),
        (["--diameter", "nan"], "not a number above 0"),
        (["--channels", "1;2"], "not like 0 or 0,2"),
        (["--channels", "-1"], "not like 0 or 0,2"),
    ],
)
def test_wrong_values_end_with_status_2(folder, output, capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        main(["segment", str(folder), "--output", str(output), *flags])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


def test_output_that_is_a_file_is_told_before_the_work(folder, capsys):
    assert segment(folder, "--output", folder / "a.png") == 1
    err = capsys.readouterr().err
    assert "cannot be made" in err
    assert err.count("\n") == 1


def test_unknown_model_and_adapter_are_one_line(folder, output, capsys):
    assert segment(folder, "--output", output, "--model", "nope") == 1
    assert "There is no model nope" in capsys.readouterr().err
    assert segment(folder, "--output", output, "--adapter", "nope") == 1
    err = capsys.readouterr().err
    assert "There is no adapter nope" in err
    assert err.count("\n") == 1


def test_a_folder_of_others_is_not_replaced_and_that_is_told_before_the_work(
    folder, output, monkeypatch, capsys
):
    (output / "a.ome.zarr").mkdir(parents=True)
    (output / "a.ome.zarr" / "notes.txt").write_text("mine")
    segmented = []
    real = command._segment
    monkeypatch.setattr(
        command, "_segment", lambda *a: segmented.append(a[1]) or real(*a)
    )
    assert segment(folder, "--output", output, "--export", "ome-zarr") == 1
    assert "napari-sac did not write it" in capsys.readouterr().err
    assert segmented == ["b"]
    assert (output / "a.ome.zarr" / "notes.txt").read_text() == "mine"


def test_a_folder_that_others_put_there_meanwhile_is_not_replaced(
    folder, output, monkeypatch, capsys
):
    real = command._export

    def export(*arguments):
        real(*arguments)
        (output / "a.ome.zarr").mkdir()
        (output / "a.ome.zarr" / "notes.txt").write_text("mine")

    monkeypatch.setattr(command, "_export", export)
    flags = ("--output", output, "--export", "ome-zarr")
    assert segment(folder / "a.png", *flags) == 1
    error = capsys.readouterr().err
    assert "napari-sac did not write it" in error
    assert "space left" not in error
    assert names(output) == ["a.ome.zarr"]
    assert names(output / "a.ome.zarr") == ["notes.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="the script is for bash")
def test_the_script_of_the_docs_goes_on_after_a_day_that_failed(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "how-to" / "command-line.md"
    script = page.read_text(encoding="utf-8").split("```bash\n")[1].split("```")[0]
    for day in "123":
        (tmp_path / f"2026-11-0{day}").mkdir()
    program = tmp_path / "bin" / "napari-sac"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$2"\n[ "$2" != 2026-11-02/ ]\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [f"2026-11-0{day}/" for day in "123"]
    assert done.returncode == 1
