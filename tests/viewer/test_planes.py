"""Which pixels are read from which kind of image layer, and where they lie."""

from __future__ import annotations

from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_sac.core.errors import ImageFormatError
from napari_sac.core.io import normalise_image
from napari_sac.viewer import planes
from napari_sac.viewer.layers import build_labels, labels_name, plane_name
from napari_sac.viewer.planes import (
    channel_axis,
    channel_count,
    current_plane,
    plane_geometry,
)

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 255, (5, 12, 16), np.uint8)


def test_a_grey_image() -> None:
    layer = Image(STACK[0])
    plane = current_plane(layer, (0.0, 0.0))
    assert plane.shape == (12, 16)
    assert plane.index == plane.position == ()
    np.testing.assert_array_equal(plane.read(), normalise_image(STACK[0]))


def test_colour_is_not_an_axis() -> None:
    pixels = RNG.integers(0, 255, (40, 50, 4), np.uint8)
    layer = Image(pixels, rgb=True)
    plane = current_plane(layer, (0.0, 0.0))
    assert plane.shape == (40, 50)
    assert channel_count(layer) == 0
    np.testing.assert_array_equal(plane.read(), normalise_image(pixels))


def test_the_slider_chooses_the_plane_of_a_stack() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(STACK, scale=(4, 0.5, 0.5), axis_labels=("z", "y", "x"))
    viewer.dims.set_current_step(0, 3)
    plane = current_plane(layer, viewer.dims.point)
    assert plane.index == plane.position == (3,)
    np.testing.assert_array_equal(plane.read(), normalise_image(STACK[3]))


def test_the_slider_counts_in_the_worlds_steps() -> None:
    viewer = ViewerModel()
    # a finer stack makes the slider's steps finer than those of the coarse one
    viewer.add_image(np.zeros((40, 12, 16)), scale=(0.5, 1, 1))
    layer = viewer.add_image(STACK, scale=(4, 1, 1))
    viewer.dims.set_point(0, 8)
    assert current_plane(layer, viewer.dims.point).index == (2,)


def test_a_layer_of_fewer_axes_than_the_viewer() -> None:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((4, 5, 12, 16)))
    layer = viewer.add_image(STACK)
    viewer.dims.set_current_step(1, 2)
    assert current_plane(layer, viewer.dims.point).index == (2,)


def test_beyond_the_end_of_a_stack_is_its_last_plane() -> None:
    assert current_plane(Image(STACK), (99.0, 0.0, 0.0)).index == (4,)
    assert current_plane(Image(STACK), (-9.0, 0.0, 0.0)).index == (0,)


def test_multiscale_is_read_at_full_resolution() -> None:
    layer = Image([STACK[0], STACK[0, ::2, ::2]], multiscale=True)
    plane = current_plane(layer, (0.0, 0.0))
    assert plane.shape == (12, 16)
    np.testing.assert_array_equal(plane.read(), normalise_image(STACK[0]))


@pytest.mark.parametrize("kind", ["dask", "zarr"])
def test_lazy_images_are_read_when_needed(kind: str) -> None:
    lazy = da.from_array(STACK, chunks=4) if kind == "dask" else zarr.array(STACK)
    plane = current_plane(Image(lazy), (2.0, 0.0, 0.0))
    np.testing.assert_array_equal(plane.read(), normalise_image(STACK[2]))


def test_channels_are_found_by_label_or_by_being_few() -> None:
    stack = np.zeros((3, 20, 12, 16))
    assert channel_axis(Image(STACK)) == 0
    assert channel_axis(Image(STACK, axis_labels=("z", "y", "x"))) is None
    assert channel_axis(Image(stack, axis_labels=("C", "z", "y", "x"))) == 0
    assert channel_axis(Image(stack, axis_labels=("t", "channel", "y", "x"))) == 1
    # of two axes the one that is short beside a longer one
    assert channel_axis(Image(stack)) == 0
    assert channel_axis(Image(np.zeros((20, 2, 12, 16)))) == 1
    assert channel_axis(Image(np.zeros((3, 4, 12, 16)))) is None
    assert channel_axis(Image(np.zeros((1, 3, 12, 16)))) == 1
    assert channel_axis(Image(np.zeros((1, 20, 12, 16)))) is None
    assert channel_axis(Image(np.zeros((20, 30, 12, 16)))) is None
    assert channel_axis(Image(np.zeros((2, 20, 30, 12, 16)))) is None
    assert channel_axis(Image(np.zeros((80, 12, 16)))) is None
    assert channel_axis(Image(STACK[0])) is None


def test_chosen_channels_are_added() -> None:
    plane = current_plane(Image(STACK), (0.0, 0.0, 0.0), (1, 3))
    expected = normalise_image(np.moveaxis(STACK, 0, -1), channels=(1, 3))
    np.testing.assert_array_equal(plane.read(), expected)
    assert plane.position == ()


def test_a_stain_of_a_colour_image_alone() -> None:
    pixels = RNG.integers(0, 255, (12, 16, 3), np.uint8)
    layer = Image(pixels, rgb=True)
    plane = current_plane(layer, (0.0, 0.0), stain="haematoxylin")
    expected = normalise_image(pixels, stain="haematoxylin")
    np.testing.assert_array_equal(plane.read(), expected)
    grey = current_plane(Image(STACK), (0.0, 0.0, 0.0), stain="haematoxylin")
    assert grey.stain is None


@pytest.mark.parametrize("labels", [("c", "z", "y", "x"), None])
def test_one_channel_of_a_stack_of_channels(labels: tuple[str, ...] | None) -> None:
    pixels = RNG.integers(0, 255, (2, 5, 12, 16), np.uint8)
    layer = Image(pixels, axis_labels=labels)
    plane = current_plane(layer, (0.0, 4.0, 0.0, 0.0), (1,))
    np.testing.assert_array_equal(plane.read(), normalise_image(pixels[1, 4]))
    assert plane.position == (4,)


