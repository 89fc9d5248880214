"""What is asked of pictures: what the simulation says of each parcel, laid into the cells of the model's picture.

Arrays are [B, rows, columns, 12] with the channels of `CHANNELS`; a cell without a parcel's centre is all zeros.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from internvla_a1_ros.core.types import FloatArray
from internvla_a1_ros.model.sizes import Pair

# As `simulation.seen` has them of one parcel in one view (simulation/seen.py), zeros where it is not in view.
IN_VIEW, U, V, DISTANCE, COS_2PHI, SIN_2PHI, LABEL = range(7)
FIELDS = 10
# In their place, of one cell: whether a parcel's centre lies in it, where in it from its middle (-0.5 to 0.5 of its sides), the rest
# scaled to about one, and at last where it is beside the camera's axis: its place in the whole picture, -0.5 to 0.5, times its distance
# in m. For a camera on a hand that is, but for the lens, how far the hand has to go, wherever in the picture it is seen.
CHANNELS = ("object", "right", "down", "distance", "cos_2phi", "sin_2phi", "label", "length", "width", "height", "beside", "below")
_SCALES = np.array((1, 1, 1, 3, 1, 1, 1, 10, 10, 10, 10, 10), np.float32)
_NEAR_M = 0.4
# Of a parcel that is in another picture of the same view too: whether it is, and how far right and down from where it is in this one.
MOVED = ("there", "moved_right", "moved_down")
_A_PIXEL = 0.2  # in its place
Other = tuple[FloatArray, Tensor, Tensor]  # what is seen there [B, slots, 10], and how far that picture is moved, down and right [B]


def laid_out(
    seen: FloatArray, boxes: Tensor, down_px: Tensor, right_px: Tensor, picture: Pair, cells: Pair, other: Other | None = None
) -> Tensor:
    """Return the targets of pictures in which `seen` [B, slots, 10] is, moved by so many pixels [B] inside their boxes [B, 4].

    `u` and `v` are of the camera's picture, cells of the model's, padding included. Of two parcels in one cell the nearer counts.
    With another picture of each view there are the channels `MOVED` besides.
    """
    rows, columns = (boxes[:, i, None].numpy() for i in (2, 3))
    x, y, shown = _placed(seen, boxes, down_px, right_px)
    across, along = (x + boxes[:, 1, None].numpy()) / picture[1] * cells[1], (y + boxes[:, 0, None].numpy()) / picture[0] * cells[0]
    moved = np.zeros((*x.shape, 0)) if other is None else _moved(x, y, _placed(other[0], boxes, *other[1:]))
    targets = np.zeros((len(seen), *cells, len(CHANNELS) + moved.shape[2]), np.float32)
    order = np.argsort(-seen[..., DISTANCE], axis=1, kind="stable")  # the nearest is laid last
    each = np.arange(len(seen))
    for k in range(seen.shape[1]):
        slot = order[:, k]
        i = np.flatnonzero(shown[each, slot])
        of, a, d = seen[i, slot[i]], across[i, slot[i]], along[i, slot[i]]
        off = np.stack((x[i, slot[i]] / columns[i, 0] - 0.5, y[i, slot[i]] / rows[i, 0] - 0.5), 1) * of[:, DISTANCE, None]
        column, row = np.floor(a).astype(int), np.floor(d).astype(int)
        about = np.stack((a - column - 0.5, d - row - 0.5, of[:, DISTANCE] - _NEAR_M), 1)
        told = np.concatenate((np.ones((len(i), 1)), about, of[:, COS_2PHI:], off), 1) * _SCALES
        targets[i, row, column] = np.concatenate((told, moved[i, slot[i]]), 1)
    return torch.from_numpy(targets)


def _placed(seen: FloatArray, boxes: Tensor, down_px: Tensor, right_px: Tensor) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Where parcels are inside their picture's box, x and y [B, slots] in pixels, and whether they are seen there."""
    rows, columns = (boxes[:, i, None].numpy() for i in (2, 3))
    x = seen[..., U] * columns + right_px.numpy()[:, None]
    y = seen[..., V] * rows + down_px.numpy()[:, None]
    return x, y, (seen[..., IN_VIEW] > 0) & (x >= 0) & (x < columns) & (y >= 0) & (y < rows)


def _moved(x: FloatArray, y: FloatArray, other: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    """Return [B, slots, 3], zeros where it is not in the other picture."""
    there = other[2].astype(float)
    return np.stack((there, (other[0] - x) * there * _A_PIXEL, (other[1] - y) * there * _A_PIXEL), 2)


def followed(answers: Tensor, targets: Tensor) -> dict[str, float]:
    """Compare how far parcels have moved [B, rows, columns, 12 + 3]: the median error in pixels, and of its variance what is explained."""
    both = (targets[..., 0] > 0) & (targets[..., -3] > 0)
    said, told = answers[both][:, -2:] / _A_PIXEL, targets[both][:, -2:] / _A_PIXEL
    if len(told) < 2:
        return {}
    off = said - told
    explained = 1 - off.square().sum() / (told - told.mean(0)).square().sum().clamp(min=1e-9)
    return {"moved_px": float(off.norm(dim=1).median()), "moved_explained": float(explained)}


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
