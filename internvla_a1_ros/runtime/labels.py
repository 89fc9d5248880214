"""Codes in a picture: read with zxing-cpp, with what was measured of each. A code that cannot be read is a finding, not an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import zxingcpp

from internvla_a1_ros.core.types import ByteArray, FloatArray
from internvla_a1_ros.runtime.cell_steps import Labels, Rectangle, Region
from internvla_a1_ros.runtime.label_votes import LabelReading, PictureFacts

_FORMATS = {
    "qr_code": zxingcpp.BarcodeFormat.QRCode,
    "code_128": zxingcpp.BarcodeFormat.Code128,
    "data_matrix": zxingcpp.BarcodeFormat.DataMatrix,
}
_NAMES = {value: name for name, value in _FORMATS.items()}
# A linear code is found within some 10 degrees of its lines or across: it is looked for in copies turned by these angles too.
_TURNS_DEG = (0.0, 22.5, 45.0, 67.5)


def look(rgb: ByteArray, stamp_ns: int, labels: Labels | None, regions: Mapping[str, Region]) -> PictureFacts:
    """Return what a picture [height, width, 3] captured at `stamp_ns` shows: codes, and how much of each region is not background."""
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    occupied = {name: occupied_share(grey, region) for name, region in regions.items()}
    if labels is None:
        return PictureFacts(stamp_ns, occupied=occupied)
    part, _ = crop(grey, labels.region)
    contrast, edge_px = measure(part)
    return PictureFacts(stamp_ns, read_labels(grey, labels), occupied, contrast, edge_px)


def read_labels(grey: ByteArray, spec: Labels) -> tuple[LabelReading, ...]:
    """Return every code found in the region of a picture [height, width], best contrast first, readable or not."""
    part, origin = crop(grey, spec.region)
    found: dict[str, LabelReading] = {}
    for turn_deg in _TURNS_DEG if "code_128" in spec.symbologies else _TURNS_DEG[:1]:
        turned, back = _turn(part, turn_deg)
        names = spec.symbologies if turn_deg == 0 else ("code_128",)
        formats: Any = [_FORMATS[name] for name in names]
        for code in zxingcpp.read_barcodes(turned, formats=formats, return_errors=True):
            reading = _reading(code, turned, back, origin, grey.shape, spec)
            if reading.text not in found or found[reading.text].problem:
                found[reading.text] = reading
        if any(not reading.problem for reading in found.values()):
            break
    return tuple(sorted(found.values(), key=lambda reading: -reading.contrast))


def _reading(
    code: zxingcpp.Barcode, grey: ByteArray, back: FloatArray, origin: tuple[int, int], shape: tuple[int, ...], spec: Labels
) -> LabelReading:
    """Return what was found as a reading: measured where it was found, placed in the whole picture of `shape`."""
    corners = _corners(code.position)
    along, across = float(np.linalg.norm(corners[1] - corners[0])), float(np.linalg.norm(corners[3] - corners[0]))
    contrast, edge_px = measure(_patch(grey, corners, along, across))
    is_linear = code.symbology == zxingcpp.BarcodeFormat.Code128
    size_px = along if is_linear else (along + across) / 2
    centre_px = back[:, :2] @ corners.mean(axis=0) + back[:, 2] + origin
    centre = (float(centre_px[0] / shape[1]), float(centre_px[1] / shape[0]))
    problem = _problem(code, contrast, edge_px, size_px, spec)
    name = _NAMES.get(code.symbology, str(code.symbology))
    return LabelReading(code.text, name, centre, "left" if centre[0] < 0.5 else "right", size_px, contrast, edge_px, problem)


def _turn(grey: ByteArray, turn_deg: float) -> tuple[ByteArray, FloatArray]:
    """Return a picture turned about its centre, with nothing cut off, and the map [2, 3] of its pixels back."""
    if turn_deg == 0:
        return grey, np.eye(2, 3)
    height, width = grey.shape
    move = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, 1.0)
    reach = np.abs(move[:, :2]) @ (width, height)
    move[:, 2] += reach / 2 - (width / 2, height / 2)
    turned = cv2.warpAffine(grey, move, (round(reach[0]), round(reach[1])), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, dtype=np.uint8), np.asarray(cv2.invertAffineTransform(move), dtype=np.float64)


def _problem(code: zxingcpp.Barcode, contrast: float, edge_px: float, size_px: float, spec: Labels) -> str:
    """Return why a reading does not count; the measured cause comes before the decoder's word."""
    if contrast < spec.min_contrast:
        return f"contrast {contrast:.2f}, expected at least {spec.min_contrast:.2f}"
    if code.valid and code.text:
        return ""
    if size_px < spec.min_size_px:
        return f"size {size_px:.0f} px, expected at least {spec.min_size_px:.0f}"
    if edge_px > spec.max_edge_px:
        return f"blurred, edges {edge_px:.1f} px wide, expected at most {spec.max_edge_px:.1f}"
    said = "empty" if code.valid else "damaged or covered"
    return f"{said} (contrast {contrast:.2f}, edges {edge_px:.1f} px wide, size {size_px:.0f} px)"


def crop(grey: ByteArray, at: Rectangle) -> tuple[ByteArray, tuple[int, int]]:
    """Return the part of a picture [height, width] that lies in `at` (at least one pixel), and its left and top."""
    height, width = grey.shape
    left, top = min(int(at[0] * width), width - 1), min(int(at[1] * height), height - 1)
    right, bottom = max(left + 1, round(at[2] * width)), max(top + 1, round(at[3] * height))
    return np.ascontiguousarray(grey[top:bottom, left:right]), (left, top)


def occupied_share(grey: ByteArray, region: Region) -> float:
    """Return which share of the region's pixels is not as bright as its background."""
    part, _ = crop(grey, region.at)
    low, high = region.background
    return float(((part < low) | (part > high)).mean())


def measure(grey: ByteArray) -> tuple[float, float]:
    """Return the Michelson contrast between dark and light pixels of [height, width], and how many pixels wide an edge is.

    Dark and light are the medians on either side of Otsu's threshold; an edge is as wide as their difference over the 95th percentile
    of the slope. Both are 0 where there is nothing to part.
    """
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    is_light = grey > threshold
    if not is_light.any() or is_light.all() or min(grey.shape) < 2:
        return 0.0, 0.0
    values = grey.astype(np.float64)
    light, dark = float(np.median(values[is_light])), float(np.median(values[~is_light]))
    across, along = np.gradient(values)
    slope = float(np.percentile(np.hypot(across, along), 95))
    return (light - dark) / max(light + dark, 1.0), (light - dark) / max(slope, 1e-6)


def _corners(position: zxingcpp.Position) -> FloatArray:
    points = (position.top_left, position.top_right, position.bottom_right, position.bottom_left)
    return np.array([(point.x, point.y) for point in points], dtype=np.float64)


def _patch(grey: ByteArray, corners: FloatArray, along: float, across: float) -> ByteArray:
    """Return the code's own pixels as an upright picture of about its size."""
    width, height = (int(np.clip(round(length), 8, 1024)) for length in (along, across))
    upright = np.array([(0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)], dtype=np.float32)
    if across < 2:  # found along a single line: a band around it
        normal = np.array([corners[0, 1] - corners[1, 1], corners[1, 0] - corners[0, 0]]) / max(along, 1.0)
        corners = np.array([corners[0] - normal, corners[1] - normal, corners[1] + normal, corners[0] + normal])
    turned = cv2.warpPerspective(grey, cv2.getPerspectiveTransform(corners.astype(np.float32), upright), (width, height))
    return np.asarray(turned, dtype=np.uint8)
