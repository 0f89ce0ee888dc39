"""After an edit the labels are those of decoding everything, to the last bit."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import build_tiny_model, draw_nuclei

from napari_sac.core.config import DecodeConfig
from napari_sac.core.inference import live, predictor
from napari_sac.core.inference.embedding import Embedding, embed_image
from napari_sac.core.inference.instances import assemble_labels, protected_objects
from napari_sac.core.inference.live import (
    LabelUpdate,
    touched_nuclei,
    update_labels,
)
from napari_sac.core.inference.predictor import decode_prompts, neighbour_reach
from napari_sac.core.types import NEGATIVE, POSITIVE, ObjectMask, Prompts

if TYPE_CHECKING:
    from napari_sac.core.models.registry import Model

ACTIONS = (
    "add",
    "add beside",
    "negative",
    "move",
    "delete",
    "accept",
    "reject",
    "merge",
    "restore",
    "reject many",
    "paint",
    "erase",
    "release",
)
BATCH = 8


def discs(
    sam: object,
    windows: torch.Tensor,
    origins: torch.Tensor,
    points_yx: torch.Tensor,
    signs: torch.Tensor,
    *,
    local_frame: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand in for the decoder: discs about the positives, cut away at negatives."""
    side = 4 * windows.shape[-1]
    pixels = torch.stack(
        torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1
    )
    places = pixels * 2 + origins[:, None, None] * 8 + 0.5
    far = (places[:, :, :, None] - points_yx[:, None, None]).norm(dim=-1)
    radius = 6 + points_yx[:, 0, 0] % 6
    inside = radius[:, None, None, None] - far
    positive = torch.where((signs == 1)[:, None, None], inside, -99.0).amax(-1)
    negative = torch.where((signs == 0)[:, None, None], 4 - far, -99.0).amax(-1)
    logits = torch.minimum(positive, -negative)
    iou = (points_yx[:, 0].sum(-1) * 7.31) % 1
    return logits, iou


