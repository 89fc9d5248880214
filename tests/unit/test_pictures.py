"""Pictures on their way into the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, VARIANTS

from internvla_a1_ros.policy.pictures import Look, cosmos_input, model_picture, patches, resize_with_pad, viewable


@pytest.mark.parametrize(
    ("shape", "size", "inside"),
    [
        ((480, 640), (224, 224), (slice(28, 196), slice(0, 224))),  # 168 rows, 28 above and below
        ((368, 640), (224, 224), (slice(47, 176), slice(0, 224))),  # 128.8 -> 129 rows, 47 above, 48 below
        ((640, 480), (224, 224), (slice(0, 224), slice(28, 196))),
        ((100, 100), (48, 32), (slice(8, 40), slice(0, 32))),
        ((10, 10), (20, 40), (slice(0, 20), slice(10, 30))),
        ((1, 1000), (64, 64), (slice(31, 32), slice(0, 64))),  # never less than one row
    ],
)
def test_a_picture_is_fitted_and_padded_with_black(shape: tuple[int, int], size: tuple[int, int], inside: tuple[slice, slice]) -> None:
    fitted = model_picture(np.full((*shape, 3), 255, np.uint8), size)
    want = torch.zeros(3, *size)
    want[:, inside[0], inside[1]] = 1
    torch.testing.assert_close(fitted, want, atol=1e-6, rtol=0)


def test_a_picture_of_the_right_size_is_left_alone() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8)
    assert torch.equal(model_picture(rgb, (48, 32)), torch.from_numpy(rgb).permute(2, 0, 1) / 255)
    assert torch.equal(model_picture(rgb[:, ::-1], (48, 32)), torch.from_numpy(rgb[:, ::-1].copy()).permute(2, 0, 1) / 255)


def test_halving_is_the_mean_of_four() -> None:
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(resize_with_pad(picture, (4, 4)), torch.nn.functional.avg_pool2d(picture, 2))


@pytest.mark.parametrize("name", ["tiny", "merge_4", "wide_grid"])
def test_patches_stand_in_merge_order(name: str) -> None:
    """Each patch is recognised by a picture whose pixels are the number of their patch."""
    sizes = VARIANTS[name]
    (rows, columns), patch, merge = sizes.grid, sizes.vision.patch, sizes.vision.merge
    number = torch.arange(rows * columns).view(rows, columns).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    got = patches((number / 100).expand(1, 3, -1, -1), sizes)
    assert got.shape == (1, rows * columns, sizes.vision.patch_width)
    order = (got[0, :, 0] * 0.5 + 0.5).mul(100).round().int().tolist()
    want = [
        (top + row) * columns + left + column
        for top in range(0, rows, merge)
        for left in range(0, columns, merge)
        for row in range(merge)
        for column in range(merge)
    ]
    assert order == want


def test_a_patch_is_channel_time_row_column() -> None:
    picture = torch.rand(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    first = patches(picture, TINY)[0, 0].view(3, 2, 8, 8)
    torch.testing.assert_close(first[:, 0], (picture[0, :, :8, :8] - 0.5) / 0.5)
    assert torch.equal(first[:, 0], first[:, 1]), "a picture stands still"


def test_patches_are_resized_to_the_grid() -> None:
    assert patches(torch.rand(2, 3, 20, 30), TINY).shape == (2, 24, TINY.vision.patch_width)


def test_cosmos_reads_minus_one_to_one_and_the_screen_bytes() -> None:
    grey = cosmos_input(torch.stack([torch.zeros(3, 48, 32), torch.full((3, 48, 32), 0.5), torch.ones(3, 48, 32)]), TINY)
    assert grey.shape == (3, 3, *TINY.cosmos_picture)
    assert grey.amin((1, 2, 3)).tolist() == grey.amax((1, 2, 3)).tolist() == [-1.0, 0.0, 1.0]
    shown = viewable(torch.tensor([-7.0, -1.0, 0.0, 1.0, 9.0])[:, None, None, None].expand(-1, 3, 2, 2))
    assert shown.dtype == np.uint8 and shown.shape == (5, 2, 2, 3)
    assert shown[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]


def test_pictures_are_prepared_where_they_are_read() -> None:
    """On a device without numbers here: an operation that fell back to the CPU would be refused."""
    look = Look.at(np.zeros((60, 80, 3), dtype=np.uint8), TINY, "meta")
    assert look.patches.device.type == look.cosmos.device.type == "meta"
    assert look.patches.shape == (24, TINY.vision.patch_width) and look.cosmos.shape == (3, *TINY.cosmos_picture)
