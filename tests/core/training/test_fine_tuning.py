"""A run: what learns, what it is the same from, what it survives, what it leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from filelock import FileLock
from synthetic import draw_nuclei

from napari_sac.core.config import FinetuneConfig
from napari_sac.core.device import select_device
from napari_sac.core.errors import Cancelled, DeviceError, OutputError
from napari_sac.core.models.adapter import (
    DECODER_FILE,
    GENERATOR_FILE,
    LORA_FILE,
    WEIGHT_NAMES,
    read_adapter_info,
)
from napari_sac.core.models.weight_files import read_weights
from napari_sac.core.training import (
    checkpoint,
    fine_tuning,
    joint_step,
    planning,
    stepping,
    validation,
)
from napari_sac.core.training import run as run_module
from napari_sac.core.training.events import Stepped, Told, Validated, Wish, Working
from napari_sac.core.training.fine_tuning import finetune
from napari_sac.core.training.joint_step import Pool, add_gradients, draw_batch
from napari_sac.core.training.lineage import learned_by
from napari_sac.core.training.memory import Plan
from napari_sac.core.training.planning import fit_time
from napari_sac.core.training.preparation import prepare
from napari_sac.core.training.reviewed_image import review_image
from napari_sac.core.training.run import Job, build_state
from napari_sac.core.training.run_folder import RUN
from napari_sac.core.training.targets import typical_diameter
from napari_sac.core.training.team import Team
from napari_sac.core.training.training_set import split, with_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_sac.core.progress import Progress
    from napari_sac.core.training.events import Event
    from napari_sac.core.training.reviewed_image import ReviewedImage
    from napari_sac.core.training.run import Run
    from napari_sac.core.training.sampling import TrainingImage

pytestmark = pytest.mark.usefixtures("tiny_registry")

CONFIG = FinetuneConfig(
    epochs=5, batch_size=2, prompts_per_crop=4, rank=2, learning_rate=4e-3
)


@pytest.fixture
def team() -> Team:
    return Team(select_device("cpu"))


@pytest.fixture
def job(reviewed: tuple[ReviewedImage, ...], tmp_path: Path) -> Job:
    return Job("sac_tiny", None, split(reviewed), tmp_path / "mine", CONFIG)


def rows_of(job: Job, name: str = "curve.csv") -> list[dict[str, str]]:
    with (job.output / "run" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    return {
        f"{file} {name}": tensor
        for file in WEIGHT_NAMES
        for name, tensor in read_weights(job.output / file).items()
    }


def losses_of(job: Job) -> list[str]:
    return [row["loss"] for row in rows_of(job)]


def test_a_run_leaves_an_adapter_and_its_proof(job: Job, team: Team) -> None:
    events: list[Event] = []
    outcome = finetune(job, team, listen=events.append)
    info = read_adapter_info(job.output)
    assert info == replace(outcome.adapter, path=info.path)
    assert info.base == "sac_tiny"
    assert info.data_sha256 == job.data.digest()
    nuclei = sum(one.count for one in job.data.training)
    assert info.data == f"{nuclei} nuclei of {len(job.data.training)} images"
    assert info.promoted == outcome.report["promoted"]
    report = json.loads((job.output / "report.json").read_text())
    assert report == outcome.report
    assert set(report["base"]) == set(report["tuned"]) == {
        "dice", "iou", "aji", "pq", "dq", "sq", "ap50", "ap", "f1",
    }  # fmt: skip
    assert report["held_out"] == "images"
    assert report["device"] == "cpu"
    assert report["seconds"] > 0
    page = (job.output / "report.html").read_text()
    assert "<svg" in page
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("http://www.w3.org", "")
    steps = [e for e in events if isinstance(e, Stepped)]
    assert [e.step for e in steps] == list(range(5, report["steps"] + 1, 5))
    looked = [e for e in events if isinstance(e, Validated)]
    assert looked[0].step == 0
    assert looked[-1].step == report["steps"]
    told = " ".join(e.text for e in events if isinstance(e, Told))
    assert "Estimate" in told
    assert "held out: 1 whole image (" in told


def test_the_loss_falls(job: Job, team: Team) -> None:
    finetune(replace(job, config=replace(CONFIG, epochs=15)), team)
    losses = [float(value) for value in losses_of(job)]
    assert losses[-1] < losses[0] - 0.2


def test_the_same_seed_gives_the_same_adapter(
    job: Job, team: Team, tmp_path: Path
) -> None:
    again = replace(job, output=tmp_path / "again")
    other = replace(job, output=tmp_path / "other", config=replace(job.config, seed=1))
    for one in (job, again, other):
        finetune(one, team)
    first, second, third = weights_of(job), weights_of(again), weights_of(other)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert losses_of(job) == losses_of(again)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_killed_run_ends_as_one_that_was_not(
    job: Job, team: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    whole = replace(job, output=tmp_path / "whole")
    finetune(whole, team)

    class Killed(BaseException):
        pass

    def kill(event: Event) -> None:
        # rows of steps 5 and 10 are written, the checkpoint is of step 9
        if isinstance(event, Stepped) and event.step == 10:
            raise Killed

    with pytest.raises(Killed):
        finetune(job, team, listen=kill)
    assert len(rows_of(job)) == 2
    with pytest.raises(OutputError, match="--resume"):
        finetune(job, team)
    finetune(job, team, resume=True)
    expected = weights_of(whole)
    assert all(torch.equal(expected[k], v) for k, v in weights_of(job).items())
    assert losses_of(job) == losses_of(whole)
    told: list[Event] = []
    again = finetune(job, team, resume=True, listen=told.append)
    (said,) = (event.text for event in told if isinstance(event, Told))
    assert "is finished" in said
    assert "Nothing was trained" in said
    assert again.report["steps"] == len(rows_of(job)) * 5, "done: nothing is done again"
    other = replace(job, config=replace(CONFIG, rank=3))
    with pytest.raises(OutputError, match="other settings, and was kept"):
        finetune(other, team, resume=True)


@pytest.mark.parametrize("paused", [False, True])
def test_a_checkpoint_follows_a_validation_and_a_pause(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch, *, paused: bool
) -> None:
    runs: list[Run] = []

    def look_often(run: Run, evaluation: float, spent: float) -> None:
        fit_time(run, evaluation, spent)
        run.validate_every = 3
        runs.append(run)

    class Killed(BaseException):
        pass

    monkeypatch.setattr(fine_tuning, "fit_time", look_often)
    wishes = iter([Wish.PAUSE] * paused)

    def ask() -> Wish:
        if not runs or runs[0].state.step < 4:
            return Wish.GO
        for wish in wishes:
            return wish
        raise Killed

    with pytest.raises(Killed):
        finetune(job, team, ask=ask)
    saved = torch.load(job.output / RUN / "checkpoint.pt", weights_only=True)
    assert saved["step"] == (4 if paused else 3)


def test_a_quick_run_goes_on_with_the_crops_it_began_with(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached: list[list[tuple[int, ...]]] = []

    def note(run: Run, evaluation: float, spent: float) -> None:
        cached.append([tuple(one.crop.image.shape) for one in run.pool.cached])
        fit_time(run, evaluation, spent)

    monkeypatch.setattr(fine_tuning, "fit_time", note)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    quick = replace(job, config=replace(CONFIG, quick=True, epochs=5))
    steps: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            steps.append(event)

    def ask() -> Wish:
        return Wish.CANCEL if steps else Wish.GO

    with monkeypatch.context() as short:
        sizes = iter([1000, 1000])
        short.setattr(planning, "free_memory", lambda _: 100)
        short.setattr(planning, "measure_memory", lambda *_: next(sizes, 10))
        with pytest.raises(Cancelled):
            finetune(quick, team, listen=listen, ask=ask)
    # now there is memory for larger ones
    outcome = finetune(quick, team, resume=True)
    assert sum("instead of" in note for note in outcome.report["notes"]) == 1
    assert cached[0]
    assert cached[1] == cached[0]


def test_a_quick_run_goes_on_with_smaller_crops_where_memory_went(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    quick = replace(job, config=replace(CONFIG, quick=True, epochs=20))
    steps: list[Event] = []

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            steps.append(event)

    def ask() -> Wish:
        return Wish.CANCEL if steps else Wish.GO

    with pytest.raises(Cancelled):
        finetune(quick, team, listen=listen, ask=ask)
    sizes = iter([1000, 1000])
    monkeypatch.setattr(planning, "free_memory", lambda _: 100)
    monkeypatch.setattr(planning, "measure_memory", lambda *_: next(sizes, 10))
    outcome = finetune(quick, team, resume=True)
    assert outcome.report["crop"] == 32
    assert any("crops of 32 instead of 64" in n for n in outcome.report["notes"])
    assert outcome.report["steps"] == outcome.report["steps_planned"]


def test_another_run_is_not_resumed(job: Job, team: Team) -> None:
    steps: list[Event] = []

    def ask() -> Wish:
        return Wish.CANCEL if steps else Wish.GO

    def listen(event: Event) -> None:
        if isinstance(event, Stepped):
            steps.append(event)

    with pytest.raises(Cancelled):
        finetune(job, team, listen=listen, ask=ask)
    first = replace(job.data, training=job.data.training[:1])
    for other, said in (
        (replace(job, config=replace(CONFIG, rank=3)), "other settings"),
        (replace(job, data=first), "other images, labels or points"),
        (
            replace(job, data=replace(job.data, held_out=job.data.training)),
            "another held-out part",
        ),
    ):
        with pytest.raises(OutputError, match=f"begun with {said}, and was kept"):
            finetune(other, team, resume=True)


def test_a_run_is_gone_on_with_by_one_process_at_once(job: Job, team: Team) -> None:
    run = job.output / RUN
    run.mkdir(parents=True)
    checkpoint.note_settings(job)
    with (
        FileLock(run / "lock"),
        pytest.raises(OutputError, match="another process"),
    ):
        finetune(job, team, resume=True)
    finetune(job, team, resume=True)


def test_minutes_leave_time_to_compare_also_when_resumed(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[float] = []

    def note(run: Run, evaluation: float, spent: float) -> None:
        planned.append(evaluation)
        fit_time(run, evaluation, spent)

    monkeypatch.setattr(fine_tuning, "fit_time", note)
    asked = iter([Wish.GO] * 3)
    with pytest.raises(Cancelled):
        finetune(
            job,
            team,
            # cancelled in the training, when the held-out part was looked at
            ask=lambda: next(asked, Wish.CANCEL) if planned else Wish.GO,
        )
    finetune(job, team, resume=True)
    assert planned[0] > 0
    assert planned == [planned[0]] * 2


def test_stop_keeps_the_best(job: Job, team: Team) -> None:
    events: list[Event] = []

    def ask() -> Wish:
        stepped = any(isinstance(event, Stepped) for event in events)
        return Wish.STOP if stepped else Wish.GO

    outcome = finetune(job, team, listen=events.append, ask=ask)
    assert outcome.report["stopped"]
    assert outcome.report["steps"] == 5
    assert read_adapter_info(job.output).name == "mine"


def test_quick_leaves_the_encoder(job: Job, team: Team) -> None:
    quick = replace(job, config=replace(CONFIG, quick=True, epochs=5))
    state, _ = build_state("sac_tiny", None, quick.config, team)
    finetune(quick, team)
    for name, tensor in read_weights(job.output / LORA_FILE).items():
        assert "lora_A" in name or not tensor.any()
    for file, module in (
        (DECODER_FILE, state.sam.mask_decoder),
        (GENERATOR_FILE, state.generator),
    ):
        before = module.state_dict()
        after = read_weights(job.output / file)
        changed = [k for k in after if not torch.equal(after[k], before[k])]
        assert changed
        assert not any("running_" in k for k in changed)


@pytest.mark.parametrize("quick", [True, False])
def test_what_is_kept_lies_between_the_weights_before_and_after(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch, *, quick: bool
) -> None:
    config = replace(CONFIG, quick=quick)
    # nothing is the best, so the last is kept
    monkeypatch.setattr(fine_tuning, "choose_windows", lambda *_: ())
    saved = {}
    for part in (0.0, 0.25, 1.0):
        name = "QUICK_PART" if quick else "FULL_PART"
        monkeypatch.setattr(run_module, name, part)
        one = replace(job, config=config, output=job.output / f"{part}")
        finetune(one, team)
        saved[part] = weights_of(one)
    for name, before in saved[0.0].items():
        if not before.is_floating_point():
            continue
        between = torch.lerp(before, saved[1.0][name], 0.25)
        if "lora_A" in name:
            between = saved[1.0][name]
        torch.testing.assert_close(saved[0.25][name], between)
        assert not ("lora_B" in name and before.any()), "nothing of the effect"
    moved = [n for n in saved[0.0] if not torch.equal(saved[0.0][n], saved[1.0][n])]
    assert any(GENERATOR_FILE in name for name in moved)
    assert any(DECODER_FILE in name for name in moved)
    assert any("lora_B" in name for name in moved) is not quick


def test_of_an_adapter_that_learns_on_nothing_is_kept_but_a_part(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "choose_windows", lambda *_: ())
    monkeypatch.setattr(run_module, "FULL_PART", 1.0)
    parent = replace(job, output=job.output / "parent")
    finetune(parent, team)
    assert read_weights(parent.output / LORA_FILE)
    monkeypatch.setattr(run_module, "FULL_PART", 0.0)
    child = replace(job, adapter=parent.output, output=job.output / "child")
    finetune(child, team)
    before, after = weights_of(parent), weights_of(child)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_full_changes_lora(job: Job, team: Team) -> None:
    finetune(replace(job, config=replace(CONFIG, epochs=20)), team)
    lora = read_weights(job.output / LORA_FILE)
    report = json.loads((job.output / "report.json").read_text())
    assert report["best_step"] > 0, "with nothing learned there is nothing to see"
    assert any(tensor.any() for name, tensor in lora.items() if "lora_B" in name)


def test_quick_does_all_the_epochs_it_is_given(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    for minutes in (1e-6, 1000.0):
        monkeypatch.setattr(planning, "QUICK_MINUTES", minutes)
        config = replace(CONFIG, quick=True, epochs=20)
        output = job.output.with_name(f"within_{minutes}")
        outcome = finetune(replace(job, config=config, output=output), team)
        steps.append(outcome.report["steps"])
    assert steps[0] == steps[1] > 10


def test_a_download_of_the_model_is_shown_and_can_be_cancelled(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []

    def download(*_: object, progress: Progress, **__: object) -> None:
        progress("downloading vit_b", 1, 10)
        raise AssertionError("it goes on")

    def ask() -> Wish:
        return Wish.CANCEL if events else Wish.GO

    monkeypatch.setattr(run_module, "load_model", download)
    with pytest.raises(AssertionError, match="goes on"):
        finetune(job, team, listen=events.append)
    assert events == [Working("downloading vit_b", 1, 10)]
    with pytest.raises(Cancelled):
        finetune(job, team, ask=ask)


def test_quick_takes_steps_enough_however_long_it_got_ready(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "QUICK_MINUTES", 1e-6)
    config = replace(CONFIG, quick=True, epochs=0)
    report = finetune(replace(job, config=config), team).report
    # the clock may end it a little earlier on a machine that has other work
    assert report["steps_planned"] == 20


def test_of_a_slide_only_what_crops_see_is_got_ready(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a corner that was reviewed the rest need not be resampled and searched."""
    one = job.data.training[0]
    height, width = one.labels.shape
    far = ((0, 3000 - height), (0, 3000 - width))
    slide = replace(
        one,
        image=np.pad(one.image, (*far, (0, 0))),
        labels=np.pad(one.labels, far),
        known=np.pad(one.known, far),
    )
    sizes = []

    def note(images: Sequence[ReviewedImage], diameter: float) -> list[TrainingImage]:
        sizes.extend(one.labels.shape for one in images)
        return prepare(images, diameter)

    monkeypatch.setattr(planning, "prepare", note)
    data = replace(job.data, training=(slide,))
    report = finetune(replace(job, data=data), team).report
    ((rows, columns),) = sizes
    reach = 1.5 * report["crop"] * typical_diameter(one.labels) / 24
    assert height < rows <= height + reach + 1
    assert width < columns <= width + reach + 1