@dataclass
class Edited:
    """An image under edit, its labels kept up to date by updates alone."""

    model: Model
    embedding: Embedding
    config: DecodeConfig
    prompts: Prompts
    labels: npt.NDArray[np.uint32] = field(init=False)
    masks: dict[int, ObjectMask] = field(default_factory=dict)
    painted: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.labels = np.zeros(self.embedding.image_shape, np.uint32)
        self.edit(self.prompts, before=Prompts.empty())

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return np.unique(self.prompts.object_id)

    def edit(
        self,
        after: Prompts,
        *,
        before: Prompts | None = None,
        painted: frozenset[int] | None = None,
        **by_hand: Any,
    ) -> LabelUpdate:
        now_painted = self.painted if painted is None else painted
        touched = touched_nuclei(
            self.prompts if before is None else before,
            after,
            self.config,
            neighbour_reach(self.embedding, self.model),
        )
        update = update_labels(
            self.labels,
            self.masks,
            self.embedding,
            after,
            self.model,
            self.config,
            touched=touched | (now_painted - self.painted),
            painted=now_painted,
            released=self.painted - now_painted,
            **by_hand,
        )
        self._assert_accepted_stay(update, after, now_painted)
        (y, x), (height, width) = update.origin_yx, update.before.shape
        there = self.labels[y : y + height, x : x + width]
        np.testing.assert_array_equal(there, update.before)
        there[:] = update.after
        for object_id, mask in update.masks.items():
            if mask is None:
                del self.masks[object_id]
            else:
                self.masks[object_id] = mask
        self.prompts, self.painted = after, now_painted
        return update

    def _assert_accepted_stay(
        self, update: LabelUpdate, after: Prompts, painted: frozenset[int]
    ) -> None:
        """No one takes pixels of a nucleus that was accepted, nor gives it any."""
        stay = protected_objects(after, self.labels) - self.painted - painted
        for object_id in stay:
            mine = [p.select(p.object_id == object_id) for p in (self.prompts, after)]
            if mine[0].equals(mine[1]):
                np.testing.assert_array_equal(
                    update.before == object_id, update.after == object_id
                )

    def assert_as_if_decoded_anew(self) -> None:
        masks = decode_prompts(self.embedding, self.prompts, self.model, self.config)
        assert [m.object_id for m in masks] == sorted(self.masks)
        for mask in masks:
            mine = self.masks[mask.object_id]
            assert mine.origin_yx == mask.origin_yx
            assert mine.predicted_iou == mask.predicted_iou
            assert mine.logits.tobytes() == mask.logits.tobytes()
        labels = assemble_labels(
            masks,
            self.labels.shape,
            self.config,
            prompts=self.prompts,
            painted=self.painted,
            labels=self.labels,
        )
        np.testing.assert_array_equal(labels, self.labels)

    def act(self, action: str, rng: np.random.Generator) -> None:
        prompts, shape = self.prompts, np.array(self.labels.shape)
        row = int(rng.integers(len(prompts)))
        object_id = int(prompts.object_id[row])
        rows = prompts.object_id == object_id
        where = rng.uniform(0, shape)
        if action == "add":
            self._append(where, int(self.ids.max()) + 1, POSITIVE)
        elif action == "add beside":
            beside = prompts.yx[row] + rng.integers(-4, 5, 2)
            self._append(beside, int(self.ids.max()) + 1, POSITIVE)
        elif action == "negative":
            self._append(prompts.yx[row] + rng.normal(0, 6, 2), object_id, NEGATIVE)
        elif action == "move":
            yx = prompts.yx.copy()
            yx[row] += rng.integers(-12, 13, 2)
            self._set(rows, "moved", yx=yx)
        elif action == "delete" and rows.sum() < len(prompts):
            self.edit(prompts.select(~rows), painted=self.painted - {object_id})
        elif action == "accept":
            self._accept(object_id)
        elif action == "merge" and not self.painted:
            self._merge(object_id, int(rng.choice(self.ids)))
        elif action in ("reject", "restore"):
            restored = prompts.state == "rejected"
            self._set(
                *((rows, "rejected") if action == "reject" else (restored, "auto"))
            )
        elif action == "reject many":
            some = rng.choice(self.ids, len(self.ids) // 3, replace=False)
            self._set(np.isin(prompts.object_id, some), "rejected")
        elif action in ("paint", "erase"):
            self._paint(where.astype(int), object_id if action == "paint" else 0)
        elif action == "release" and self.painted:
            self.edit(prompts, painted=self.painted - {min(self.painted)})

    def _accept(self, object_id: int) -> None:
        before = self.labels.copy()
        rows = self.prompts.object_id == object_id
        found = (self.prompts.state[rows] == "auto").all()
        self._set(rows, "accepted")
        if found and (before == object_id).any():
            np.testing.assert_array_equal(self.labels, before)

    def _merge(self, first: int, second: int) -> None:
        rows = np.isin(self.prompts.object_id, [first, second])
        ids = np.where(rows, min(first, second), self.prompts.object_id)
        self._set(rows, "accepted", object_id=ids)

    def _append(self, yx: npt.ArrayLike, object_id: int, sign: int) -> None:
        row = Prompts.from_points(yx, object_id=object_id, sign=sign, state="added")
        self.edit(Prompts.concatenate([self.prompts, row]))

    def _set(self, rows: npt.NDArray[np.bool_], state: str, **columns: Any) -> None:
        states = self.prompts.state.copy()
        states[rows] = state
        self.edit(replace(self.prompts, state=states, **columns))

    def _paint(self, yx: npt.NDArray[np.int_], object_id: int) -> None:
        y, x = yx.tolist()
        box = (max(y - 7, 0), max(x - 7, 0), y + 8, x + 8)
        window = self.labels[box[0] : box[2], box[1] : box[3]]
        hit = set(np.unique(window).tolist()) | {object_id}
        window[:] = object_id
        self.edit(self.prompts, painted=self.painted | (hit - {0}), repainted=box)


@cache
def model_and_embedding() -> tuple[Model, Embedding]:
    model = build_tiny_model()
    return model, embed_image(draw_nuclei().image, model, scale=1.0)


def dense_prompts(seed: int, count: int = 30) -> Prompts:
    rng = np.random.default_rng(seed)
    # whole numbers, so that neighbours at equal distance are common
    return Prompts.from_points(rng.integers(0, (160, 200), (count, 2)).astype(float))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=12),
    neighbours=st.integers(0, 2),
)
def test_updates_equal_decoding_everything(
    seed: int,
    actions: list[str],
    neighbours: int,
) -> None:
    # not as fixtures: hypothesis would print them
    tiny_model, embedding = model_and_embedding()
    rng = np.random.default_rng(seed)
    config = DecodeConfig(neighbour_negatives=neighbours, overlap_threshold=0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "decode_windows", discs)
        edited = Edited(tiny_model, embedding, config, dense_prompts(seed % 100))
        edited.assert_as_if_decoded_anew()
        for action in actions:
            edited.act(action, rng)
            edited.assert_as_if_decoded_anew()


