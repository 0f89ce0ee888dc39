"""Which adapters there are, which are refused, and how two compare on an image."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Layer

from napari_sac.core.config import DecodeConfig
from napari_sac.core.errors import (
    Cancelled,
    ImageFormatError,
    IncompatibleAdapterError,
    ModelNotFoundError,
)
from napari_sac.core.models.adapter import (
    INFO_FILE,
    SHIPPED_ADAPTERS,
    delete_adapter,
    find_adapter,
    retitle_adapter,
)
from napari_sac.core.progress import ignore_progress
from napari_sac.core.training.lineage import Learned, Seen, write_learned
from napari_sac.core.training.reviewed_image import review_image
from napari_sac.viewer import comparing
from napari_sac.viewer.adapters import (
    adapter_key,
    adapter_path,
    bring_adapter,
    every_adapter,
    title_of,
    write_merged,
)
from napari_sac.viewer.comparing import (
    Candidate,
    ComparisonLayers,
    compare_on_image,
    plan_comparison,
    shifted_geometry,
)
from napari_sac.viewer.finetuning import group_of
from napari_sac.viewer.inference import LoadedModel, ModelChoice
from napari_sac.viewer.planes import plane_geometry

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench

    from napari_sac.core.models.registry import Model

ALONE = Candidate("sac_tiny alone", "sac_tiny")


def copy_of_he(folder: Path, **values: Any) -> Path:
    """Return a copy of the shipped adapter that says other things of itself."""
    shutil.copytree(SHIPPED_ADAPTERS / "he", folder)
    file = folder / INFO_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


@pytest.fixture
def own(home: Path) -> Path:
    """The folder of the user's adapters."""
    return home / "adapters"


@pytest.fixture
def he(own: Path) -> Candidate:
    copy_of_he(own / "mine", title="Mine")
    info = find_adapter("mine")
    return Candidate("Mine", info.base, info)


@pytest.fixture
def two_models(monkeypatch: pytest.MonkeyPatch, disc_model: Model) -> list[ModelChoice]:
    """Stand in for loading; what was asked for is noted."""
    asked: list[ModelChoice] = []

    def load(choice: ModelChoice, loaded: object, progress: object) -> LoadedModel:
        asked.append(choice)
        return LoadedModel(choice, disc_model)

    monkeypatch.setattr(comparing, "load", load)
    return asked


# -- choosing -------------------------------------------------------------------


def test_a_choice_is_told_and_the_one_before_is_kept(bench: Bench) -> None:
    session, told = bench.session, []
    session.model_chosen.connect(lambda *names: told.append(names))
    assert session.chosen_model == ("sac_tiny", None)
    assert session.previous_model is None
    session.choose_model("sac_tiny", "he")
    session.choose_model("sac_tiny", "he")
    assert told == [("sac_tiny", "he")]
    assert session.previous_model == ("sac_tiny", None)
    session.choose_model(*session.previous_model)
    assert told[1:] == [("sac_tiny", "")]
    assert session.previous_model == ("sac_tiny", "he")


def test_what_does_not_fit_is_not_chosen(bench: Bench, own: Path) -> None:
    damaged = copy_of_he(own / "damaged")
    (damaged / "mask_decoder.safetensors").unlink()
    for model, adapter, error in (
        ("vit_b", "he", IncompatibleAdapterError),
        ("sac_tiny", "damaged", IncompatibleAdapterError),
        ("sac_tiny", "nothing", ModelNotFoundError),
        ("nothing", None, ModelNotFoundError),
    ):
        with pytest.raises(error):
            bench.session.choose_model(model, adapter)
    assert bench.session.chosen_model == ("sac_tiny", None)
    assert bench.session.previous_model is None


def test_a_loaded_adapter_that_was_replaced_is_loaded_again(
    bench: Bench, own: Path, disc_model: Model
) -> None:
    folder = copy_of_he(own / "mine", title="Mine")
    choice = ModelChoice("sac_tiny", folder)
    model = replace(disc_model, adapter=find_adapter(folder))
    bench.session.loaded = loaded = LoadedModel(choice, model)
    retitle_adapter("mine", "Still mine")
    bench.session.adapters_changed.emit()
    assert bench.session.loaded is loaded, "it is the same adapter"
    delete_adapter("mine")
    copy_of_he(folder, data="another one")
    bench.session.adapters_changed.emit()
    assert bench.session.loaded is None


# -- which there are ------------------------------------------------------------


def test_all_are_listed_with_what_is_wrong(own: Path) -> None:
    copy_of_he(own / "old", created="2026-01-01")
    copy_of_he(own / "new", created="2026-10-01")
    copy_of_he(own / "foreign", base="my_sam", created="")
    (copy_of_he(own / "damaged") / "adapter_config.json").unlink()
    (own / "a_run_that_is_going_on").mkdir()
    listed = {one.name: one for one in every_adapter()}
    assert list(listed) == ["new", "old", "damaged", "foreign", "he", "ihc"]
    assert [one.own for one in listed.values()] == [True] * 4 + [False] * 2
    assert listed["new"].problem == listed["he"].problem == ""
    assert "my_sam" in listed["foreign"].problem
    assert listed["foreign"].info is not None
    assert "is missing" in listed["damaged"].problem
    assert listed["damaged"].info is None


