"""Shipping labels: a Data Matrix code as a picture, and reading one back from a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import zxingcpp

from internvla_a1_ros.core.types import ByteArray

LABEL_PX = 128
# 12 modules of the smallest symbol that holds a letter and seven digits, and a quiet zone of 2 on each side.
_MODULE_PX = LABEL_PX // 16


def parcel_code(destination: str, number: int) -> str:
    """Return the text on a label: the destination's first letter and seven digits."""
    return f"{destination[0].upper()}{number % 10_000_000:07d}"


def label_picture(text: str) -> ByteArray:
    """Return [128, 128, 3] black on white: the Data Matrix code of `text`. Raises ValueError where it does not fit."""
    code = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.DataMatrix)
    modules = np.asarray(code.to_image(scale=1, add_quiet_zones=False))
    if modules.shape != (12, 12):
        raise ValueError(f"label '{text}': needs {modules.shape[0]} modules, expected 12 (one letter and seven digits)")
    picture = np.full((LABEL_PX, LABEL_PX), 255, np.uint8)
    inside = slice(2 * _MODULE_PX, 14 * _MODULE_PX)
    picture[inside, inside] = np.kron(modules, np.ones((_MODULE_PX, _MODULE_PX), np.uint8))
    return np.repeat(picture[:, :, None], 3, axis=2)


def read_labels(rgb: ByteArray) -> list[str]:
    """Return the texts of all codes that can be read in a picture [height, width, 3]."""
    formats: Any = zxingcpp.BarcodeFormat.DataMatrix  # one is taken for a set of one; the stubs know only sets
    return sorted(result.text for result in zxingcpp.read_barcodes(rgb, formats=formats))
