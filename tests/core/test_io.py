"""Images in any state become (H, W, 3) uint8; files are whole or not there."""

import json
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage import data

from napari_sac import __version__
from napari_sac.core import io
from napari_sac.core.errors import (
    ChannelsNotChosenError,
    ImageFormatError,
    LabelFormatError,
    OutputError,
)
from napari_sac.core.io import (
    atomic_path,
    cache_folder,
    data_folder,
    holds_array,
    normalise_image,
    read_image,
    read_labels,
    read_made_by,
    read_pixel_size,
    read_points,
    read_prompts,
    safe_name,
    separate_haematoxylin,
    write_labels,
    write_prompts,
)
from napari_sac.core.types import NEGATIVE, POSITIVE, Prompts


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- normalise_image -----------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64]
)
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_any_type_and_channel_count_fills_the_range(rng, dtype, shape):
    image = np.maximum(rng.random(shape) * 1000 - 300, 0).astype(dtype)
    result = normalise_image(image)
    assert result.shape == (9, 7, 3)
    assert result.dtype == np.uint8
    assert result.max() == 255
    if shape[2:] != (2,):
        assert result.min() == 0


def test_percentiles_are_the_ends_of_the_stretch():
    image = np.arange(100_000, dtype=np.float64).reshape(250, 400)
    result = normalise_image(image)[..., 0].ravel()
    assert (result[:100] == 0).all()
    assert (result[-100:] == 255).all()
    assert result[50_000] == pytest.approx(127.5, abs=1)
    assert (np.diff(result.astype(int)) >= 0).all()


def test_stretch_does_not_depend_on_units(rng):
    image = rng.random((20, 20))
    np.testing.assert_array_equal(
        normalise_image(image), normalise_image(image * 3e4 - 7e3)
    )


def test_colours_are_stretched_by_one_line():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    image[...] = (50, 100, 150)
    np.testing.assert_array_equal(normalise_image(image)[0, 0], (0, 128, 255))


