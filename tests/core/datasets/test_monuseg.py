"""The annotations of MoNuSeg, and XML that means harm."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_sac.core.datasets import monuseg
from napari_sac.core.datasets.monuseg import (
    SAMPLES,
    draw_polygons,
    fetch_samples,
    find_monuseg,
    read_annotation,
    read_monuseg,
)
from napari_sac.core.errors import ImageFormatError, LabelFormatError
from napari_sac.core.evaluation.metrics import evaluate_labels
from napari_sac.core.io import read_labels

DATA = Path(__file__).parents[4] / "shared" / "data" / "monuseg2018"


def _xml(*regions):
    vertices = (
        "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in region)
        for region in regions
    )
    body = "".join(
        f'<Region Id="{i}"><Attributes/><Vertices>{v}</Vertices></Region>'
        for i, v in enumerate(vertices, start=1)
    )
    return (
        '<Annotations MicronsPerPixel="0.25"><Annotation Id="1">'
        f"<Regions>{body}</Regions></Annotation></Annotations>"
    )


def _square(x0, y0, x1, y1):
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


@pytest.fixture
def write(tmp_path):
    def save(document):
        path = tmp_path / "cell.xml"
        path.write_bytes(document if isinstance(document, bytes) else document.encode())
        return path

    return save


def test_vertices_are_yx_counted_from_zero(write):
    (outline,) = read_annotation(write(_xml([(11, 3), (21, 3), (21.5, 7.25)])))

    np.testing.assert_allclose(outline, [[2, 10], [2, 20], [6.25, 20.5]], atol=2e-3)


def test_an_outline_in_whole_numbers_covers_as_many_pixels_as_it_measures(write):
    # From 3 to 7 are the pixels 4, 5, 6, 7 counted from 1, so 3, 4, 5, 6 from 0.
    labels = draw_polygons(read_annotation(write(_xml(_square(3, 5, 7, 8)))), (10, 10))

    rows, columns = np.nonzero(labels)
    assert (columns.min(), columns.max()) == (3, 6)
    assert (rows.min(), rows.max()) == (5, 7)
    assert (labels > 0).sum() == 4 * 3


def test_the_first_keeps_its_pixels_and_the_image_cuts(write):
    regions = [_square(1, 1, 5, 5), _square(3, 1, 50, 5), [(2, 2), (3, 3)]]

    labels = draw_polygons(read_annotation(write(_xml(*regions))), (6, 8))

    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 1).sum() == 16
    assert (labels[:, -1] == 2).sum() == 4


def test_no_nuclei_are_no_labels(write):
    assert read_annotation(write(_xml())) == ()
    assert draw_polygons((), (3, 2)).tolist() == [[0, 0]] * 3


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "lol">'
    '<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    '<Annotations Name="&b;"></Annotations>'
)
LEAK = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><Annotations>&f;</Annotations>'


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (BOMB, "document type"),
        (LEAK, "document type"),
        ("\ufeff" + LEAK, "document type"),
        (LEAK.encode("utf-16"), "document type"),
        (
            '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><Annotations/>',
            "document type",
        ),
        ("<Annotations>&undefined;</Annotations>", "undefined entity"),
        ("", "no element"),
        (b"\x00\x01\x02", "not well-formed"),
        (_xml(_square(1, 1, 5, 5))[:-30], "no element|unclosed"),
        ('<?xml version="1.0" encoding="klingon"?><Annotations/>', "klingon|encoding"),
        ("<svg/>", "not an Aperio annotation, but <svg>"),
        (_xml([("nan", 1), (2, 2), (3, 3)]), "not a vertex"),
        (_xml([("1e999", 1), (2, 2), (3, 3)]), "not a vertex"),
        (_xml([("", 1), (2, 2), (3, 3)]), "not a vertex"),
    ],
)
def test_documents_that_are_refused(write, document, reason):
    with pytest.raises(LabelFormatError, match=reason) as error:
        read_annotation(write(document))

    assert "cell.xml" in str(error.value)


def test_a_file_that_is_missing_or_too_large(write, monkeypatch, tmp_path):
    with pytest.raises(LabelFormatError, match="No such file"):
        read_annotation(tmp_path / "nothing.xml")

    monkeypatch.setattr(monuseg, "MAX_XML_BYTES", 100)
    with pytest.raises(LabelFormatError, match="larger than"):
        read_annotation(write(_xml(_square(1, 1, 5, 5))))


def test_vertices_far_outside_of_the_image_cost_nothing(write):
    far = [(-1e300, -1e300), (1e300, -1e300), (1e300, 1e300), (-1e300, 1e300)]

    labels = draw_polygons(read_annotation(write(_xml(far))), (4, 4))

    assert labels.shape == (4, 4)


def _collection(root):
    """Write the layout of the archive, with what macOS adds to it."""
    top = root / "MoNuSeg 2018 Training Data"
    for folder in ("Tissue Images", "Annotations", "../__MACOSX"):
        (top / folder).mkdir(parents=True)
    for name in SAMPLES:
        tifffile.imwrite(
            top / "Tissue Images" / f"{name}.tif",
            np.zeros((20, 30, 3), np.uint8),
            photometric="rgb",
        )
        (top / "Annotations" / f"{name}.xml").write_text(_xml(_square(2, 2, 6, 9)))
        (top / ".." / "__MACOSX" / f"._{name}.xml").write_bytes(b"\0")
    (top / "Annotations" / "alone.xml").write_text(_xml())


def test_images_pair_with_annotations_anywhere_below(tmp_path):
    _collection(tmp_path)

    pairs = find_monuseg(tmp_path)

    assert [p.name for p in pairs] == sorted(SAMPLES)
    loaded = read_monuseg(pairs[0])
    assert loaded.image.shape == (20, 30, 3)
    assert (loaded.labels > 0).sum() == 4 * 7


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(ImageFormatError, match="is not MoNuSeg"):
        find_monuseg(tmp_path)


def test_samples_come_from_the_archive(serve, tmp_path):
    _collection(tmp_path / "source")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for path in (tmp_path / "source").rglob("*.*"):
            content.write(path, path.relative_to(tmp_path / "source"))

    samples = fetch_samples(tmp_path / "cache", archive=serve(buffer.getvalue()))

    assert [s.name for s in samples] == list(SAMPLES)
    assert not list((tmp_path / "cache").rglob("__MACOSX"))


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data here")
@pytest.mark.parametrize(
    "path", sorted(DATA.glob("annotations/*.xml")), ids=lambda p: p.stem
)
def test_real_annotations_give_the_label_maps(path):
    truth = read_labels(DATA / "labels" / f"{path.stem}.png")

    labels = draw_polygons(read_annotation(path), (1000, 1000))

    # With a shift of -1 exactly the kidney's are at 0.90, for they are whole numbers.
    scores = evaluate_labels(labels, truth)
    assert scores.iou > 0.99
    assert scores.ap > 0.99
