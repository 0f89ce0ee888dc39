"""Sessions that are cut short, from a newer version, or made to harm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import zlib
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pytest
from core.session import editing

from napari_sac.core.errors import NapariSacError, SessionError
from napari_sac.core.session import encoding
from napari_sac.core.session.changes import Change, IdsChange, RowsChange
from napari_sac.core.session.image import hash_pixels, load_pixels
from napari_sac.core.session.journal import Journal
from napari_sac.core.session.layout import is_session
from napari_sac.core.session.pixels import PixelChange
from napari_sac.core.session.state import Settings
from napari_sac.core.types import Prompts

if TYPE_CHECKING:
    from pathlib import Path

    from core.session.conftest import Edited

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture
def closed(edited: Edited) -> Path:
    """The folder of a session that nobody has open."""
    edited.flush()
    edited.journal.close(clean=True)
    return edited.journal.folder


def read_all(folder: Path) -> dict:
    """Return the states of a session and read its images."""
    journal = Journal.open(folder)
    try:
        restored = journal.restore()
        for number, image in restored.images.items():
            journal.find_image(number, image)
    finally:
        journal.close(clean=False)
    return restored.states


def change_journal(folder: Path, statement: str, *values) -> None:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.mark.parametrize(
    ("kinds", "places"),
    [
        ("[]", [0]),
        ('[["Tumor", null]]', [1]),
        ('[["Tumor", null]]', [-1]),
        ('[["Tumor", null]]', [0, 0]),
        ('[["", null]]', [0]),
        ('[["Tumor", [1, 2]]]', [0]),
        ('[["Tumor", [1, 2, 256]]]', [0]),
        ('[["Tumor", ["a", "b", "c"]]]', [0]),
        ('[["Tumor"]]', [0]),
        ("[[7, null]]", [0]),
        ("{", [0]),
    ],
)
def test_classes_that_cannot_be_are_refused(kinds: str, places: list[int]) -> None:
    arrays = {}
    encoding._put_classes(arrays, "classes.removed", {})
    arrays["classes.added.id"] = np.array([1], np.int64)
    arrays["classes.added.kind"] = np.array(places, np.int32)
    arrays["classes.added.kinds"] = np.frombuffer(kinds.encode(), np.uint8)
    with pytest.raises(ValueError, match="no change"):
        encoding.from_bytes(encoding._pack({"title": "import outlines"}, arrays))


FILES = (
    "session.json",
    "journal.sqlite",
    "labels-1.zarr/zarr.json",
    "labels-1.zarr/c/0/0",
    "image-1.tif",
)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_anywhere_is_one_clear_error(
    closed: Path, tmp_path: Path, name: str
) -> None:
    assert len(read_all(closed)) == 1
    size = (closed / name).stat().st_size
    for part in (0, 1, 20, size // 10, size // 2, size * 9 // 10, size - 3, size - 1):
        folder = shutil.copytree(closed, tmp_path / f"cut-{part}.sac")
        os.truncate(folder / name, part)
        if name == "session.json" and part == size - 1:
            # the end of the last line is missing: still whole
            assert len(read_all(folder)) == 1
            continue
        with pytest.raises(SessionError) as failure:
            read_all(folder)
        assert str(folder) in str(failure.value)


@pytest.mark.parametrize("name", FILES[1:])
def test_bytes_changed_at_random_are_an_error_or_do_no_harm(
    closed: Path, tmp_path: Path, name: str
) -> None:
    rng = np.random.default_rng(0)
    whole = (closed / name).read_bytes()
    folder = shutil.copytree(closed, tmp_path / "noise.sac")
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] = rng.integers(256)
        (folder / name).write_bytes(data)
        for rest in ("-wal", "-shm"):
            (folder / f"journal.sqlite{rest}").unlink(missing_ok=True)
        try:
            read_all(folder)
        except NapariSacError:
            continue


def test_a_log_cut_short_loses_its_end_only(edited: Edited, tmp_path: Path) -> None:
    folder = shutil.copytree(edited.journal.folder, tmp_path / "copy.sac")
    wal = folder / "journal.sqlite-wal"
    os.truncate(wal, wal.stat().st_size - 100)
    journal = Journal.open(folder)
    assert len(journal.restore().history.done) == 19
    journal.close(clean=True)


def test_a_newer_version_is_named(closed: Path) -> None:
    header = json.loads((closed / "session.json").read_text())
    header |= {"version": 2, "versions": {"napari-sac": "9.1"}}
    (closed / "session.json").write_text(json.dumps(header))
    with pytest.raises(SessionError, match=r"newer napari-sac \(9\.1, format 2\)"):
        Journal.open(closed)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"format": "napari-sac session", "version": "1"}', "[" * 9**6]
)
def test_other_headers_are_refused(closed: Path, text: str) -> None:
    (closed / "session.json").write_text(text)
    with pytest.raises(SessionError):
        Journal.open(closed)


@posix
def test_links_and_pipes_in_the_folder_are_refused(
    closed: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, make in (
        ("labels-1.zarr/c/1", lambda p: p.symlink_to(outside)),
        ("image-2.tif", lambda p: p.symlink_to("/dev/zero")),
        ("labels-1.zarr/c/0/9", os.mkfifo),
    ):
        make(closed / name)
        with pytest.raises(SessionError, match="link or no file"):
            Journal.open(closed)
        (closed / name).unlink()
    read_all(closed)


def test_a_session_may_have_as_many_files_as_are_written(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 500 planes of 10,000 x 10,000 pixels; a file for each takes minutes to make
    files = ["session.json"] * 500 * 401
    monkeypatch.setattr(os, "walk", lambda *_, **__: [(str(closed), [], files)])
    Journal.open(closed).close(clean=True)


def line(folder: Path, change: Change, kind: str = "do", step: int = 21) -> None:
    """Add a line to the log of a closed session."""
    change_journal(
        folder,
        "INSERT INTO log (kind, step, annotation, time, change) VALUES (?, ?, 1, 0, ?)",
        kind,
        step,
        encoding.to_bytes(change),
    )


def test_lines_that_make_no_sense_are_refused(closed: Path, tmp_path: Path) -> None:
    far = PixelChange(
        np.array([2**40]), np.ones(1, np.int32), *np.ones((2, 1), np.uint32)
    )
    statements = {
        "pixels": lambda f: line(f, Change("far", pixels=far)),
        "undone": lambda f: (
            line(f, Change("far", pixels=far)),
            line(f, Change(""), "undo"),
        ),
        "number": lambda f: line(f, Change("again"), step=3),
        "order": lambda f: line(f, Change("x"), kind="undo", step=3),
        "amend": lambda f: line(f, Change("x"), kind="amend", step=99),
        "kind": lambda f: line(f, Change("x"), kind="explode"),
        "other": lambda f: change_journal(f, "UPDATE log SET annotation = 2"),
        "text": lambda f: change_journal(f, "UPDATE log SET step = 'a'"),
        "bytes": lambda f: change_journal(f, "UPDATE log SET change = x'00'"),
        "no bytes": lambda f: change_journal(f, "UPDATE log SET change = NULL"),
        "mark": lambda f: change_journal(f, "UPDATE annotations SET written = -1"),
        "count": lambda f: change_journal(f, "UPDATE annotations SET number = 1 << 40"),
        "tables": lambda f: change_journal(f, "UPDATE annotations SET tables = x'00'"),
        "image": lambda f: change_journal(f, "UPDATE annotations SET image = '{}'"),
        "nested image": lambda f: change_journal(
            f, "UPDATE annotations SET image = ?", "[" * 9**6
        ),
        "info": lambda f: change_journal(f, "INSERT INTO facts VALUES ('info.a', '{')"),
    }
    for name, harm in statements.items():
        folder = shutil.copytree(closed, tmp_path / f"{name}.sac")
        harm(folder)
        with pytest.raises(SessionError):
            read_all(folder)


def test_a_database_of_another_make_is_refused(closed: Path) -> None:
    change_journal(closed, "DROP TABLE log")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i"
    change_journal(closed, f"CREATE VIEW log AS {endless} AS entry FROM n")
    with pytest.raises(SessionError, match="other tables"):
        Journal.open(closed)


@pytest.mark.parametrize(
    "values",
    [
        {"shape": [10**9, 10**9]},
        {"shape": [-5, 5]},
        {"shape": [24, 31, 3]},
        {"channel_axis": "0"},
        {"index": [1.5]},
        {"name": "x" * 10_000},
        {"surprise": 1},
    ],
)
def test_impossible_images_are_refused(closed: Path, values: dict) -> None:
    image = json.loads(
        editing.reference(editing.start(np.random.default_rng(0))).to_json()
    )
    change_journal(
        closed, "UPDATE annotations SET image = ?", json.dumps(image | values)
    )
    with pytest.raises(SessionError):
        read_all(closed)


def test_labels_of_another_make_are_refused(closed: Path, tmp_path: Path) -> None:
    file = closed / "labels-1.zarr" / "zarr.json"
    metadata = json.loads(file.read_text())
    for harm in (
        {"shape": [10**6, 10**6]},
        {"codecs": [{"name": "blosc"}]},
        {"data_type": "complex128"},
    ):
        file.write_text(json.dumps(metadata | harm))
        with pytest.raises(SessionError, match="other labels"):
            read_all(closed)


def test_chunks_that_unpack_to_gigabytes_are_refused(closed: Path) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(200))
    chunk = closed / "labels-1.zarr" / "c" / "0" / "0"
    chunk.write_bytes(bomb + deflater.flush())
    with pytest.raises(SessionError, match="another size"):
        read_all(closed)
    with chunk.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(SessionError, match="larger than"):
        read_all(closed)


def block(header: dict, raw: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    size = len(text).to_bytes(4, "little")
    return b"SAC1" + size + text + zlib.compress(raw)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SAC1",
        b"SAC1\xff\xff\xff\xff",
        b"cos\nsystem\n",
        block({"title": "x", "arrays": [["pixels.steps", "<i8", 1 << 40]]}),
        block({"title": "x", "arrays": [["pixels.steps", "<i8", -1]]}),
        block({"title": "x", "arrays": [["pixels.steps", "|O", 1]]}, bytes(8)),
        block({"title": "x", "arrays": []}, bytes(1 << 24)),
        block({"title": 5, "arrays": []}),
        block({"title": "x"}),
        block({"title": "x", "arrays": [], "settings": [{}, {}]}),
        block(
            {"title": "x", "arrays": [["reviewed.before.sizes", "<i8", 1]]}, bytes(8)
        ),
        block({"title": "x", "arrays": [["prompts.removed", "<i8", 1]]}, bytes(8)),
    ],
)
def test_changes_that_claim_what_they_do_not_hold_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no change"):
        encoding.from_bytes(data)


def test_changes_come_back_with_all_their_parts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        state = editing.start(rng)
        change = editing.edit(rng, state)
        data = encoding.to_bytes(change)
        assert encoding.to_bytes(encoding.from_bytes(data)) == data
        for place in rng.integers(0, len(data), 20):
            broken = data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]
            try:
                encoding.from_bytes(broken)
            except ValueError:
                continue
    painted = Change("x", painted=IdsChange(frozenset({1}), frozenset({2, 3})))
    assert encoding.from_bytes(encoding.to_bytes(painted)).painted == painted.painted


def test_an_image_is_known_by_its_pixels(tmp_path: Path, edited: Edited) -> None:
    from skimage.io import imsave

    from napari_sac.core.io import normalise_image

    rng = np.random.default_rng(0)
    raw = rng.integers(0, 255, (24, 31), dtype=np.uint8)
    imsave(tmp_path / "moved.png", raw, check_contrast=False)
    digest = hash_pixels(normalise_image(raw))
    image = editing.reference(edited.state, path="/gone/moved.png", sha256=digest)
    pixels, place = load_pixels(image, tmp_path / "none.tif", tmp_path)
    assert place == tmp_path / "moved.png"
    np.testing.assert_array_equal(pixels, normalise_image(raw))
    raw[0, 0] ^= 255
    imsave(tmp_path / "moved.png", raw[::-1], check_contrast=False)
    with pytest.raises(SessionError, match="other pixels"):
        load_pixels(image, tmp_path / "none.tif", tmp_path)
    (tmp_path / "moved.png").write_text("root:x:0:0")
    with pytest.raises(SessionError, match="could not be read"):
        load_pixels(image, tmp_path / "none.tif", tmp_path)


def test_planes_and_channels_of_a_stack_are_found(tmp_path: Path) -> None:
    import tifffile

    from napari_sac.core.io import normalise_image

    rng = np.random.default_rng(0)
    stack = rng.integers(0, 4000, (3, 4, 24, 31)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    grey = normalise_image(stack[2, [0, 3]].transpose(1, 2, 0), (0, 1))
    state = editing.start(rng)
    values = {
        "path": str(tmp_path / "s.tif"),
        "index": (2, 0),
        "channel_axis": 1,
        "channels": (0, 3),
        "sha256": hash_pixels(grey),
    }
    image = editing.reference(state, **values)
    np.testing.assert_array_equal(load_pixels(image, tmp_path, tmp_path)[0], grey)
    plane = normalise_image(stack[1, 2])
    values |= {"index": (1, 2), "channels": (), "sha256": hash_pixels(plane)}
    image = editing.reference(state, **values)
    np.testing.assert_array_equal(load_pixels(image, tmp_path, tmp_path)[0], plane)
    for wrong in ({"index": (9, 9)}, {"index": (1, 2, 3)}, {"channels": (8,)}):
        image = editing.reference(state, **(values | wrong))
        with pytest.raises(SessionError, match="has no"):
            load_pixels(image, tmp_path, tmp_path)


def test_settings_of_a_newer_version_are_refused() -> None:
    values = asdict(Settings())
    values["decode"]["overlap"] = 1
    with pytest.raises(ValueError, match="unknown settings"):
        encoding._read_settings(values)


def test_runs_whose_end_cannot_be_counted_are_refused() -> None:
    lengths = np.array([2**31 - 1, 1], np.int32)
    for starts in ([2**63 - 1], [2**63 - 1, 0]):
        n = len(starts)
        columns = lengths[:n], *np.zeros((2, n), np.uint32)
        with pytest.raises(ValueError, match="not in order"):
            PixelChange(np.array(starts), *columns)


def test_a_log_that_is_made_shorter_meanwhile_is_read_again(
    closed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, calls = Journal._read_once, []

    def read_once(journal: Journal) -> object:
        calls.append(1)
        if len(calls) == 1:
            change_journal(
                closed, "INSERT INTO facts VALUES ('compacted', 'by another')"
            )
            raise TypeError("'NoneType' object is not subscriptable")
        return read(journal)

    monkeypatch.setattr(Journal, "_read_once", read_once)
    assert len(read_all(closed)) == 1
    assert len(calls) == 2


def test_an_image_beside_the_session_is_found_whatever_its_path_was(
    tmp_path: Path, edited: Edited
) -> None:
    from skimage.io import imsave

    from napari_sac.core.io import normalise_image

    raw = np.random.default_rng(0).integers(0, 255, (24, 31), dtype=np.uint8)
    imsave(tmp_path / "moved.png", raw, check_contrast=False)
    digest = hash_pixels(normalise_image(raw))
    # of another system, and of a place where pathlib raises, as if it may not look
    for gone in ("C:\\data\\moved.png", f"/{'x' * 300}/moved.png"):
        image = editing.reference(edited.state, path=gone, sha256=digest)
        pixels, place = load_pixels(image, tmp_path / "none.tif", tmp_path)
        assert place == tmp_path / "moved.png"
        np.testing.assert_array_equal(pixels, normalise_image(raw))


def test_a_place_where_one_may_not_look_is_no_session(
    tmp_path: Path, private: Path
) -> None:
    assert not is_session(tmp_path / ("x" * 300))
    with pytest.raises(SessionError, match="is not there"):
        Journal.open(private / "theirs.sac")


@pytest.mark.parametrize("number", [0, -1, 2**32, 2**40])
def test_painted_nuclei_have_possible_numbers(number: int) -> None:
    none, one = frozenset[int](), frozenset({number})
    written = encoding.to_bytes(Change("x", painted=IdsChange(one, none)))
    with pytest.raises(ValueError, match="numbers of nuclei"):
        encoding.from_bytes(written)
    # and what could not be read again is not written
    added = RowsChange(
        np.empty(0, np.int64),
        Prompts.empty(),
        np.zeros(1, np.int64),
        Prompts.from_points([[3, 4]], object_id=number),
    )
    for change in (
        Change("x", painted=IdsChange(none, one)),
        Change("x", prompts=added),
    ):
        with pytest.raises(ValueError, match="numbers of nuclei"):
            encoding.to_bytes(change)


def test_reviewed_regions_are_of_numbers() -> None:
    region = np.array([[0, 0], [0, 9], [9, np.nan]])
    reviewed = Change("x", reviewed=((), (region,)))
    with pytest.raises(ValueError, match="impossible sizes"):
        encoding.from_bytes(encoding.to_bytes(reviewed))