def test_alpha_is_dropped(rng):
    rgb = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    rgba = np.concatenate([rgb, np.full((6, 6, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(normalise_image(rgba), normalise_image(rgb))


def test_chosen_channel_is_grey(rng):
    image = rng.integers(0, 60_000, (6, 6, 7), dtype=np.uint16)
    np.testing.assert_array_equal(
        normalise_image(image, [4]), normalise_image(image[..., 4])
    )


def test_two_channels_are_summed_each_stretched_by_itself():
    image = np.zeros((4, 6, 5), dtype=np.uint16)
    image[0, 0, 1] = 10
    image[3, 5, 4] = 60_000
    image[2, 2, [1, 4]] = 10, 60_000
    result = normalise_image(image, [1, 4])
    assert result[0, 0].tolist() == result[3, 5].tolist() == [255, 255, 255]
    assert result[2, 2, 0] == 255
    assert np.count_nonzero(result) == 9


def test_more_than_four_channels_need_a_choice():
    with pytest.raises(ImageFormatError, match="7 channels"):
        normalise_image(np.zeros((4, 4, 7)))


@pytest.mark.parametrize("channels", [[3], [-1], [0, 3], []])
def test_missing_channels_are_named(channels):
    with pytest.raises(ImageFormatError, match="no channel"):
        normalise_image(np.zeros((4, 4, 3)), channels)


def stained(blue, brown):
    """Return white paper with amounts (H, W) of haematoxylin and of DAB on it."""
    density = blue[..., None] * np.array([0.65, 0.70, 0.29]) + brown[
        ..., None
    ] * np.array([0.27, 0.57, 0.78])
    return np.rint(255 * 10.0**-density).astype(np.uint8)


def test_the_blue_stain_is_seen_without_the_brown_one():
    blue, brown = np.zeros((30, 40)), np.zeros((30, 40))
    blue[5:15, 5:15] = 0.6
    brown[:, 20:] = 0.6
    seen = separate_haematoxylin(stained(blue, brown))
    assert seen.shape == (30, 40)
    assert seen.dtype == np.float32
    nucleus, paper, dab = (float(seen[place]) for place in ((7, 7), (0, 0), (10, 30)))
    assert nucleus < paper - 0.02, "the more stain, the darker"
    assert dab == pytest.approx(paper, abs=0.1 * (paper - nucleus))


def test_in_real_tissue_it_shows_nuclei_dark_and_the_brown_stain_not() -> None:
    tissue = data.immunohistochemistry()
    seen = separate_haematoxylin(tissue)
    red, _, blue = np.moveaxis(tissue.astype(float), -1, 0)
    paper = tissue.min(axis=-1) > 225
    blueish = (blue > red + 25) & ~paper
    brown = red > blue + 60
    assert seen[blueish].mean() < seen[paper].mean()
    assert seen[blueish].mean() < seen[brown].mean()


def test_a_stain_is_normalised_like_any_grey_image(rng):
    image = stained(*rng.uniform(0, 0.8, (2, 20, 30)))
    alone = normalise_image(image, stain="haematoxylin")
    np.testing.assert_array_equal(alone, normalise_image(separate_haematoxylin(image)))
    assert (alone[..., 0] == alone[..., 2]).all()
    assert not np.array_equal(alone, normalise_image(image))
    opaque = np.dstack([image, np.full((20, 30), 255, np.uint8)])
    np.testing.assert_array_equal(alone, normalise_image(opaque, stain="haematoxylin"))
    scaled = separate_haematoxylin(image / 255)
    np.testing.assert_allclose(scaled, separate_haematoxylin(image), atol=1e-6)


def test_a_stain_is_separated_block_by_block(rng, monkeypatch):
    image = stained(*rng.uniform(0, 0.8, (2, 33, 20)))
    whole = separate_haematoxylin(image)
    monkeypatch.setattr(io, "_BLOCK_VALUES", 4 * 20 * 5)
    np.testing.assert_array_equal(separate_haematoxylin(image), whole)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 9), np.uint8), "no colours"),
        (np.zeros((8, 9, 2), np.uint8), "no colours"),
        (np.full((8, 9, 3), 200.0), "from 0 to 1"),
        (np.zeros((0, 9, 3), np.uint8), "no pixels"),
    ],
)
def test_what_has_no_stain_is_refused(image, words):
    with pytest.raises(ImageFormatError, match=words):
        normalise_image(image, stain="haematoxylin")


def test_values_that_are_not_finite_are_the_darkest():
    image = np.linspace(10, 20, 100).reshape(10, 10)
    image[0, :3] = np.nan, np.inf, -np.inf
    result = normalise_image(image)
    assert (result[0, :3] == 0).all()
    assert result.max() == 255


@pytest.mark.parametrize(
    "image",
    [
        np.full((5, 5), np.nan),
        np.full((5, 5), np.inf),
        np.full((5, 5), 200, np.uint8),
        np.zeros((1, 1)),
        np.array([[0, 5e-324]]),
    ],
)
def test_images_without_contrast_are_black(image):
    assert not normalise_image(image).any()


def test_range_as_wide_as_the_type_does_not_overflow():
    high = np.finfo(np.float64).max
    result = normalise_image(np.array([[-high, 0, high]]))
    assert result[0, 0, 0] == 0
    assert result[0, 1, 0] in (127, 128)
    assert result[0, 2, 0] == 255


def test_few_bright_pixels_are_not_lost():
    image = np.zeros((200, 200), dtype=np.uint16)
    image[50:53, 50:53] = 900
    assert normalise_image(image).max() == 255


def test_large_offset_keeps_its_contrast():
    image = 2_000_000_000 + np.arange(100, dtype=np.int64).reshape(10, 10)
    assert len(np.unique(normalise_image(image))) > 90