def test_the_real_decoder_gives_the_same_bits_alone_and_in_company() -> None:
    tiny_model, embedding = model_and_embedding()
    config = DecodeConfig(minimum_iou=0.0)
    edited = Edited(tiny_model, embedding, config, dense_prompts(3))
    rng = np.random.default_rng(5)
    for action in ("add", "move", "negative", "reject", "add beside", "delete"):
        edited.act(action, rng)
    edited.assert_as_if_decoded_anew()


def test_dropping_one_of_a_chain_reaches_to_its_end() -> None:
    """Of three that cover each other in turn, the first decides about the last."""
    model, embedding = model_and_embedding()
    config = DecodeConfig(neighbour_negatives=0, overlap_threshold=0.2)
    points = [[20.0, 10.0], [20.0, 17.0], [20.0, 24.0]]  # in one tile
    chain = Prompts.from_points(points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "decode_windows", falling_discs)
        edited = Edited(model, embedding, config, chain)
        assert set(np.unique(edited.labels)) == {0, 1, 3}
        edited.edit(chain.select([1, 2]))
        assert set(np.unique(edited.labels)) == {0, 2}
        edited.assert_as_if_decoded_anew()


def falling_discs(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Discs of one size, the more certain the farther to the left."""
    _, _, _, points_yx, _ = arguments
    logits, _ = discs(*arguments, **options)
    return logits, 1 - points_yx[:, 0, 1] / 1000


def test_an_edit_reaches_those_beside_it_and_no_others() -> None:
    places = [[5, 5], [5, 15], [5, 60], [5, 72]]
    prompts = Prompts.from_points(places, state="added")
    config = DecodeConfig(neighbour_negatives=1)
    deleted = prompts.select([0, 2, 3])
    assert touched_nuclei(prompts, deleted, config, 20.0) == {1, 2}
    assert touched_nuclei(prompts, prompts.select([3, 1, 0, 2]), config, 20.0) == set()
    alone = DecodeConfig(neighbour_negatives=0)
    assert touched_nuclei(prompts, deleted, alone, 20.0) == {2}


def test_an_edit_of_one_in_thousands_looks_at_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = np.stack(np.mgrid[:50, :60], -1).reshape(-1, 2) * 20.0
    prompts = Prompts.from_points(grid, state="added")
    after = prompts.select(np.arange(len(prompts)) != 1234)
    looked_at = []
    original = live.neighbour_negatives

    def counted(table: Prompts, *args: Any, **kwargs: Any) -> Prompts:
        looked_at.append(len(table))
        return original(table, *args, **kwargs)

    monkeypatch.setattr(live, "neighbour_negatives", counted)
    touched = touched_nuclei(prompts, after, DecodeConfig(neighbour_negatives=4), 25.0)
    # its place in the table is its number less one; the four beside it lose a negative
    assert touched == {1235, 1234, 1236, 1175, 1295}
    assert len(looked_at) == 2
    assert max(looked_at) <= 25


def test_a_change_of_score_touches_nothing() -> None:
    prompts = Prompts.from_points([[5, 5], [5, 15]])
    after = replace(prompts, score=np.float32([0.1, 0.2]))
    assert touched_nuclei(prompts, after, DecodeConfig(), 20.0) == set()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("placed", [300, 150])
def test_neighbours_are_the_same_for_few_and_for_all(
    count: int, placed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # many at equal distances
    prompts = Prompts.from_points(
        np.random.default_rng(0).integers(0, 30, (300, 2)).astype(float),
        state=np.where(np.arange(300) < placed, "added", "auto"),
    )
    few = predictor.neighbour_negatives(prompts, count, 6.0, only=range(1, 301, 7))
    monkeypatch.setattr(predictor, "_FEW_PAIRS", 0)
    every = predictor.neighbour_negatives(prompts, count, 6.0)
    assert len(every) > 250
    chosen = every.select(every.object_id % 7 == 1)
    np.testing.assert_array_equal(few.object_id, chosen.object_id)
    np.testing.assert_array_equal(few.yx, chosen.yx)


def test_semantic_mode_has_no_updates() -> None:
    model, embedding = model_and_embedding()
    with pytest.raises(ValueError, match="instance mode"):
        update_labels(
            np.zeros(embedding.image_shape, np.uint32),
            {},
            embedding,
            Prompts.empty(),
            model,
            DecodeConfig(mode="semantic"),
            touched=set(),
        )


@pytest.fixture
def one_disc(monkeypatch: pytest.MonkeyPatch) -> Edited:
    """Return a nucleus with a radius of 8 pixels at (50, 50)."""
    monkeypatch.setattr(predictor, "decode_windows", discs)
    model, embedding = model_and_embedding()
    points = Prompts.from_points([[50.0, 50.0]])
    return Edited(model, embedding, DecodeConfig(neighbour_negatives=1), points)


def with_point(
    edited: Edited, yx: tuple[float, float], object_id: int, sign: int = POSITIVE
) -> Prompts:
    row = Prompts.from_points(yx, object_id=object_id, sign=sign, state="added")
    return Prompts.concatenate([edited.prompts, row])


def test_a_neighbour_takes_nothing_of_what_was_accepted(one_disc: Edited) -> None:
    found = one_disc.labels == 1
    edge = (50.0, 50.0 + found[50, 50:].sum() + 1)
    beside = with_point(one_disc, edge, 2)
    one_disc.edit(beside)
    taken = found & (one_disc.labels != 1)
    assert taken.any()
    one_disc.edit(one_disc.prompts.select([0]))
    accepted = replace(one_disc.prompts, state=np.array(["accepted"]))
    one_disc.edit(accepted)
    one_disc.edit(with_point(one_disc, edge, 2))
    np.testing.assert_array_equal(one_disc.labels == 1, found)
    assert (one_disc.labels == 2).any()
    one_disc.assert_as_if_decoded_anew()


@pytest.mark.parametrize(("object_id", "sign"), [(1, NEGATIVE), (2, POSITIVE)])
def test_a_point_set_in_what_was_accepted_changes_it(
    one_disc: Edited, object_id: int, sign: int
) -> None:
    one_disc.edit(replace(one_disc.prompts, state=np.array(["accepted"])))
    found = one_disc.labels == 1
    one_disc.edit(with_point(one_disc, (50.0, 53.0), object_id, sign))
    assert (found & (one_disc.labels != 1)).any()
    one_disc.assert_as_if_decoded_anew()


def test_a_merge_of_what_was_accepted_is_drawn(one_disc: Edited) -> None:
    one_disc.edit(with_point(one_disc, (50.0, 58.0), 2))
    states = np.array(["accepted", "accepted"])
    one_disc.edit(replace(one_disc.prompts, state=states))
    both = one_disc.labels != 0
    ids = np.array([1, 1])
    one_disc.edit(replace(one_disc.prompts, object_id=ids))
    assert (one_disc.labels[both] == 1).all()
    one_disc.assert_as_if_decoded_anew()


def drawn_discs(side: int) -> tuple[Prompts, dict[int, ObjectMask]]:
    """Return accepted nuclei in a square, 16 pixels apart, with masks that overlap."""
    middles = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2) * 16 + 10
    away = np.hypot(*np.mgrid[-9:10, -9:10])
    masks = {
        k: ObjectMask(k, (y - 9, x - 9), np.float32(9 - away), 0.9, b"", b"")
        for k, (y, x) in enumerate(middles.tolist(), start=1)
    }
    return Prompts.from_points(middles.astype(float), state="accepted"), masks


def test_an_edit_of_thousands_takes_as_long_as_to_draw_them() -> None:
    model, embedding = model_and_embedding()
    config = DecodeConfig()
    prompts, masks = drawn_discs(70)
    shape = (70 * 16 + 20,) * 2
    start = perf_counter()
    labels = assemble_labels(masks.values(), shape, config, prompts=prompts)
    drawn = perf_counter() - start
    start = perf_counter()
    update = update_labels(
        labels,
        masks,
        embedding,
        prompts,
        model,
        config,
        touched=set(),
        released=set(masks),
    )
    # to compare each with all others takes many times as long
    assert perf_counter() - start < 6 * drawn
    np.testing.assert_array_equal(update.before, update.after)


def test_many_without_pixels_are_looked_for_once() -> None:
    model, embedding = model_and_embedding()
    prompts, masks = drawn_discs(20)
    labels = np.zeros((4000, 4000), np.uint32)
    start = perf_counter()
    assert not (labels == 1).any()
    once = perf_counter() - start
    start = perf_counter()
    update = update_labels(
        labels,
        masks,
        embedding,
        prompts,
        model,
        DecodeConfig(),
        touched=set(),
        repainted=(0, 0, 330, 330),
    )
    assert perf_counter() - start < 150 * once
    assert set(np.unique(update.after)) == {0, *masks}
