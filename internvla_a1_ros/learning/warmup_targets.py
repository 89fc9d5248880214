"""What a vision tower is warmed up on: what the simulation says of each parcel, laid into the cells of the model's picture.

Arrays are [B, rows, columns, 12] with the channels of `CHANNELS`; a cell without a parcel's centre is all zeros.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.bags.datasets import Dataset
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.model.sizes import Pair

SEEN = "simulation.seen"
# As it has them of one parcel in one view (simulation/seen.py), zeros where it is not in view.
IN_VIEW, U, V, DISTANCE, COS_2PHI, SIN_2PHI, LABEL = range(7)
FIELDS = 10
# In their place, of one cell: whether a parcel's centre lies in it, where in it from its middle (-0.5 to 0.5 of its sides), the rest
# scaled to about one, and at last where it is beside the camera's axis: its place in the whole picture, -0.5 to 0.5, times its distance
# in m. For a camera on a hand that is, but for the lens, how far the hand has to go, wherever in the picture it is seen.
CHANNELS = ("object", "right", "down", "distance", "cos_2phi", "sin_2phi", "label", "length", "width", "height", "beside", "below")
_SCALES = np.array((1, 1, 1, 3, 1, 1, 1, 10, 10, 10, 10, 10), np.float32)
_NEAR_M = 0.4


def need_seen(dataset: Dataset, views: int) -> None:
    """Raise ConfigurationError where a dataset does not say of every view where parcels are."""
    dataset.need((SEEN,))
    width = dataset.features[SEEN].width
    if width % (views * FIELDS):
        expected = f"a multiple of {views} views times {FIELDS} (docs/record.md)"
        raise ConfigurationError(f"dataset '{dataset.folder}': '{SEEN}': got {width} numbers a step, expected {expected}")


def laid_out(seen: FloatArray, boxes: Tensor, down_px: Tensor, right_px: Tensor, picture: Pair, cells: Pair) -> Tensor:
    """Return the targets of pictures in which `seen` [B, slots, 10] is, moved by so many pixels [B] inside their boxes [B, 4].

    `u` and `v` are of the camera's picture, cells of the model's, padding included. Of two parcels in one cell the nearer counts.
    """
    above, left, rows, columns = (boxes[:, i, None].numpy() for i in range(4))
    x = seen[..., U] * columns + right_px.numpy()[:, None]
    y = seen[..., V] * rows + down_px.numpy()[:, None]
    shown = (seen[..., IN_VIEW] > 0) & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    across, along = (x + left) / picture[1] * cells[1], (y + above) / picture[0] * cells[0]
    targets = np.zeros((len(seen), *cells, len(CHANNELS)), np.float32)
    order = np.argsort(-seen[..., DISTANCE], axis=1, kind="stable")  # the nearest is laid last
    each = np.arange(len(seen))
    for k in range(seen.shape[1]):
        slot = order[:, k]
        i = np.flatnonzero(shown[each, slot])
        of, a, d = seen[i, slot[i]], across[i, slot[i]], along[i, slot[i]]
        off = np.stack((x[i, slot[i]] / columns[i, 0] - 0.5, y[i, slot[i]] / rows[i, 0] - 0.5), 1) * of[:, DISTANCE, None]
        column, row = np.floor(a).astype(int), np.floor(d).astype(int)
        about = np.stack((a - column - 0.5, d - row - 0.5, of[:, DISTANCE] - _NEAR_M), 1)
        targets[i, row, column] = np.concatenate((np.ones((len(i), 1)), about, of[:, COS_2PHI:], off), 1) * _SCALES
    return torch.from_numpy(targets)


def found(answers: Tensor, targets: Tensor, picture: Pair) -> dict[str, float]:
    """Compare answers [B, rows, columns, 12] with targets: the share of parcels found, and medians of the errors of those.

    A parcel is found where a cell within one of its own is more likely than not to hold one; the likeliest of them answers for it.
    """
    likely, true = answers[..., 0].sigmoid(), targets[..., 0] > 0
    rows, columns = true.shape[1:]
    wide = F.pad(likely, (1, 1, 1, 1), value=0.0)
    around = torch.stack([wide[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], -1)
    best, which = around.max(-1)
    b, row, column = torch.nonzero(true & (best > 0.5), as_tuple=True)
    told, which = targets[b, row, column], which[b, row, column]
    row_step, column_step = which.div(3, rounding_mode="floor") - 1, which % 3 - 1
    said = answers[b, row + row_step, column + column_step]
    down_px = (said[:, 2] + row_step - told[:, 2]) * picture[0] / rows
    right_px = (said[:, 1] + column_step - told[:, 1]) * picture[1] / columns
    turn = torch.atan2(said[:, 5], said[:, 4]) - torch.atan2(told[:, 5], told[:, 4])
    phi = torch.atan2(turn.sin(), turn.cos()).abs() / 2
    scales = torch.from_numpy(_SCALES)
    off = ((said - told) / scales).abs()
    near = F.max_pool2d(true[:, None].float(), 3, 1, 1)[:, 0] > 0
    alarms = ((likely > 0.5) & ~near).sum() / len(true)
    counted = {"found": float(len(b) / true.sum().clamp(min=1)), "false_a_picture": float(alarms)}
    if len(b) == 0:
        return counted
    centre_px = torch.hypot(down_px, right_px)
    beside_m = torch.hypot(off[:, 10], off[:, 11])
    medians = {"centre_px": centre_px, "beside_m": beside_m, "phi_deg": torch.rad2deg(phi), "distance_m": off[:, 3], "label": off[:, 6]}
    return counted | {name: float(values.median()) for name, values in medians.items()}