def test_block_by_block_equals_at_once(rng):
    image = rng.integers(0, 4000, (1500, 3001), dtype=np.uint16)
    result = normalise_image(image)
    low, high = np.percentile(image[::3, ::3], (0.1, 99.9))
    expected = np.clip((image - low) / (high - low), 0, 1) * 255
    assert np.abs(result[..., 0] - expected).max() < 3
    np.testing.assert_array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 5)), "no pixels"),
        (np.zeros((5, 5, 0)), "no pixels"),
        (np.zeros(5), "not one plane"),
        (np.zeros((2, 5, 5, 3)), "not one plane"),
        (np.zeros((5, 5), complex), "not intensities"),
        (np.full((5, 5), "x"), "not intensities"),
        (np.full((5, 5), None), "not intensities"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(ImageFormatError, match=words):
        normalise_image(image)


# --- read_pixel_size ------------------------------------------------------------------


def test_pixel_sizes_of_ome_and_imagej_are_read(tmp_path):
    pixels = np.zeros((6, 8), np.uint16)
    sizes = {"PhysicalSizeY": 0.5, "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata={"axes": "YX"} | sizes)
    assert read_pixel_size(tmp_path / "a.ome.tif") == (0.5, 0.25)
    tifffile.imwrite(tmp_path / "many.ome.tif", [pixels, pixels], metadata=sizes)
    assert read_pixel_size(tmp_path / "many.ome.tif") == (0.5, 0.25)
    for unit in ("um", "\\u00B5m", "micron"):
        tifffile.imwrite(
            tmp_path / "b.tif",
            pixels,
            imagej=True,
            resolution=(4, 2),
            metadata={"unit": unit},
        )
        assert read_pixel_size(tmp_path / "b.tif") == (0.5, 0.25)


def test_files_without_a_pixel_size_have_none(tmp_path):
    pixels = np.zeros((6, 8), np.uint16)
    options = {
        "print": {"resolution": (72, 72), "resolutionunit": "INCH"},
        "pixel": {"imagej": True, "resolution": (1, 1)},
        "endless": {"imagej": True, "resolution": (0, 0), "metadata": {"unit": "um"}},
        "huge.ome": {"metadata": {"PhysicalSizeX": 1e9, "PhysicalSizeY": 1e9}},
        "one.ome": {"metadata": {"PhysicalSizeX": 1.0}},
        "theirs.ome": {
            "metadata": {
                "PhysicalSizeX": 1.0,
                "PhysicalSizeY": 1.0,
                "PhysicalSizeYUnit": "reference frame",
            }
        },
    }
    for name, given in options.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, **given)
        assert read_pixel_size(tmp_path / f"{name}.tif") is None, name
    (tmp_path / "damaged.tif").write_bytes(b"II*\0 and no more")
    assert read_pixel_size(tmp_path / "damaged.tif") is None
    assert read_pixel_size(tmp_path / "missing.tif") is None
    assert read_pixel_size(tmp_path / "a.png") is None


# --- read_image ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".png"])
@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3), (5, 8, 4)])
def test_stored_pixels_come_back(tmp_path, rng, suffix, shape):
    pixels = rng.integers(0, 255, shape, dtype=np.uint8)
    path = tmp_path / f"image{suffix}"
    if suffix == ".png":
        Image.fromarray(pixels).save(path)
    else:
        photometric = "minisblack" if len(shape) == 2 else "rgb"
        tifffile.imwrite(path, pixels, photometric=photometric)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_sixteen_bits_and_floats_come_back(tmp_path, rng):
    sixteen = rng.integers(0, 65_535, (5, 8), dtype=np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), sixteen)
    tifffile.imwrite(tmp_path / "b.tif", rng.random((5, 8), dtype=np.float32))
    assert read_image(tmp_path / "b.tif").dtype == np.float32