def test_the_key_finds_the_same_adapter_again(own: Path, tmp_path: Path) -> None:
    mine = copy_of_he(own / "mine")
    outside = copy_of_he(tmp_path / "elsewhere" / "mine")
    assert adapter_key(find_adapter(mine)) == "mine"
    assert adapter_key(find_adapter(outside)) == str(outside)


# -- new ones -------------------------------------------------------------------


def test_an_adapter_from_a_folder_gets_a_free_name(own: Path, tmp_path: Path) -> None:
    source = copy_of_he(tmp_path / "Übung 1", title="From a colleague")
    first = bring_adapter(source, ignore_progress)
    second = bring_adapter(source, ignore_progress)
    assert first.title == second.title == "From a colleague"
    assert [first.name, second.name] == ["bung_1", "bung_1_2"]
    assert {path.name for path in own.iterdir()} == {"bung_1", "bung_1_2"}
    assert bring_adapter(SHIPPED_ADAPTERS / "he", ignore_progress).name == "he_2"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base": "my_sam"}, "my_sam, which is not here"),
        ({"base_sha256": "ab" * 32}, "other weights of sac_tiny"),
        ({"format": 99}, "newer napari-sac"),
    ],
)
def test_an_adapter_that_does_not_fit_is_not_added(
    own: Path, tmp_path: Path, values: dict[str, Any], words: str
) -> None:
    source = copy_of_he(tmp_path / "sent", **values)
    with pytest.raises(IncompatibleAdapterError, match=words):
        bring_adapter(source, ignore_progress)
    assert not own.exists()


def test_damaged_weights_are_not_added(own: Path, tmp_path: Path) -> None:
    source = copy_of_he(tmp_path / "sent")
    (source / "mask_decoder.safetensors").write_bytes(b"\x80\x04nonsense")
    with pytest.raises(IncompatibleAdapterError, match="was not added"):
        bring_adapter(source, ignore_progress)
    assert not own.exists()


def test_a_cancelled_merge_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "he.pth"
    file.write_bytes(b"before")

    def cancel_late(stage: str, done: int, total: int) -> None:
        if stage == "writing the file":
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        write_merged(find_adapter("he"), file, cancel_late)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.glob("*.pth")) == [file]
    assert list(tmp_path.glob(".*")) == []
    write_merged(find_adapter("he"), file, ignore_progress)
    assert file.stat().st_size > 8_000_000


# -- side by side ---------------------------------------------------------------


def compare(bench: Bench, he: Candidate) -> comparing.SideBySide:
    request = plan_comparison(bench.session, ALONE, he)
    return compare_on_image(request, ignore_progress)


def test_without_an_image_there_is_nothing_to_compare(
    bench: Bench, he: Candidate
) -> None:
    bench.viewer.layers.clear()
    with pytest.raises(ImageFormatError, match="no image"):
        plan_comparison(bench.session, ALONE, he)


