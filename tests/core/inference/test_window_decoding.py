"""Decoding from a window is SAM's own decoding, of fewer tokens."""

from __future__ import annotations

import pytest
import torch
from synthetic import build_tiny_model

from napari_sac.core.inference.window_decoding import (
    decode_windows,
    gather_windows,
    window_origins,
)


def test_the_whole_embedding_as_window_equals_stock_sam() -> None:
    sam = build_tiny_model(local_frame=False).sam
    torch.manual_seed(1)
    features = torch.randn(1, 16, 8, 8)
    points_xy = torch.tensor([[[10.0, 20.0], [40.0, 5.0]]])
    signs = torch.tensor([[1, 0]])
    with torch.inference_mode():
        sparse, dense = sam.prompt_encoder((points_xy, signs), None, None)
        expected, expected_iou = sam.mask_decoder(
            image_embeddings=features,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        logits, iou = decode_windows(
            sam,
            features,
            torch.zeros(1, 2, dtype=torch.int64),
            points_xy.flip(-1),
            signs,
            local_frame=False,
        )
    torch.testing.assert_close(logits, expected[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(iou, expected_iou[:, 0], rtol=1e-5, atol=1e-6)


def test_windows_carry_the_positions_of_their_tokens() -> None:
    """With the global frame, a window is a cut-out of the encoding too."""
    sam = build_tiny_model(local_frame=False).sam
    features = torch.randn(1, 16, 8, 8)
    points, signs = torch.tensor([[[40.0, 36.0]]]), torch.tensor([[1]])

    def decode(corner: int, shift: float) -> torch.Tensor:
        origins = torch.tensor([[corner, corner]])
        windows = gather_windows(features, torch.tensor([0]), torch.tensor([[2, 2]]), 4)
        with torch.inference_mode():
            return decode_windows(
                sam, windows, origins, points + shift, signs, local_frame=False
            )[0]

    assert not torch.allclose(decode(2, 0), decode(3, 8))


def test_in_the_local_frame_only_the_place_in_the_window_counts() -> None:
    sam = build_tiny_model(local_frame=True).sam
    window = torch.randn(1, 16, 4, 4)
    signs = torch.tensor([[1]])
    results = []
    for corner in (0, 3):
        origins = torch.tensor([[corner, corner]])
        point = torch.tensor([[[13.0, 17.0]]]) + 8 * corner
        with torch.inference_mode():
            results.append(
                decode_windows(sam, window, origins, point, signs, local_frame=True)[0]
            )
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("point", "origin"),
    [((0.0, 0.0), (0, 0)), ((31.5, 31.5), (2, 2)), ((63.0, 40.0), (4, 3))],
)
def test_windows_are_centred_unless_at_the_border(
    point: tuple[float, float], origin: tuple[int, int]
) -> None:
    assert window_origins(torch.tensor([point]), 4, 8, 8).tolist() == [list(origin)]