def test_channels_come_last(tmp_path, rng):
    stack = rng.integers(0, 9, (2, 5, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "ij.tif", stack, imagej=True, metadata={"axes": "CYX"})
    ome = stack[np.newaxis, :, np.newaxis]
    tifffile.imwrite(tmp_path / "b.ome.tif", ome, metadata={"axes": "TCZYX"})
    for name in ("ij.tif", "b.ome.tif"):
        np.testing.assert_array_equal(
            read_image(tmp_path / name, separate=True), np.moveaxis(stack, 0, -1)
        )


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("imagej", [False, True])
def test_channels_are_no_colours_and_nobody_guesses_among_them(
    tmp_path, rng, channels, imagej
):
    stack = rng.integers(0, 9, (channels, 5, 8), dtype=np.uint16)
    path = tmp_path / ("several.tif" if imagej else "several.ome.tif")
    tifffile.imwrite(path, stack, imagej=imagej, metadata={"axes": "CYX"})
    with pytest.raises(ImageFormatError, match=f"has {channels} channels"):
        read_image(path)
    np.testing.assert_array_equal(
        read_image(path, separate=True), np.moveaxis(stack, 0, -1)
    )


def test_three_planes_of_eight_bits_may_be_a_picture(tmp_path, rng):
    stack = rng.integers(0, 255, (3, 5, 8), dtype=np.uint8)
    path = tmp_path / "picture.ome.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "CYX"}, photometric="minisblack")
    np.testing.assert_array_equal(read_image(path), np.moveaxis(stack, 0, -1))


def test_several_images_in_one_file_are_refused(tmp_path):
    path = tmp_path / "fields.tif"
    with tifffile.TiffWriter(path) as file:
        for height in (40, 80):
            file.write(np.zeros((height, 50), np.uint8))
    with pytest.raises(ImageFormatError, match="2 images"):
        read_image(path)
    with pytest.raises(LabelFormatError, match="2 images"):
        read_labels(path)


def test_a_preview_beside_the_image_is_passed_over(tmp_path):
    path = tmp_path / "preview.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.full((40, 50), 7, np.uint8))
        file.write(np.zeros((10, 12), np.uint8), subfiletype=1)
    assert read_image(path).shape == (40, 50)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour_are_kept(tmp_path, rng, channels):
    pixels = rng.integers(0, 65_535, (5, 8, channels), dtype=np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    expected = pixels[..., 0] if channels == 2 else pixels
    np.testing.assert_array_equal(read_image(path), expected)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ImageFormatError, match="deep"):
        read_image(path)


def test_a_palette_of_a_tiff_is_resolved_but_for_labels(tmp_path):
    path = tmp_path / "palette.tif"
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (10 << 8, 20 << 8, 30 << 8), (65535, 0, 0)
    pixels = np.array([[1, 2]], np.uint8)
    tifffile.imwrite(path, pixels, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(read_image(path), [[[10, 20, 30], [255, 0, 0]]])
    np.testing.assert_array_equal(read_labels(path), pixels)
    # ImageJ's palettes are for the eye
    tifffile.imwrite(path, pixels, imagej=True, colormap=colours)
    np.testing.assert_array_equal(read_image(path), pixels)


def test_stacks_are_refused_with_their_axes(tmp_path):
    stack = np.zeros((4, 5, 8), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "z.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(ImageFormatError, match="4 along Z"):
        read_image(tmp_path / "z.tif")


def test_grey_with_transparency_in_a_tiff_is_grey(tmp_path, rng):
    pixels = rng.integers(0, 255, (9, 7, 2)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif",
        pixels,
        photometric="minisblack",
        extrasamples=["unassalpha"],
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels[..., 0])
    # two channels of something else stay two
    tifffile.imwrite(
        tmp_path / "b.tif",
        pixels,
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=["unspecified"],
    )
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), pixels)


def test_colours_for_printing_are_refused(tmp_path):
    pixels = np.zeros((9, 7, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="separated")
    with pytest.raises(ImageFormatError, match="Save it as RGB"):
        read_image(tmp_path / "a.tif")


def test_a_picture_too_large_for_its_kind_is_told_what_to_do(tmp_path, monkeypatch):
    Image.fromarray(np.zeros((9, 7), np.uint8)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ImageFormatError, match=r"more than 40 pixels.*as TIFF"):
        read_image(tmp_path / "a.png")


def test_what_the_tiff_reader_asserts_is_an_error_of_ours(tmp_path, monkeypatch):
    def stumble(*_, **__):
        raise AssertionError

    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 7), np.uint8))
    monkeypatch.setattr(tifffile.TiffFile, "series", property(stumble))
    with pytest.raises(ImageFormatError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageFormatError, match="2 pictures"):
        read_image(tmp_path / "a.gif")


