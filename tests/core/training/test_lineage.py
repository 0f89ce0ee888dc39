"""What an adapter and its ancestors have learned from."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from synthetic import draw_nuclei

from napari_sac.core.models.adapter import INFO_FILE, SHIPPED_ADAPTERS, find_adapter
from napari_sac.core.training.lineage import Seen, has_seen
from napari_sac.core.training.training_set import ReviewedImage, review_image, split

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reviewed() -> ReviewedImage:
    drawn = draw_nuclei((90, 100), 6, 9)
    return review_image("field", drawn.image, drawn.labels)


@pytest.fixture
def family(home: Path, reviewed: ReviewedImage) -> dict[str, Path]:
    """Adapters of the user: one that learned from the nuclei, and others."""

    def make(name: str, **values: Any) -> Path:
        folder = home / "adapters" / name
        shutil.copytree(SHIPPED_ADAPTERS / "he", folder)
        file = folder / INFO_FILE
        file.write_text(json.dumps(json.loads(file.read_text()) | values))
        return folder

    elsewhere = "ab" * 32
    return {
        "learned": make("learned", data_sha256=split((reviewed,)).digest()),
        "child": make("child", parent="learned", data_sha256=elsewhere),
        "orphan": make("orphan", parent="deleted", data_sha256=elsewhere),
        "other": make("other", data_sha256=elsewhere),
    }


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("learned", Seen.YES),
        ("child", Seen.YES),
        ("orphan", Seen.NO),
        ("other", Seen.NO),
        ("he", Seen.NO),
    ],
)
def test_an_adapter_that_has_learned_from_these_nuclei_is_known(
    family: dict[str, Path], reviewed: ReviewedImage, name: str, seen: Seen
) -> None:
    assert has_seen(find_adapter(name), reviewed) is seen


@pytest.mark.parametrize(
    ("report", "seen"),
    [
        (json.dumps({"training_names": ["field"]}), Seen.MAYBE),
        (json.dumps({"training_names": ["another"]}), Seen.NO),
        ("[1, 2", Seen.NO),
    ],
)
def test_a_report_that_names_the_image_makes_it_likely(
    family: dict[str, Path], reviewed: ReviewedImage, report: str, seen: Seen
) -> None:
    (family["other"] / "report.json").write_text(report)
    assert has_seen(find_adapter("other"), reviewed) is seen
