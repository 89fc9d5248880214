"""Camera pictures on their way into the model: padded to its size, cut into patches, scaled for Cosmos, and back out.

Pictures are float tensors [..., 3, height, width] in [0, 1] unless said otherwise; sizes are (height, width).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.core.types import ByteArray
from internvla_a1_ros.model.sizes import Architecture, Pair


def resize_with_pad(picture: Tensor, size: Pair) -> Tensor:
    """Scale [N, 3, h, w] to fit into `size`, bilinear without antialias, and fill up with zeros around the middle.

    The side that fits is exact, the other rounded to the nearest pixel; odd padding puts the larger half below and right.
    """
    height, width = picture.shape[-2:]
    if (height, width) == size:
        return picture
    ratio = max(width / size[1], height / size[0])
    rows, columns = max(1, round(height / ratio)), max(1, round(width / ratio))
    small = F.interpolate(picture, size=(rows, columns), mode="bilinear", align_corners=False)
    above, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    # Not F.pad, which puts channels apart: what follows takes half the time where they lie together, as cameras send them.
    whole = small.new_empty(len(small), *size, 3).zero_().permute(0, 3, 1, 2)
    whole[:, :, above : above + rows, left : left + columns] = small
    return whole


def model_picture(rgb: ByteArray, size: Pair, device: torch.device | str = "cpu") -> Tensor:
    """A camera's picture [h, w, 3] uint8 -> [3, *size] in [0, 1], on `device`: bytes travel there, the rest happens there."""
    picture = torch.from_numpy(np.ascontiguousarray(rgb)).to(device).permute(2, 0, 1)[None].float()
    # Scaling after the resize touches fewer numbers: 0.9 instead of 1.7 ms for 640x480, at most 2e-7 apart.
    return resize_with_pad(picture, size)[0] / 255


def patches(pictures: Tensor, sizes: Architecture) -> Tensor:
    """The processor: pictures [N, 3, h, w] -> flattened patches [N, P, channel*time*row*column], in merge order or row by row.

    Bicubic with antialias and not clamped, as released; a picture stands still, so it is repeated over the patch's time.
    """
    (rows, columns), patch, block = sizes.grid, sizes.vision.patch, sizes.patch_block
    wide, size = pictures.contiguous(), (rows * patch, columns * patch)
    if pictures.shape[-2:] != size:
        wide = F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False)
    mean, std = _per_channel(sizes.processor.mean, wide.dtype, wide.device), _per_channel(sizes.processor.std, wide.dtype, wide.device)
    wide = (wide - mean) / std
    blocks = wide.view(*wide.shape[:2], rows // block, block, patch, columns // block, block, patch)
    # [N, channel, row block, row in block, row, column block, column in block, column] -> blocks, then channel, row, column
    ordered = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).flatten(1, 4)
    return ordered[:, :, :, None].expand(-1, -1, -1, sizes.vision.temporal_patch, -1, -1).flatten(2)


@cache
def _per_channel(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)[:, None, None]


def cosmos_input(pictures: Tensor, sizes: Architecture) -> Tensor:
    """Pictures [N, 3, h, w] -> what Cosmos encodes [N, 3, ch, cw] in [-1, 1], bilinear without antialias."""
    return F.interpolate(pictures, size=sizes.cosmos_picture, mode="bilinear", align_corners=False) * 2 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One camera's picture as the model takes it: `patches` [P, patch width] and what Cosmos encodes, `cosmos` [3, ch, cw]."""

    patches: Tensor
    cosmos: Tensor

    @classmethod
    def at(cls, rgb: ByteArray, sizes: Architecture, device: torch.device | str = "cpu") -> Look:
        """Of a picture [h, w, 3] uint8, prepared on `device`."""
        picture = model_picture(rgb, sizes.picture, device)[None]
        return cls(patches(picture, sizes)[0], cosmos_input(picture, sizes)[0])


def viewable(pictures: Tensor) -> ByteArray:
    """Decoded pictures [N, 3, h, w] of about [-1, 1] -> [N, h, w, 3] uint8, what lies outside clamped."""
    scaled = ((pictures.float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    array: ByteArray = scaled.permute(0, 2, 3, 1).contiguous().numpy()
    return array
