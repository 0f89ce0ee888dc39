"""The layout of PanNuke."""

import numpy as np
import pytest

from napari_sac.core.datasets.pannuke import open_fold, read_patch
from napari_sac.core.errors import ImageFormatError, LabelFormatError

SHAPE = (2, 8, 8)


@pytest.fixture
def arrays():
    """Return a fold of two patches; the official arrays are float64 too."""
    images = np.full((*SHAPE, 3), 200.0)
    masks = np.zeros((*SHAPE, 6))
    masks[..., 5] = 1
    masks[0, 0, :3, 0] = 7
    masks[0, 2, :2, 0] = 9
    masks[0, 4, :4, 3] = 7
    return {
        "images": images,
        "masks": masks,
        "types": np.array(["Breast", "Bile-duct"]),
    }


@pytest.fixture
def save(tmp_path, arrays):
    def write(**changed):
        folder = tmp_path / "fold1"
        folder.mkdir(exist_ok=True)
        for name, array in (arrays | changed).items():
            np.save(folder / f"{name}.npy", array)
        return folder

    return write


def test_a_patch_has_the_nuclei_of_all_classes(save):
    fold = open_fold(save())

    patch = read_patch(fold, 0)

    assert len(fold) == 2
    assert fold.tissues[1] == "Bile-duct"
    assert patch.name == "fold1_0000"
    assert patch.image.dtype == np.uint8
    assert patch.image.max() == 200
    # Id 7 occurs in two classes: two nuclei.
    assert patch.labels[0, :4].tolist() == [1, 1, 1, 0]
    assert patch.labels[2, :3].tolist() == [2, 2, 0]
    assert patch.labels[4, :5].tolist() == [3, 3, 3, 3, 0]
    assert read_patch(fold, 1).labels.max() == 0


def test_where_classes_overlap_the_later_has_the_pixel(save, arrays):
    arrays["masks"][0, 0, 2:5, 1] = 1

    labels = read_patch(open_fold(save()), 0).labels

    assert labels[0, :6].tolist() == [1, 1, 3, 3, 3, 0]


def test_arrays_stay_on_disk(save):
    fold = open_fold(save())

    assert isinstance(fold.images, np.memmap)
    assert isinstance(fold.masks, np.memmap)


def test_the_folders_of_the_official_archive_are_searched(save, tmp_path):
    source = save()
    fold = tmp_path / "Fold 1"
    for name, folder in (("images", "images"), ("types", "images"), ("masks", "masks")):
        target = fold / folder / "fold1"
        target.mkdir(parents=True, exist_ok=True)
        (source / f"{name}.npy").rename(target / f"{name}.npy")

    assert len(open_fold(fold)) == 2
    with pytest.raises(ImageFormatError, match=r"0 files images\.npy"):
        open_fold(source)


def test_an_array_of_objects_is_explained_and_not_opened(save, tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    folder = save(types=np.array([Harm(), Harm()], dtype=object))

    with pytest.raises(ImageFormatError, match="objects is not opened"):
        open_fold(folder)
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("keep", [0, 40, 200])
def test_a_truncated_array_is_named(save, keep):
    folder = save()
    path = folder / "masks.npy"
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(LabelFormatError, match=r"masks\.npy could not be read"):
        open_fold(folder)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"images": np.zeros((*SHAPE, 4))}, ImageFormatError),
        ({"masks": np.zeros((*SHAPE, 5))}, LabelFormatError),
        ({"masks": np.zeros((3, 8, 8, 6))}, LabelFormatError),
        ({"types": np.array(["Breast"])}, ImageFormatError),
    ],
)
def test_arrays_that_do_not_belong_together(save, changed, error):
    with pytest.raises(error, match="fold"):
        open_fold(save(**changed))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 0.5, 2.0**40])
def test_ids_that_are_none(save, arrays, value):
    arrays["masks"][0, 1, 1, 4] = value
    fold = open_fold(save())

    with pytest.raises(LabelFormatError, match="fold1_0000"):
        read_patch(fold, 0)


def test_pixels_outside_of_the_range_are_clipped(save, arrays):
    arrays["images"][0, 0, :4, 0] = [np.nan, -5, 300, 99.6]

    assert read_patch(open_fold(save()), 0).image[0, :4, 0].tolist() == [0, 0, 255, 100]