def test_palette_and_grey_with_alpha_are_resolved(tmp_path):
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), mode=None).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "p.png"), [[[10, 20, 30], [40, 50, 60]]]
    )
    Image.new("LA", (3, 2), (7, 0)).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), np.full((2, 3), 7))


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.gif", "a.xyz"])
@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"II*\0" + b"\xff" * 30, b"\x89PNG\r\n\x1a\n\0\0"]
)
def test_what_is_no_image_file_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageFormatError, match=name):
        read_image(path)


def test_every_truncation_is_one_of_our_errors(tmp_path, rng):
    """A damaged file must never end in another exception than ours."""
    pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    options = {"photometric": "rgb", "rowsperstrip": 3}
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression="zlib", **options)
    tifffile.imwrite(tmp_path / "b.tiff", pixels, **options)
    for suffix in ("png", "jpg"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        cut = tmp_path / f"cut{path.suffix}"
        for end in range(0, len(content), 37):
            cut.write_bytes(content[:end])
            if path.suffix == ".png" and end > len(content) - 21:
                continue  # only the end mark is missing
            with pytest.raises(ImageFormatError, match=r"cut\."):
                read_image(cut)


def test_flipped_bytes_never_crash_the_tiff_reader(tmp_path, rng):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), compression="zlib")
    content = path.read_bytes()
    for i in range(8, len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x5A]) + content[i + 1 :])
        try:
            read_image(path)
        except ImageFormatError as error:
            assert "a.tif" in str(error)  # noqa: PT017


def test_tiff_that_claims_absurd_sizes_is_refused(tmp_path):
    """A header of 200 bytes must not make us allocate 2**62 bytes."""
    tags = [(256, 4, 2**31 - 1), (257, 4, 2**31 - 1), (258, 3, 8), (259, 3, 1)]
    tags += [(262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 4, 2**31 - 1), (279, 4, 9)]
    body = struct.pack("<H", len(tags))
    body += b"".join(struct.pack("<HHII", tag, kind, 1, v) for tag, kind, v in tags)
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + body + bytes(4))
    with pytest.raises(ImageFormatError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ImageFormatError, match="is not there"):
        read_image(tmp_path / "nothing.png")
    with pytest.raises(ImageFormatError, match="is a folder"):
        read_image(tmp_path)


# --- labels --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("highest", "dtype"), [(0, np.uint16), (65_535, np.uint16), (65_536, np.uint32)]
)
def test_labels_come_back_in_the_smallest_type(tmp_path, highest, dtype):
    labels = np.zeros((5, 6), dtype=np.int64)
    labels[1, 2] = highest
    write_labels(tmp_path / "a.tif", labels)
    result = read_labels(tmp_path / "a.tif")
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, labels)


def test_labels_say_what_made_them_and_read_as_before(tmp_path):
    labels = np.arange(30, dtype=np.uint16).reshape(5, 6)
    made_by = {"model": "größtes", "adapter": None, "diameter_px": 20.5}
    write_labels(tmp_path / "a.tif", labels, made_by)
    expected = {"program": f"napari-sac {__version__}", **made_by}
    assert read_made_by(tmp_path / "a.tif") == expected
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        (page,) = tiff.pages
        assert json.loads(page.description) == {"shape": [5, 6], **expected}
        (series,) = tiff.series
        assert (series.axes, series.shape) == ("YX", (5, 6))
    found = tifffile.imread(tmp_path / "a.tif")
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(found, labels)
    assert holds_array(tmp_path / "a.tif", labels)
    write_labels(tmp_path / "a.tif", labels)
    assert read_made_by(tmp_path / "a.tif") == {"program": expected["program"]}


def test_what_others_made_is_not_known(tmp_path):
    assert read_made_by(tmp_path / "missing.tif") == {}
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    assert read_made_by(tmp_path / "broken.tif") == {}
    labels = np.zeros((5, 6), np.uint16)
    tifffile.imwrite(tmp_path / "plain.tif", labels, metadata=None)
    tifffile.imwrite(tmp_path / "theirs.tif", labels, metadata={"program": "x"})
    tifffile.imwrite(tmp_path / "ij.tif", labels, imagej=True)
    for name in ("plain", "theirs", "ij"):
        assert read_made_by(tmp_path / f"{name}.tif") == {}


