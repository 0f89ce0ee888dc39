"""Labels as OME-Zarr: read back with zarr alone, as another program would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_sac.core.errors import OutputError
from napari_sac.core.ome_zarr import write_ome_zarr
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from pathlib import Path


def test_labels_and_image_are_where_the_format_has_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((600, 700), np.uint32)
    labels[5:40, 7:50], labels[500:590, 600:690] = 3, 70_000
    image = rng.integers(0, 256, (600, 700, 3), np.uint8)
    prompts = Prompts.from_points([[9, 9]], object_id=3, score=0.5, state="moved")
    folder = tmp_path / "field.ome.zarr"
    write_ome_zarr(folder, labels, prompts, image=image)
    root = zarr.open_group(folder, mode="r")
    ome = root.attrs["ome"]
    assert ome["version"] == "0.5"
    assert [a["name"] for a in ome["multiscales"][0]["axes"]] == ["c", "y", "x"]
    np.testing.assert_array_equal(root["0"][...], np.moveaxis(image, -1, 0))
    colours = [channel["color"] for channel in ome["omero"]["channels"]]
    assert colours == ["FF0000", "00FF00", "0000FF"]
    assert root["labels"].attrs["ome"]["labels"] == ["nuclei"]
    nuclei = root["labels/nuclei"]
    np.testing.assert_array_equal(nuclei["0"][...], labels)
    about = nuclei.attrs["ome"]
    assert about["image-label"]["source"] == {"image": "../../"}
    assert about["image-label"]["properties"] == [
        {"label-value": 3, "score": 0.5, "state": "moved"},
        {"label-value": 70_000},
    ]
    levels = about["multiscales"][0]["datasets"]
    assert [level["path"] for level in levels] == ["0", "1", "2"]
    assert levels[2]["coordinateTransformations"][0]["scale"] == [4.0, 4.0]
    np.testing.assert_array_equal(nuclei["2"][...], labels[::4, ::4])


def test_labels_alone_are_at_the_root(tmp_path: Path) -> None:
    labels = np.zeros((600, 700), np.uint32)
    labels[5:40, 7:50] = 70_000
    folder = tmp_path / "field_labels.ome.zarr"
    write_ome_zarr(folder, labels)
    ome = zarr.open_group(folder, mode="r").attrs["ome"]
    assert ome["image-label"] == {"properties": [{"label-value": 70_000}]}
    assert [d["path"] for d in ome["multiscales"][0]["datasets"]] == ["0", "1", "2"]


def test_the_size_of_a_pixel_is_the_scale(tmp_path: Path) -> None:
    folder = tmp_path / "field.ome.zarr"
    labels, image = np.ones((9, 300), np.uint32), np.zeros((9, 300, 3), np.uint8)
    write_ome_zarr(folder, labels, image=image, pixel_size=(0.5, 0.25))
    root = zarr.open_group(folder, mode="r")
    for group, channel in ((root, [1.0]), (root["labels/nuclei"], [])):
        (multiscale,) = group.attrs["ome"]["multiscales"]
        assert [axis.get("unit") for axis in multiscale["axes"]][-2:] == [
            "micrometer",
            "micrometer",
        ]
        scales = [
            level["coordinateTransformations"][0]["scale"]
            for level in multiscale["datasets"]
        ]
        assert scales == [[*channel, 0.5, 0.25], [*channel, 1.0, 0.5]]


def test_what_an_earlier_version_wrote_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "field.ome.zarr"
    labels = np.ones((9, 9), np.uint32)
    write_ome_zarr(folder, labels, image=np.zeros((9, 9, 3), np.uint8))
    # labels alone had a root without an image
    root = zarr.open_group(folder)
    del root["0"]
    root.attrs["ome"] = {"version": "0.5"}
    write_ome_zarr(folder, labels)
    assert "labels" not in zarr.open_group(folder, mode="r")


def test_only_what_was_written_so_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "field.ome.zarr"
    write_ome_zarr(folder, np.ones((300, 5), np.uint32))
    write_ome_zarr(folder, np.full((3, 5), 2, np.uint32))
    nuclei = zarr.open_group(folder, mode="r")
    assert (nuclei["0"][...] == 2).all()
    assert "1" not in nuclei
    assert [p.name for p in folder.parent.iterdir()] == ["field.ome.zarr"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="there already"):
        write_ome_zarr(precious, np.zeros((3, 5), np.uint32))
    assert (precious / "thesis.txt").read_text() == "x"


def test_what_another_program_wrote_in_the_same_layout_is_kept(tmp_path: Path) -> None:
    labels = np.ones((9, 9), np.uint32)
    image = np.zeros((9, 9, 3), np.uint8)
    for name in ("theirs", "shared"):
        write_ome_zarr(tmp_path / name, labels, image=image)
    root = zarr.open_group(tmp_path / "theirs")
    root.attrs.clear()
    root.attrs["ome"] = {"version": "0.5"}
    zarr.open_group(tmp_path / "shared").create_group("labels/cells")
    for name in ("theirs", "shared"):
        with pytest.raises(OutputError, match="did not write it"):
            write_ome_zarr(tmp_path / name, labels)
        assert (tmp_path / name / "labels" / "nuclei" / "0").is_dir()


@pytest.mark.parametrize(
    "name", ["README.md", "tables/counts.csv", "7/zarr.json", "labels/notes.txt"]
)
def test_what_others_put_in_is_kept(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "field.ome.zarr"
    labels = np.ones((9, 9), np.uint32)
    write_ome_zarr(folder, labels)
    # a look at it in Finder
    (folder / ".DS_Store").touch()
    write_ome_zarr(folder, labels)
    theirs = folder / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("x")
    with pytest.raises(OutputError, match="or not all"):
        write_ome_zarr(folder, labels)
    assert theirs.read_text() == "x"


def test_what_others_put_in_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "field.ome.zarr"
    image = np.zeros((9, 9, 3), np.uint8)
    for _ in range(2):
        write_ome_zarr(folder, np.ones((9, 9), np.uint32), image=image)
    create_group = zarr.create_group

    def somebody_writes(*args: Any, **options: Any) -> Any:
        (folder / "thesis.txt").write_text("x")
        return create_group(*args, **options)

    monkeypatch.setattr(zarr, "create_group", somebody_writes)
    with pytest.raises(OutputError, match="or not all"):
        write_ome_zarr(folder, np.ones((9, 9), np.uint32))
    assert (folder / "thesis.txt").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["field.ome.zarr"]


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_ome_zarr(tmp_path / "file" / "a.ome.zarr", np.ones((3, 5), np.uint32))


def test_a_place_where_one_may_not_look_is_told(private: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_ome_zarr(private / "a.ome.zarr", np.ones((3, 5), np.uint32))


@pytest.mark.parametrize("labels", [[[-1, 0]], [[0.5, 1.0]]])
def test_labels_that_do_not_fit_are_not_written(
    tmp_path: Path, labels: list[list[float]]
) -> None:
    with pytest.raises(ValueError, match="labels must"):
        write_ome_zarr(tmp_path / "a.ome.zarr", np.array(labels))
    assert not list(tmp_path.iterdir())
