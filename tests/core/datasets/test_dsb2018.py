"""The layout of the 2018 Data Science Bowl."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from napari_sac.core.datasets.dsb2018 import (
    SAMPLES,
    fetch_dsb2018,
    fetch_samples,
    find_dsb2018,
    read_dsb2018,
)
from napari_sac.core.errors import ImageFormatError, LabelFormatError

RGBA = np.dstack([np.full((4, 5), v, dtype=np.uint8) for v in (10, 20, 30, 255)])


def _mask(*columns):
    mask = np.zeros((4, 5), dtype=np.uint8)
    mask[:, list(columns)] = 255
    return mask


def _save(root, name, masks, image=RGBA):
    for kind in ("images", "masks"):
        (root / name / kind).mkdir(parents=True)
    Image.fromarray(image).save(root / name / "images" / f"{name}.png")
    for i, mask in enumerate(masks):
        Image.fromarray(mask).save(root / name / "masks" / f"{i}.png")
    return root / name


def test_masks_become_labels_in_the_order_of_their_files(tmp_path):
    folder = _save(tmp_path, "one", [_mask(0), _mask(2, 3)])

    loaded = read_dsb2018(folder)

    assert loaded.name == "one"
    assert loaded.image.shape == (4, 5, 4)
    assert loaded.labels[0].tolist() == [1, 0, 2, 2, 0]


def test_overlap_goes_to_the_first_and_empty_masks_take_no_number(tmp_path):
    folder = _save(tmp_path, "one", [_mask(0, 1), _mask(), _mask(0), _mask(1, 2)])

    assert read_dsb2018(folder).labels[0].tolist() == [1, 1, 2, 0, 0]


def test_a_mask_with_colour_and_alpha_counts_where_it_is_not_black(tmp_path):
    mask = _mask(1)
    rgba = np.dstack([mask, mask, mask, np.full_like(mask, 255)])
    folder = _save(tmp_path, "one", [rgba])

    assert read_dsb2018(folder).labels[0].tolist() == [0, 1, 0, 0, 0]


def test_a_mask_of_another_size_is_named(tmp_path):
    folder = _save(tmp_path, "one", [_mask(0), _mask(1)[:2]])

    with pytest.raises(LabelFormatError, match=r"1\.png is \(2, 5\)"):
        read_dsb2018(folder)


def test_folders_with_something_missing(tmp_path):
    folder = _save(tmp_path, "one", [])
    with pytest.raises(LabelFormatError, match="no PNG files"):
        read_dsb2018(folder)

    (folder / "masks" / "0.png").write_bytes(b"\x89PNG")
    with pytest.raises(LabelFormatError, match=r"0\.png could not be read"):
        read_dsb2018(folder)

    (folder / "images" / "one.png").unlink()
    with pytest.raises(ImageFormatError, match="holds 0 PNG files"):
        read_dsb2018(folder)

    with pytest.raises(ImageFormatError, match="not the 2018 Data Science Bowl"):
        find_dsb2018(tmp_path / "one" / "masks")


@pytest.fixture
def collection(tmp_path):
    """Return a collection of the samples and one more image, zipped."""
    source = tmp_path / "source"
    for name in (*SAMPLES, "another"):
        _save(source, name, [_mask(0), _mask(3)])
    (source / "readme.txt").write_text("not wanted")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for path in source.rglob("*.*"):
            content.write(path, path.relative_to(source))
    return buffer.getvalue()


def test_the_whole_collection_is_downloaded_once(serve, tmp_path, collection):
    archive = serve(collection)

    folder = fetch_dsb2018(tmp_path / "cache", archive=archive)

    assert [p.name for p in find_dsb2018(folder)] == sorted([*SAMPLES, "another"])
    assert not (folder / "readme.txt").exists()
    (tmp_path / "cache" / archive.file_name).unlink()
    (tmp_path / "server" / "data.zip").unlink()
    assert fetch_dsb2018(tmp_path / "cache", archive=archive) == folder


def test_samples_are_unpacked_alone(serve, tmp_path, collection):
    samples = fetch_samples(tmp_path / "cache", archive=serve(collection))

    assert [s.name for s in samples] == list(SAMPLES)
    assert samples[0].labels.max() == 2
    assert len(list((tmp_path / "cache").rglob("images"))) == len(SAMPLES)