def test_labels_are_compressed(tmp_path):
    write_labels(tmp_path / "a.tif", np.zeros((500, 500), np.uint32))
    assert (tmp_path / "a.tif").stat().st_size < 20_000


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2)), np.zeros((2, 2, 3), int), np.full((2, 2), -1)]
)
def test_wrong_labels_are_not_written(tmp_path, labels):
    with pytest.raises(ValueError, match="labels must"):
        write_labels(tmp_path / "a.tif", labels)
    assert list(tmp_path.iterdir()) == []


def test_palette_png_labels_are_the_indices(tmp_path):
    picture = Image.fromarray(np.array([[0, 2], [1, 2]], np.uint8)).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.putdata([0, 2, 1, 2])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), [[0, 2], [1, 2]])


def test_one_bit_labels_are_zero_and_one(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    labels = read_labels(tmp_path / "a.png")
    assert np.issubdtype(labels.dtype, np.integer)
    np.testing.assert_array_equal(labels, [[1, 0]])


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.zeros((4, 4), np.float32), "float32"),
        (np.full((4, 4), -3, np.int16), "below 0"),
        (np.full((4, 4), 2**63, np.uint64), "above 9,223,372,036,854,775,807"),
        (np.zeros((4, 4, 3), np.uint8), "3 channels"),
    ],
)
def test_files_that_are_no_labels_are_refused(tmp_path, pixels, words):
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    with pytest.raises(LabelFormatError, match=words):
        read_labels(tmp_path / "a.tif")


