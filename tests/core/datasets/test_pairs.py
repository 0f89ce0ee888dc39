"""Pairs of image and label files."""

import os

import numpy as np
import pytest
from PIL import Image

from napari_sac.core.datasets.pairs import (
    ImageLabelPair,
    LabelledImage,
    find_pairs,
    find_tables,
    label_files,
    load_pair,
    names_of_split,
)
from napari_sac.core.errors import ImageFormatError, LabelFormatError
from napari_sac.core.io import write_labels


@pytest.fixture
def folders(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    return images, labels


def _save_image(path, shape=(4, 6)):
    Image.fromarray(np.full(shape, 9, dtype=np.uint8)).save(path)


def test_files_pair_by_stem_with_or_without_the_ending_of_segment(folders):
    images, labels = folders
    _save_image(images / "b.png")
    _save_image(images / "a.v2.PNG")
    write_labels(labels / "b.tif", np.zeros((4, 6), int))
    write_labels(labels / "a.v2_labels.tif", np.zeros((4, 6), int))

    assert find_pairs(images, labels) == (
        ImageLabelPair("a.v2", images / "a.v2.PNG", labels / "a.v2_labels.tif"),
        ImageLabelPair("b", images / "b.png", labels / "b.tif"),
    )


def test_an_accented_letter_is_the_same_in_one_sign_or_two(folders):
    images, labels = folders
    one, two = "M\u00fcller", "Mu\u0308ller"
    _save_image(images / f"{one}.png")
    write_labels(labels / f"{two}_labels.tif", np.zeros((4, 6), int))
    (pair,) = find_pairs(images, labels)
    assert (pair.name, pair.labels) == (one, labels / f"{two}_labels.tif")
    for stem, name in ((one, f"{two}.csv"), (two, f"{one}.csv")):
        (labels / name).touch()
        assert find_tables(labels, [stem, "b"], ["_p.csv", ".csv"]) == [
            labels / name,
            None,
        ]
        (labels / name).unlink()
    # where a folder has both, each is its own
    for stem in (one, two):
        (labels / f"{stem}.csv").touch()
    found = find_tables(labels, [one, two], [".csv"])
    assert found == [labels / f"{one}.csv", labels / f"{two}.csv"]


def test_an_image_that_is_itself_called_labels_pairs_with_its_own_name(folders):
    images, labels = folders
    for name in ("x", "x_labels"):
        _save_image(images / f"{name}.png")
        write_labels(labels / f"{name}.tif", np.zeros((4, 6), int))

    pairs = find_pairs(str(images), str(labels))

    assert [(p.name, p.labels.name) for p in pairs] == [
        ("x", "x.tif"),
        ("x_labels", "x_labels.tif"),
    ]


def test_one_folder_of_both_pairs_no_image_with_itself(folders):
    both, labels = folders
    for name in ("a", "b"):
        _save_image(both / f"{name}.tif")
        write_labels(both / f"{name}_labels.tif", np.zeros((4, 6), int))
    pairs = find_pairs(both, labels.parent / "images")
    assert [(p.image.name, p.labels.name) for p in pairs] == [
        ("a.tif", "a_labels.tif"),
        ("b.tif", "b_labels.tif"),
    ]
    (both / "b_labels.tif").unlink()
    with pytest.raises(LabelFormatError, match=r"no labels for b\.tif"):
        find_pairs(both, both)


def test_one_folder_may_be_written_in_two_ways(folders, monkeypatch):
    both, _ = folders
    _save_image(both / "a.tif")
    write_labels(both / "a_labels.tif", np.zeros((4, 6), int))
    monkeypatch.chdir(both)
    (pair,) = find_pairs(".", both)
    assert (pair.image.name, pair.labels.name) == ("a.tif", "a_labels.tif")


def test_other_files_are_passed_over(folders):
    images, labels = folders
    _save_image(images / "a.png")
    write_labels(labels / "a.tif", np.zeros((4, 6), int))
    for path in (images / ".DS_Store", images / "._a.png", labels / "a_prompts.csv"):
        path.write_bytes(b"")
    (images / "folder.png").mkdir()

    assert len(find_pairs(images, labels)) == 1


def test_partners_that_are_missing_are_counted_and_the_first_named(folders):
    images, labels = folders
    for i in range(8):
        _save_image(images / f"{i}.png")
    write_labels(labels / "z.tif", np.zeros((4, 6), int))

    with pytest.raises(LabelFormatError) as error:
        find_pairs(images, labels)

    message = str(error.value)
    assert "no labels for 0.png, 1.png, 2.png, 3.png, 4.png and 3 more" in message
    assert "no image for z.tif" in message


def test_two_files_of_one_name_are_refused(folders):
    images, labels = folders
    _save_image(images / "a.png")
    write_labels(labels / "a.tif", np.zeros((4, 6), int))
    write_labels(labels / "a_labels.tif", np.zeros((4, 6), int))
    with pytest.raises(LabelFormatError, match=r"a\.tif and a_labels\.tif"):
        find_pairs(images, labels)

    _save_image(images / "a.bmp")
    with pytest.raises(LabelFormatError, match=r"a\.bmp and a\.png"):
        find_pairs(images, labels)


def test_folders_that_are_none_or_empty(folders):
    images, labels = folders
    with pytest.raises(ImageFormatError, match="no images in"):
        find_pairs(images, labels)
    with pytest.raises(ImageFormatError, match="nowhere is not there"):
        find_pairs(images / "nowhere", labels)

    _save_image(images / "a.png")
    with pytest.raises(LabelFormatError, match="no labels in"):
        find_pairs(images, labels)
    with pytest.raises(LabelFormatError, match="is a file"):
        find_pairs(images, images / "a.png")


def test_load_pair_returns_pixels_as_stored(folders):
    images, labels = folders
    _save_image(images / "a.png", (4, 6, 3))
    write_labels(labels / "a.tif", np.eye(4, 6, dtype=int) * 70_000)

    loaded = load_pair(find_pairs(images, labels)[0])

    assert loaded.name == "a"
    assert loaded.image.shape == (4, 6, 3)
    assert loaded.image.max() == 9
    assert loaded.labels.max() == 70_000


def test_labels_of_another_size_than_their_image_are_refused(folders):
    images, labels = folders
    _save_image(images / "a.png")
    write_labels(labels / "a.tif", np.zeros((6, 4), int))

    with pytest.raises(LabelFormatError, match=r"labels are 6 x 4, a\.png is 4 x 6"):
        load_pair(find_pairs(images, labels)[0])
    with pytest.raises(ValueError, match="the image is"):
        LabelledImage("a", np.zeros((4, 6)), np.zeros((6, 4), int))


def test_a_list_says_which_names_are_of_a_split(tmp_path):
    with pytest.raises(LabelFormatError, match=r"has no splits\.csv"):
        names_of_split(tmp_path, "train")
    (tmp_path / "splits.csv").write_text("id,split\na,train\nb,val\nc,train\n")
    assert names_of_split(tmp_path, "train") == {"a", "c"}
    assert names_of_split(tmp_path, "test") == set()


def test_a_list_of_a_split_that_excel_saved_is_read(tmp_path):
    table = tmp_path / "splits.csv"
    table.write_bytes(b"\xef\xbb\xbfid,split\r\na,train\r\nb,val\r\n")
    assert names_of_split(tmp_path, "train") == {"a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id;split\na;train\n", "its first line must be id,split"),
        (b"", "its first line must be id,split"),
        (b"id,split\n\xff,train\n", "could not be read"),
    ],
)
def test_what_is_no_list_of_splits_is_told(tmp_path, content, words):
    (tmp_path / "splits.csv").write_bytes(content)
    with pytest.raises(LabelFormatError, match=words):
        names_of_split(tmp_path, "train")


def test_where_one_may_not_look_is_told(folders, monkeypatch):
    """Whoever runs this may be root, who may look everywhere: the system is played."""
    images, labels = folders
    _save_image(images / "a.png")
    write_labels(labels / "a.tif", np.zeros((4, 6), int))
    look = os.stat

    def forbid(below):
        def stat(path, **options):
            if str(path).startswith(below):
                raise PermissionError(13, "Permission denied", path)
            return look(path, **options)

        monkeypatch.setattr(os, "stat", stat)

    # its names may be read, and nothing behind them
    forbid(f"{images}{os.sep}")
    with pytest.raises(ImageFormatError, match=r"could not be opened \(Permission"):
        find_pairs(images, labels)
    # not even whether it is there
    forbid(str(labels))
    with pytest.raises(LabelFormatError, match="lies where you may not look"):
        label_files(labels)
    with pytest.raises(LabelFormatError, match=r"has no splits\.csv"):
        names_of_split(labels, "train")