def test_an_image_too_large_for_memory_is_refused_in_a_sentence() -> None:
    huge = da.zeros((200_000, 100_000), dtype=np.uint8, chunks=10_000)
    plane = planes.ImagePlane(Image(np.zeros((2, 2)), name="slide"), huge, ())
    with pytest.raises(ImageFormatError, match=r"slide .* crop"):
        plane.read()


def test_an_empty_image_is_refused_in_a_sentence() -> None:
    plane = planes.ImagePlane(Image(np.zeros((2, 2))), np.zeros((0, 9)), ())
    with pytest.raises(ImageFormatError, match="no pixels"):
        plane.read()


def test_layers_lie_where_the_plane_of_a_stack_lies() -> None:
    layer = Image(
        STACK,
        scale=(5, 0.5, 0.25),
        translate=(1, 2, 3),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
        affine=np.diag([1, 2, 3, 1]),
    )
    labels = Labels(np.zeros((12, 16), int), **plane_geometry(layer))
    np.testing.assert_allclose(labels.extent.world, layer.extent.world[:, 1:])
    assert labels.axis_labels == ("y", "x")
    assert [str(u) for u in labels.units] == ["micrometer"] * 2


def test_layers_are_turned_with_a_turned_image() -> None:
    layer = Image(STACK[0], rotate=30, shear=[0.2], scale=(2, 1))
    labels = Labels(np.zeros((12, 16), int), **plane_geometry(layer))
    corner = (11, 3)
    np.testing.assert_allclose(
        labels.data_to_world(corner), layer.data_to_world(corner)
    )


def test_layers_are_sheared_the_other_way_too() -> None:
    layer = Image(STACK[0], shear=[[1, 0], [0.2, 1]])
    labels = Labels(np.zeros((12, 16), int), **plane_geometry(layer))
    np.testing.assert_allclose(
        labels.data_to_world((11, 3)), layer.data_to_world((11, 3))
    )


def test_layers_are_turned_with_a_stack_turned_in_its_planes() -> None:
    turned = np.eye(3)
    turned[1:, 1:] = Image(STACK[0], rotate=30).rotate
    layer = Image(STACK, rotate=turned, shear=[0, 0, 0.2], scale=(3, 2, 1))
    labels = Labels(np.zeros((12, 16), int), **plane_geometry(layer))
    np.testing.assert_allclose(
        labels.data_to_world((11, 3)), layer.data_to_world((0, 11, 3))[1:]
    )


def test_a_stack_turned_out_of_its_planes_is_no_error() -> None:
    with pytest.warns(UserWarning, match="Non-orthogonal"):
        layer = Image(STACK, rotate=(20, 30, 10))
    assert "rotate" not in plane_geometry(layer)


def test_the_slider_chooses_the_plane_of_a_stack_in_colour() -> None:
    viewer = ViewerModel()
    pixels = RNG.integers(0, 255, (4, 40, 50, 3), np.uint8)
    layer = viewer.add_image(pixels, rgb=True)
    viewer.dims.set_current_step(0, 2)
    plane = current_plane(layer, viewer.dims.point)
    assert (plane.index, plane.shape, channel_count(layer)) == ((2,), (40, 50), 0)
    np.testing.assert_array_equal(plane.read(), normalise_image(pixels[2]))
    alone = replace(plane, stain="haematoxylin").read()
    np.testing.assert_array_equal(
        alone, normalise_image(pixels[2], stain="haematoxylin")
    )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_channels_at_the_end_are_told_and_not_segmented(count: int) -> None:
    layer = Image(np.zeros((90, 100, count), np.uint8), rgb=False)
    with pytest.raises(ImageFormatError, match="move the channels to the front"):
        current_plane(layer, (0.0, 0.0, 0.0)).read()


def test_a_narrow_picture_is_no_channels() -> None:
    for shape in ((90, 3), (5, 90, 90), (90, 30, 5)):
        layer = Image(np.zeros(shape, np.uint8), rgb=False)
        assert current_plane(layer, (0.0,) * len(shape)).read().shape[2] == 3


def test_the_labels_of_axes_say_what_is_channels() -> None:
    thin = np.zeros((90, 100, 5), np.uint8)
    strip = Image(thin, rgb=False, axis_labels=("z", "y", "x"))
    assert current_plane(strip, (0.0,) * 3).read().shape == (100, 5, 3)
    wide = Image(np.zeros((9, 9, 40), np.uint8), axis_labels=("y", "x", "c"))
    with pytest.raises(ImageFormatError, match="looks like channels"):
        current_plane(wide, (0.0,) * 3).read()


def test_a_drive_that_is_gone_is_told_as_what_it_is() -> None:
    def gone(block_id: object) -> np.ndarray:
        raise OSError("No such device")

    data = da.map_blocks(gone, dtype=np.uint8, chunks=((8,), (8,)))
    layer = Image(STACK[0, :8, :8], name="slide")
    plane = replace(current_plane(layer, (0.0, 0.0)), data=data)
    with pytest.raises(ImageFormatError, match=r"slide could not be read .No such dev"):
        plane.read()


def test_the_names_of_layers_tell_the_plane() -> None:
    layer = Image(STACK, name="stack", axis_labels=("z", "y", "x"))
    plane = current_plane(layer, (3.0, 0.0, 0.0))
    assert plane_name(plane) == "stack, plane 3"
    labels = build_labels(
        np.zeros((12, 16), np.uint32), labels_name("stack, plane 3"), {}
    )
    assert labels.name == "nuclei [stack, plane 3]"
    assert labels.data.dtype == np.uint32