def test_damaged_and_missing_labels_are_label_errors(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0 nonsense")
    for name in ("a.tif", "missing.tif"):
        with pytest.raises(LabelFormatError, match=name):
            read_labels(tmp_path / name)


# --- prompts -------------------------------------------------------------------------


def test_prompts_come_back_exactly(tmp_path):
    prompts = Prompts.from_points(
        [[1 / 3, 2.0], [1e5 + 0.1, 0.0], [7, 8]],
        object_id=[5, 5, 2**31],
        sign=[POSITIVE, NEGATIVE, POSITIVE],
        score=[0.87, 1 / 3, 1],
        state=["auto", "added", "rejected"],
    )
    write_prompts(tmp_path / "a.csv", prompts)
    result = read_prompts(tmp_path / "a.csv")
    for name in ("object_id", "yx", "sign", "score", "state"):
        expected = getattr(prompts, name)
        np.testing.assert_array_equal(getattr(result, name), expected)
        assert getattr(result, name).dtype == expected.dtype


def test_prompt_file_is_as_documented(tmp_path):
    prompts = Prompts.from_points([[1.5, 2]], sign=NEGATIVE, score=0.87)
    write_prompts(tmp_path / "a.csv", prompts)
    assert (tmp_path / "a.csv").read_text() == (
        "object_id,y,x,sign,score,state\n1,1.5,2.0,-,0.87,auto\n"
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_prompts_with_other_columns_too_are_still_prompts(tmp_path, delimiter):
    file = tmp_path / "a.csv"
    prompts = Prompts.from_points(
        [[3, 4], [5, 6], [7, 8], [9, 9]],
        object_id=[1, 2, 3, 3],
        sign=[1, 1, 1, -1],
        state=["added", "rejected", "auto", "added"],
    )
    write_prompts(file, prompts)
    heading, *rows = file.read_text().splitlines()
    # as pandas writes it, with its index before
    lines = [f",{heading}", *(f"{i},{row}" for i, row in enumerate(rows))]
    file.write_text("\n".join(lines).replace(",", delimiter))
    assert read_points(file).tolist() == [[3, 4], [7, 8]]
    file.write_text("\n".join([*lines, "4,5,6"]).replace(",", delimiter))
    with pytest.raises(LabelFormatError, match="damaged at line 6"):
        read_points(file)


def test_prompts_saved_by_excel_are_read(tmp_path):
    file = tmp_path / "a_prompts.csv"
    write_prompts(file, Prompts.from_points([[3, 4]]))
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert read_prompts(file).yx.tolist() == [[3, 4]]
    assert read_points(file).tolist() == [[3, 4]]


def test_no_prompts_come_back_as_none(tmp_path):
    write_prompts(tmp_path / "a.csv", Prompts.empty())
    assert len(read_prompts(tmp_path / "a.csv")) == 0


@pytest.mark.parametrize(
    "row",
    [
        "1,2,3,+,0.5",
        "0,2,3,+,0.5,auto",
        "1.5,2,3,+,0.5,auto",
        "1,nan,3,+,0.5,auto",
        "1,2,inf,+,0.5,auto",
        "1,2,3,1,0.5,auto",
        "1,2,3,+,1.5,auto",
        "1,2,3,+,nan,auto",
        "1,2,3,+,0.5,maybe",
        "99999999999999999999,2,3,+,0.5,auto",
        "4294967296,2,3,+,0.5,auto",
        "",
    ],
)
def test_damaged_prompt_rows_are_named(tmp_path, row):
    header = "object_id,y,x,sign,score,state"
    good = "1,2,3,+,0.5,auto"
    (tmp_path / "a.csv").write_text(f"{header}\n{good}\n{row}\n")
    with pytest.raises(LabelFormatError, match="line 3"):
        read_prompts(tmp_path / "a.csv")


@pytest.mark.parametrize("content", [b"", b"id;y;x\n", b"\xff\xfe\0\0"])
def test_other_files_are_not_prompts(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(LabelFormatError, match=r"a\.csv"):
        read_prompts(tmp_path / "a.csv")


# --- folders ---------------------------------------------------------------------


def test_one_variable_moves_all_that_we_keep(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAC_HOME", str(tmp_path))
    assert data_folder() == tmp_path
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("NAPARI_SAC_HOME")
    assert data_folder() != cache_folder()
    for folder in (data_folder(), cache_folder()):
        assert folder.is_absolute()
        assert "napari-sac" in folder.parts


# --- atomic_path ---------------------------------------------------------------------


def test_failure_keeps_the_old_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as partial:
            partial.write_text("ne")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    with atomic_path(tmp_path / "a" / "b" / "c.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"


def test_target_below_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="could not be written"):
        write_labels(tmp_path / "file" / "a.tif", np.zeros((2, 2), int))


def test_target_that_is_a_folder_is_one_clear_error(tmp_path):
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(OutputError, match=r"a\.tif could not be written"):
        write_labels(tmp_path / "a.tif", np.zeros((2, 2), int))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(
    ("text", "pixel_size"),
    [
        ("y,x\n3.5,10\n7,6.5\n", None),
        ("name;X;Y\n a;10;3.5\nb;6.5;7\n\n", None),
        ("index,axis-0,axis-1\n0,3.5,10\n1,7,6.5\n", None),
        ("Name\tCentroid X px\tCentroid Y px\na\t10.5\t4\nb\t7\t7.5\n", None),
        ("Centroid X µm,Centroid Y µm\n2.625,1\n1.75,1.875\n", 0.25),
        ("\ufeffCentroid X μm,Centroid Y μm\n2.625,1\n1.75,1.875\n", 0.25),
    ],
)  # fmt: skip
def test_points_of_people_and_of_other_tools(tmp_path, text, pixel_size):
    file = tmp_path / "points.csv"
    file.write_text(text, encoding="utf-8")
    points = read_points(file, pixel_size=pixel_size)
    np.testing.assert_array_equal(points, [[3.5, 10], [7, 6.5]])


def test_of_a_table_of_prompts_each_nucleus_gives_one_point(tmp_path):
    file = tmp_path / "a_prompts.csv"
    prompts = Prompts.from_points(
        [(9, 9), (1, 2), (3, 4), (5, 6), (7, 8)],
        object_id=[4, 1, 1, 2, 3],
        sign=[1, 1, 1, -1, 1],
        state=["added", "auto", "added", "added", "rejected"],
    )
    write_prompts(file, prompts)
    np.testing.assert_array_equal(read_points(file), [[9, 9], [1, 2]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a table of points"),
        ("a,b\n1,2\n", "not a table of points"),
        ("y,x\n1\n", "line 2"),
        ("y,x\n1,2\nnan,2\n", "line 3"),
        ("Centroid X µm,Centroid Y µm\n1,2\n", "micrometres"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path, text, words):
    file = tmp_path / "points.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(LabelFormatError, match=words):
        read_points(file)
    with pytest.raises(LabelFormatError, match="No such file"):
        read_points(tmp_path / "none.csv")


def test_points_of_a_stack_are_refused(tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("index,axis-0,axis-1,axis-2\n0,3,10,7\n")
    with pytest.raises(LabelFormatError, match="points of a stack"):
        read_points(table)


def test_labels_in_a_lossy_file_are_refused(tmp_path):
    labels = np.zeros((16, 16), np.uint8)
    labels[4:9, 4:9] = 7
    Image.fromarray(labels).save(tmp_path / "labels.jpg")
    with pytest.raises(LabelFormatError, match="numbers of labels are not kept"):
        read_labels(tmp_path / "labels.jpg")


def test_whether_a_file_alone_holds_what_a_viewer_shows(tmp_path):
    grey = np.arange(600, dtype=np.uint8).reshape(20, 30)
    stack = np.stack([grey, grey, grey])
    tifffile.imwrite(tmp_path / "plane.tif", grey)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    Image.fromarray(grey).save(tmp_path / "plane.png")
    Image.fromarray(grey).save(tmp_path / "plane.gif")
    for name, shown in (
        ("plane.tif", grey), ("stack.tif", stack), ("plane.png", grey),
    ):  # fmt: skip
        assert holds_array(tmp_path / name, shown)
    # planes of several files, a picture that is read as a film, 16 bits made 8
    assert not holds_array(tmp_path / "plane.tif", stack)
    assert not holds_array(tmp_path / "plane.gif", grey[None])
    assert not holds_array(tmp_path / "plane.png", grey.astype(np.uint16))
    assert not holds_array(tmp_path / "missing.png", grey)
    (tmp_path / "slide.svs").write_bytes(b"II*")
    assert not holds_array(tmp_path / "slide.svs", grey)


def test_an_image_that_cannot_fit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8))
    monkeypatch.setattr(io, "MAX_PIXELS", 599)
    with pytest.raises(ImageFormatError, match="20 x 30 pixels, more than fit"):
        read_image(tmp_path / "a.tif")


def test_short_memory_is_not_called_damage(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(io, "_read_pixels", fail)
    with pytest.raises(ImageFormatError, match="more memory than there is"):
        read_image(tmp_path / "a.tif")


def test_results_are_called_as_their_image_but_for_what_systems_refuse():
    assert safe_name("my field (2) [a/b: 3]\n") == "my field (2) [a_b_ 3]_"
    assert safe_name("...") == "nuclei"
    assert len(safe_name("x" * 500)) == 200
    # systems count bytes, of which some letters have three
    assert safe_name("x" + "核" * 500) == "x" + "核" * 66


@pytest.mark.parametrize("metadata", [None, {}], ids=["pages", "shaped"])
def test_pages_are_channels_where_somebody_says_so(tmp_path, rng, metadata):
    pixels = rng.integers(0, 255, (2, 20, 30), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, metadata=metadata, photometric="minisblack"
    )
    with pytest.raises(ChannelsNotChosenError, match="If they are channels, say") as it:
        read_image(tmp_path / "a.tif")
    assert "--" not in str(it.value), "a dock shows it too"
    with pytest.raises(LabelFormatError) as it:
        read_labels(tmp_path / "a.tif")
    assert "show nuclei" not in str(it.value)
    found = read_image(tmp_path / "a.tif", separate=True)
    np.testing.assert_array_equal(found, np.moveaxis(pixels, 0, -1))


@pytest.mark.parametrize(
    ("axes", "shape"), [("ZYX", (5, 8, 9)), ("QZYX", (1, 5, 8, 9))]
)
def test_planes_with_a_name_are_not_taken_for_channels(tmp_path, axes, shape):
    metadata = {"axes": axes}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), metadata=metadata)
    for separate in (False, True):
        with pytest.raises(ImageFormatError, match="5 along Z") as it:
            read_image(tmp_path / "a.tif", separate=separate)
        assert "show nuclei" not in str(it.value)