def test_both_segment_the_image(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    # the generator of a random model says nothing of nuclei
    bench.session.decode_config = DecodeConfig(minimum_iou=0, generator_weight=0)
    found = compare(bench, he)
    assert [choice.adapter for choice in two_models] == [None, he.adapter.path]
    assert [side.nuclei for side in found.sides] == [12, 12]
    assert found.reviewed == 0
    assert all(side.scores is None for side in found.sides)


def test_they_are_measured_by_what_was_reviewed(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.accept(annotation, np.arange(5))
    before = annotation.labels.data.copy()
    found = compare(bench, he)
    assert found.reviewed == 5
    for side in found.sides:
        assert side.scores is not None
        assert side.scores.f1 == pytest.approx(1.0)
        assert side.seen is Seen.NO
    ComparisonLayers(bench.viewer).show(found)
    np.testing.assert_array_equal(annotation.labels.data, before)


def test_an_image_that_was_learned_from_by_another_stain_is_known(
    bench: Bench, own: Path, he: Candidate, two_models: list[ModelChoice]
) -> None:
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.accept(annotation, np.arange(5))
    other_pixels = np.zeros((*annotation.state.labels.shape, 3), np.uint8)
    group = group_of(bench.layer)
    one = review_image(
        "field", other_pixels, annotation.state.labels.astype(np.int64), group=group
    )
    # under another name: names are told apart from pixels
    write_learned(own / "mine", [replace(one, name="other")], Learned())
    found = compare(bench, he)
    assert [side.seen for side in found.sides] == [Seen.NO, Seen.YES]


def test_who_has_drawn_the_masks_is_told(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    bench.loaded = LoadedModel(ModelChoice("sac_tiny"), bench.loaded.model)
    annotation = bench.find()
    bench.segment(annotation)
    bench.session.accept(annotation, np.arange(5))
    assert [side.drew for side in compare(bench, he).sides] == [True, False]


def test_one_of_two_layers_is_shown_where_the_image_lies(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    layers = ComparisonLayers(bench.viewer)
    layers.show(compare(bench, he))
    names = ["sac_tiny alone [field]", "Mine [field]"]
    assert [layer.name for layer in layers.layers] == names
    assert [layer.visible for layer in layers.layers] == [True, False]
    assert layers.shown() == names[0]
    assert layers.flip() == names[1]
    assert [layer.visible for layer in layers.layers] == [False, True]
    first = layers.layers[0]
    np.testing.assert_allclose(
        first.data_to_world((3, 4)), bench.layer.data_to_world((3, 4))
    )
    assert bench.session.annotations == []
    layers.show(compare(bench, he))
    assert len(bench.viewer.layers) == 3, "the new ones replace the old ones"
    bench.viewer.layers.remove(layers.layers[0])
    assert layers.flip() == ""
    layers.remove()
    assert list(bench.viewer.layers) == [bench.layer]


def test_a_copy_of_a_layer_is_the_users_own(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    layers = ComparisonLayers(bench.viewer)
    layers.show(compare(bench, he))
    # as napari duplicates it
    data, state, kind = layers.layers[0].as_layer_data_tuple()
    copied = bench.viewer.add_layer(Layer.create(data, state | {"name": "copy"}, kind))
    assert copied not in layers.layers
    layers.remove()
    assert list(bench.viewer.layers) == [bench.layer, copied]


def test_a_removed_image_drops_the_result(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    found = compare(bench, he)
    bench.viewer.layers.clear()
    with pytest.raises(ImageFormatError, match="removed"):
        ComparisonLayers(bench.viewer).show(found)
    assert len(bench.viewer.layers) == 0


def test_pixels_that_were_exchanged_drop_the_result(
    bench: Bench, he: Candidate, two_models: list[ModelChoice]
) -> None:
    found = compare(bench, he)
    bench.layer.data = bench.layer.data[::-1]
    before = list(bench.viewer.layers)
    with pytest.raises(ImageFormatError, match="got other pixels"):
        ComparisonLayers(bench.viewer).show(found)
    assert list(bench.viewer.layers) == before


def test_of_a_large_image_the_reviewed_part_is_compared(
    bench: Bench,
    he: Candidate,
    two_models: list[ModelChoice],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparing, "LARGEST_SIDE", 100)
    request = plan_comparison(bench.session, ALONE, he)
    assert request.part == "the part that is shown"
    assert [s.stop - s.start for s in request.area] == [100, 100]
    annotation = bench.find()
    bench.segment(annotation)
    row = int(np.argmin(np.abs(annotation.prompts.yx - (80, 100)).sum(axis=1)))
    bench.session.accept(annotation, np.array([row]))
    request = plan_comparison(bench.session, ALONE, he)
    assert "reviewed" in request.part
    rows, columns = request.area
    y, x = annotation.prompts.yx[row]
    assert rows.start <= y - 20 < y + 20 <= rows.stop
    assert columns.start <= x - 20 < x + 20 <= columns.stop
    found = compare_on_image(request, ignore_progress)
    assert found.reviewed == 1
    assert found.sides[0].scores.f1 == pytest.approx(1.0)
    layers = ComparisonLayers(bench.viewer)
    layers.show(found)
    np.testing.assert_allclose(
        layers.layers[0].data_to_world((0, 0)),
        bench.layer.data_to_world((rows.start, columns.start)),
    )


def test_a_part_lies_right_also_when_the_image_is_turned(bench: Bench) -> None:
    bench.layer.rotate = 30
    bench.layer.affine = np.array([[2, 0.5, 3], [0, 1, 4], [0, 0, 1]])
    from napari.layers import Labels

    geometry = shifted_geometry(plane_geometry(bench.layer), (7, 11))
    part = Labels(np.zeros((5, 5), int), **geometry)
    np.testing.assert_allclose(
        part.data_to_world((2, 3)), bench.layer.data_to_world((9, 14))
    )


def test_the_reviewed_channels_are_compared_on(bench: Bench) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (3, 60, 50), dtype=np.uint8)
    layer = bench.viewer.add_image(stack, name="stack", axis_labels=("c", "y", "x"))
    plane = replace(comparing.shown_plane(bench.session), channels=(1,))
    assert plane.layer is layer
    bench.session.about(plane)
    assert comparing.shown_plane(bench.session).channels == (1,)
    bench.viewer.layers.selection.active = bench.layer
    assert comparing.shown_plane(bench.session).layer is bench.layer


def test_a_model_has_its_title_and_what_is_gone_its_name() -> None:
    assert title_of("sac_tiny", None) == "SAC tiny without adapter"
    assert title_of("sac_tiny", "he") == "SAC tiny with H&E tissue"
    assert title_of("sac_tiny", str(adapter_path("he"))) == "SAC tiny with H&E tissue"
    # of another computer
    assert title_of("gone", r"C:\adapters\mine") == "gone with mine"
    assert title_of("gone", "/adapters/mine") == "gone with mine"
