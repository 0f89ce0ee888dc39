"""What an adapter and its ancestors have learned from."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from synthetic import draw_nuclei

from napari_sac.core.errors import IncompatibleAdapterError
from napari_sac.core.models.adapter import (
    LEARNED_FILE,
    SHIPPED_ADAPTERS,
    add_adapter,
    find_adapter,
    read_adapter_info,
)
from napari_sac.core.training.lineage import (
    Learned,
    Seen,
    has_seen,
    learned_by,
    write_learned,
)
from napari_sac.core.training.reviewed_image import ReviewedImage, review_image
from napari_sac.core.training.training_set import split

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reviewed() -> ReviewedImage:
    drawn = draw_nuclei((90, 100), 6, 9)
    return review_image("field", drawn.image, drawn.labels)


@pytest.fixture
def adapter(home: Path) -> Path:
    folder = home / "adapters" / "mine"
    shutil.copytree(SHIPPED_ADAPTERS / "he", folder)
    return folder


def test_nothing_is_known_of_what_came_with_the_program(
    reviewed: ReviewedImage,
) -> None:
    assert not learned_by(None).nuclei
    assert has_seen(find_adapter("he"), reviewed) is Seen.NO


def test_what_was_learned_from_is_known_nucleus_by_nucleus(
    adapter: Path, reviewed: ReviewedImage
) -> None:
    data = split((reviewed,))
    assert data.kind == "block"
    write_learned(adapter, data.training, Learned())
    mine = find_adapter("mine")
    assert has_seen(mine, reviewed) is Seen.YES
    assert has_seen(mine, data.training[0]) is Seen.YES
    # of the same image, and of the same name: but these it was spared
    assert has_seen(mine, data.held_out[0]) is Seen.MAYBE
    other = draw_nuclei((90, 100), 6, 9, seed=8)
    assert has_seen(mine, review_image("b", other.image, other.labels)) is Seen.NO
    corrected = replace(reviewed, labels=np.roll(reviewed.labels, 2, 1))
    assert has_seen(mine, corrected) is Seen.YES


def test_an_image_seen_by_another_stain_is_known(
    adapter: Path, reviewed: ReviewedImage
) -> None:
    write_learned(adapter, [replace(reviewed, group="/slides/field.tif")], Learned())
    assert "/slides" not in (adapter / LEARNED_FILE).read_text()
    mine = find_adapter("mine")
    stained = replace(reviewed, name="stained", image=255 - reviewed.image)
    assert has_seen(mine, stained) is Seen.NO
    assert has_seen(mine, replace(stained, group="/slides/field.tif")) is Seen.YES


def test_a_child_knows_what_its_parent_has_learned_from(
    adapter: Path, reviewed: ReviewedImage, home: Path
) -> None:
    write_learned(adapter, [reviewed], Learned())
    child = home / "adapters" / "child"
    shutil.copytree(SHIPPED_ADAPTERS / "he", child)
    drawn = draw_nuclei((90, 100), 6, 9, seed=8)
    new = review_image("new", drawn.image, drawn.labels)
    write_learned(child, [new], learned_by(find_adapter("mine")))
    shutil.rmtree(adapter)
    info = find_adapter("child")
    assert has_seen(info, reviewed) is has_seen(info, new) is Seen.YES
    known = learned_by(info)
    write_learned(child, [new], known)
    again = learned_by(info)
    assert sum(map(len, again.nuclei.values())) == sum(map(len, known.nuclei.values()))


def test_it_goes_with_an_adapter_that_is_copied(
    adapter: Path, reviewed: ReviewedImage
) -> None:
    write_learned(adapter, [reviewed], Learned())
    added = add_adapter(adapter, "copied")
    assert has_seen(added, reviewed) is Seen.YES


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2",
        "[]",
        '{"format": 2, "images": []}',
        '{"format": 1, "images": [{"sha256": "a", "name": "b"}]}',
        '{"format": 1, "images": [{"sha256": "a", "name": "b", "nuclei": [[1]]}]}',
        '{"format": 1, "images": [{"sha256": "a", "name": "b", "nuclei": [["x", 1]]}]}',
        '{"format": 1, "images": [{"sha256": "a", "name": "b", "nuclei": [[1e9, 1]]}]}',
    ],
)
def test_what_is_no_such_list_is_said_so(
    adapter: Path, reviewed: ReviewedImage, text: str
) -> None:
    (adapter / LEARNED_FILE).write_text(text)
    with pytest.raises(IncompatibleAdapterError, match=LEARNED_FILE):
        has_seen(find_adapter("mine"), reviewed)


def test_a_list_elsewhere_is_not_followed(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text(json.dumps({"format": 1, "images": []}))
    (adapter / LEARNED_FILE).symlink_to(tmp_path / "secret.json")
    with pytest.raises(IncompatibleAdapterError, match="link"):
        read_adapter_info(adapter)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
@pytest.mark.timeout(60)
def test_a_device_in_its_place_is_not_read(
    adapter: Path, reviewed: ReviewedImage
) -> None:
    (adapter / LEARNED_FILE).symlink_to("/dev/zero")
    assert has_seen(find_adapter("mine"), reviewed) is Seen.NO
    assert has_seen(add_adapter(adapter, "copied"), reviewed) is Seen.NO


def test_places_outside_of_the_image_are_nowhere(
    adapter: Path, reviewed: ReviewedImage
) -> None:
    write_learned(adapter, [reviewed], Learned())
    file = adapter / LEARNED_FILE
    values = json.loads(file.read_text())
    values["images"][0]["nuclei"] = [[-1, 5], [5, 10**9]]
    file.write_text(json.dumps(values))
    assert has_seen(find_adapter("mine"), reviewed) is Seen.MAYBE