def test_going_on_begins_where_the_parent_ended(
    job: Job, team: Team, tmp_path: Path
) -> None:
    first = finetune(job, team)
    child = replace(job, adapter=str(job.output), output=tmp_path / "child")
    second = finetune(child, team)
    assert second.adapter.parent == "mine"
    assert second.report["base"] == pytest.approx(first.report["tuned"])
    assert set(learned_by(second.adapter).names.values()) == {
        one.name for one in job.data.training
    }


def test_proof_that_the_parent_has_learned_from_is_said_to_be_none(
    job: Job, team: Team
) -> None:
    data = replace(job.data, held_out_is_learned=True)
    notes = finetune(replace(job, data=data), team).report["notes"]
    assert any("has learned from nuclei that are held out" in note for note in notes)


def test_minutes_are_kept_to(job: Job, team: Team) -> None:
    # the clock ends it, at whatever step
    timed = replace(CONFIG, epochs=0, max_minutes=0.1)
    outcome = finetune(replace(job, config=timed), team)
    assert 0 < outcome.report["training_seconds"] < 6
    assert outcome.report["steps"] > 0
    validated = [float(row["step"]) for row in rows_of(job, "validation.csv")]
    assert validated[-1] == outcome.report["steps"]


def test_short_memory_is_told_and_got_by_with(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = planning.measure_memory
    sizes = []

    def measure(*arguments: object) -> int:
        sizes.append(real(*arguments))  # type: ignore[arg-type]
        return 1000 if len(sizes) < 3 else 10

    monkeypatch.setattr(planning, "measure_memory", measure)
    monkeypatch.setattr(planning, "free_memory", lambda _: 100)
    outcome = finetune(job, team)
    assert outcome.report["crop"] == 32
    assert any("crops of 32 instead of 64" in n for n in outcome.report["notes"])
    assert sizes[2] < sizes[0], "smaller crops take less"


def test_memory_that_runs_out_under_way_is_got_by_with(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = stepping.add_gradients, []

    def fail_once(*arguments: object) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stepping, "add_gradients", fail_once)
    outcome = finetune(job, team)
    assert any("1 crops at once instead of 2" in n for n in outcome.report["notes"])
    assert outcome.report["steps"] == outcome.report["steps_planned"]


def test_far_too_little_memory_is_one_clear_error(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setattr(planning, "free_memory", lambda _: 0)
        with pytest.raises(DeviceError, match="Nothing was changed"):
            finetune(job, team)
    # what the error advises can be done, in the same folder
    quick = replace(job, config=replace(CONFIG, quick=True))
    assert finetune(quick, team).report["mode"] == "quick"


def test_how_crops_are_spread_does_not_change_the_gradients(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    # to the rounding of float32, also on processors that have bfloat16
    monkeypatch.setattr(joint_step, "native_bfloat16", lambda _: False)
    gradients = []
    for at_once in (1, 4):
        config = replace(CONFIG, batch_size=4)
        state, _ = build_state("sac_tiny", None, config, team)
        pool = Pool(prepare(job.data.training, 24.0), np.full(3, 1 / 3))
        for start in range(0, 4, at_once):
            batch = draw_batch(pool, range(start, start + at_once), 0, 64, config)
            add_gradients(state, batch, config, Plan(64, at_once, at_once == 1, 2))
        gradients.append(
            torch.cat(
                [
                    p.grad.ravel()
                    for p in state.networks().parameters()
                    if p.grad is not None
                ]
            )
        )
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)


def test_one_nucleus_is_learned_from_and_not_promoted(
    reviewed: tuple[ReviewedImage, ...], job: Job, team: Team
) -> None:
    one = reviewed[0]
    labels = np.where(one.labels == 1, 1, 0)
    data = split([review_image("one", one.image, labels)])
    assert (data.kind, data.held_out) == ("none", ())
    outcome = finetune(replace(job, data=data), team)
    assert not outcome.report["promoted"]
    assert "too few" in outcome.report["reason"]
    assert outcome.report["base"] is None
    assert outcome.adapter.data == "1 nucleus of 1 image"


def test_windows_to_look_at_have_nuclei_and_their_own_size(
    job: Job, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = (draw_nuclei((160, 180), 12, r, seed=9) for r in (6, 12))
    empty = review_image("empty", small.image, np.zeros_like(small.labels))
    some = [
        review_image(str(i), d.image, d.labels) for i, d in enumerate((small, large))
    ]
    data = with_folder(job.data.training, [empty, *some])
    state, _ = build_state(job.model, job.adapter, job.config, team)
    windows = validation.choose_windows(data, state)
    assert [one.name for one in windows] == ["0", "1"]
    asked = []

    def segment(
        image: np.ndarray, *_: object, diameter: float = 0, **__: object
    ) -> object:
        # without one where both models are compared
        asked.extend([diameter] if diameter else [])
        return SimpleNamespace(labels=np.zeros(image.shape[:2], np.uint32))

    monkeypatch.setattr(validation, "segment_image", segment)
    finetune(replace(job, data=replace(data, held_out=tuple(some))), team)
    first, second = asked[:2]
    assert second > 1.5 * first


def test_a_folder_that_cannot_be_made_is_said_so(
    job: Job, team: Team, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        finetune(replace(job, output=tmp_path / "file" / "mine"), team)
