"""Labels in pictures: three symbologies, what is measured of each, and why one is not readable; pictures taken together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st

from internvla_a1_ros.runtime.cell_steps import Labels, Region
from internvla_a1_ros.runtime.label_votes import LabelReading, LabelVotes, Lying, PictureFacts
from internvla_a1_ros.runtime.labels import look, measure, occupied_share, read_labels

FORMATS = {
    "qr_code": zxingcpp.BarcodeFormat.QRCode,
    "code_128": zxingcpp.BarcodeFormat.Code128,
    "data_matrix": zxingcpp.BarcodeFormat.DataMatrix,
}
SPEC = Labels()
MS = 1_000_000


def code(symbology: str, text: str = "L0000042", scale: int = 0) -> np.ndarray:
    """A black code on white with its quiet zone [height, width]."""
    scale = scale or (3 if symbology == "code_128" else 5)
    return np.array(zxingcpp.create_barcode(text, FORMATS[symbology]).to_image(scale=scale))


def picture(
    label: np.ndarray, at: tuple[int, int] = (320, 240), turn_deg: float = 0.0, dark: float = 0.0, light: float = 255.0
) -> np.ndarray:
    """A 640x480 grey picture with a label's centre at `at`, turned, its black and white at these levels."""
    background = np.full((480, 640), 90, np.float32)
    height, width = label.shape
    move = cv2.getRotationMatrix2D((width / 2, height / 2), turn_deg, 1.0)
    move[:, 2] += np.array(at) - (width / 2, height / 2)
    levels = dark + label.astype(np.float32) / 255 * (light - dark)
    turned = cv2.warpAffine(levels, move, (640, 480), flags=cv2.INTER_LINEAR)
    inside = cv2.warpAffine(np.ones_like(levels), move, (640, 480), flags=cv2.INTER_NEAREST) > 0
    return np.where(inside, turned, background).astype(np.uint8)


@pytest.mark.parametrize("symbology", FORMATS)
@pytest.mark.parametrize("turn_deg", [0.0, 10.0, 25.0, 45.0, 70.0, 90.0, 180.0])
def test_each_symbology_is_read_whatever_its_turn(symbology: str, turn_deg: float) -> None:
    (found,) = [reading for reading in read_labels(picture(code(symbology), turn_deg=turn_deg), SPEC) if not reading.problem]
    assert (found.text, found.symbology, found.problem) == ("L0000042", symbology, "")
    assert found.centre == pytest.approx((0.5, 0.5), abs=0.02)
    assert found.contrast > 0.8
    assert 0 < found.edge_px < 3


@pytest.mark.parametrize(("at", "side"), [((160, 240), "left"), ((480, 240), "right")])
def test_side_is_the_half_of_the_picture(at: tuple[int, int], side: str) -> None:
    (found,) = read_labels(picture(code("qr_code"), at), SPEC)
    assert found.side == side
    assert found.centre == pytest.approx((at[0] / 640, 0.5), abs=0.02)


def test_size_is_that_of_the_code() -> None:
    (found,) = read_labels(picture(code("data_matrix", scale=6)), SPEC)
    assert found.size_px == pytest.approx(12 * 6, rel=0.12)  # 12 modules of 6 px


@pytest.mark.parametrize("symbology", FORMATS)
@pytest.mark.parametrize(("dark", "light"), [(0, 255), (60, 180), (100, 150)])
def test_contrast_is_michelsons(symbology: str, dark: float, light: float) -> None:
    (found,) = read_labels(picture(code(symbology), dark=dark, light=light), Labels(min_contrast=0.0))
    assert found.contrast == pytest.approx((light - dark) / (light + dark), abs=0.05)


def test_a_code_outside_the_region_does_not_exist() -> None:
    spec = Labels(region=(0.5, 0.0, 1.0, 1.0))
    assert read_labels(picture(code("qr_code"), (160, 240)), spec) == ()
    (found,) = read_labels(picture(code("qr_code"), (480, 240)), spec)
    assert found.centre == pytest.approx((0.75, 0.5), abs=0.02)


def test_a_symbology_that_is_not_asked_for_is_not_read() -> None:
    assert not [r for r in read_labels(picture(code("qr_code")), Labels(symbologies=("code_128",))) if not r.problem]


def test_low_contrast_is_a_reason_though_it_could_be_read() -> None:
    (found,) = read_labels(picture(code("qr_code"), dark=100, light=140), SPEC)
    assert found.problem.startswith("contrast 0.1") and found.problem.endswith("expected at least 0.30")


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (SPEC, "damaged or covered (contrast 0.99, edges 2.0 px wide, size 72 px)"),
        (Labels(min_size_px=90.0), "size 72 px, expected at least 90"),
        (Labels(max_edge_px=0.5), "blurred, edges 2.0 px wide, expected at most 0.5"),
        (Labels(min_size_px=90.0, max_edge_px=0.5, min_contrast=1.0), "contrast 0.99, expected at least 1.00"),
    ],
)
def test_why_a_code_that_was_found_is_not_readable(spec: Labels, problem: str) -> None:
    label = code("data_matrix", scale=6)
    label[24:72, 24:72] = np.random.default_rng(0).choice([0, 255], (8, 8)).repeat(6, 0).repeat(6, 1)
    (found,) = read_labels(picture(label, dark=1.0), spec)
    assert problem in found.problem


def test_what_fails_its_checksum_is_no_text() -> None:
    """A tall Code 128 turned by 10 degrees is also found as 'L0530042', with a wrong checksum, along a few lines."""
    tall = np.repeat(code("code_128", scale=2), 3, axis=0)
    assert [reading.text for reading in read_labels(picture(tall, turn_deg=10.0), SPEC) if not reading.problem] == ["L0000042"]


@pytest.mark.parametrize("blur_px", [6.0, 12.0])
def test_a_blurred_label_is_not_read_and_its_width_is_measured(blur_px: float) -> None:
    sharp = picture(code("data_matrix", scale=5))
    blurred = cv2.GaussianBlur(sharp, (0, 0), blur_px)
    assert not [reading for reading in read_labels(blurred, SPEC) if not reading.problem]
    facts = look(np.repeat(blurred[:, :, None], 3, axis=2), 1, Labels(region=(0.4, 0.4, 0.6, 0.6)), {})
    assert facts.edge_px > SPEC.max_edge_px > measure(sharp[192:288, 256:384])[1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 120), st.integers(1, 130))
def test_contrast_of_two_levels_is_exact(dark: int, step: int) -> None:
    stripes = np.tile(np.repeat(np.array([dark, dark + step], np.uint8), 8), (32, 4))
    contrast, edge_px = measure(stripes)
    assert contrast == pytest.approx(step / max(2 * dark + step, 1), abs=1e-6)
    assert edge_px == pytest.approx(2.0, abs=1e-6)  # central differences see half of a step from either side


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_picture_has_neither_contrast_nor_edges(level: int) -> None:
    assert measure(np.full((40, 40), level, np.uint8)) == (0.0, 0.0)
    assert read_labels(np.full((48, 64), level, np.uint8), SPEC) == ()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16)])
def test_pictures_of_any_size_are_looked_at(size: tuple[int, int]) -> None:
    regions = {"all": Region(at=(0, 0, 1, 1), background=(0, 10)), "corner": Region(at=(0.95, 0.95, 1, 1), background=(0, 10))}
    facts = look(np.zeros((*size, 3), np.uint8), 5, SPEC, regions)
    assert facts.stamp_ns == 5 and facts.readings == () and facts.occupied == {"all": 0.0, "corner": 0.0}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 100), st.integers(0, 100))
def test_occupied_is_the_share_that_is_not_background(bright: int, dark: int) -> None:
    grey = np.full((20, 10), 100, np.uint8)
    grey.reshape(-1)[:bright] = 250
    grey.reshape(-1)[100 : 100 + dark] = 3
    assert occupied_share(grey, Region(at=(0, 0, 1, 1), background=(90, 110))) == pytest.approx((bright + dark) / 200)
    assert occupied_share(grey, Region(at=(0, 0.5, 1, 1), background=(90, 110))) == pytest.approx(dark / 100)


# Several pictures


def reading(text: str, problem: str = "") -> LabelReading:
    return LabelReading(text, "qr_code", (0.5, 0.5), "right", 60.0, 0.9, 1.5, problem)


def test_a_picture_from_the_future_does_not_silence_the_camera() -> None:
    made = LabelVotes(Labels(agree=2, window_s=1.0))
    for stamp_s in (1.0, 3601.0, 1.1, 1.2, 1.15):
        made.add(PictureFacts(round(stamp_s * 1e9)))
    assert [picture.stamp_ns for picture in made._since(0)] == [1_100_000_000, 1_200_000_000]


def votes(*pictures: tuple[LabelReading, ...], agree: int = 2) -> LabelVotes:
    made = LabelVotes(Labels(agree=agree, window_s=1.0))
    for k, readings in enumerate(pictures):
        made.add(PictureFacts((k + 1) * 100 * MS, readings))
    return made


GOOD, OTHER, BAD = reading("A"), reading("B"), reading("", "contrast 0.10, expected at least 0.30")


@pytest.mark.parametrize(
    ("pictures", "now_ms", "lying", "reason"),
    [
        ([(GOOD,), (GOOD,)], 250, Lying.UP, "label 'A' read"),
        ([(GOOD,)], 250, Lying.UNKNOWN, ""),
        ([(GOOD,), (OTHER,)], 250, Lying.UNKNOWN, ""),
        ([(GOOD,), (OTHER,), (GOOD,)], 350, Lying.UP, "label 'A' read"),
        ([(GOOD, OTHER), (OTHER, GOOD)], 250, Lying.UNREADABLE, "got labels 'A' and 'B', expected one"),
        ([(GOOD, GOOD)], 250, Lying.UNKNOWN, ""),  # twice in one picture is one vote
        ([(BAD,), (BAD,)], 900, Lying.UNKNOWN, "contrast 0.10"),
        ([(BAD,), (BAD,)], 1000, Lying.UNREADABLE, "label not readable: contrast 0.10"),
        ([(BAD,), ()], 1000, Lying.DOWN, "no code"),  # one finding is none
        ([(BAD,), (BAD,), *[()] * 4], 1000, Lying.UNREADABLE, "contrast 0.10"),
        ([(BAD,), (BAD,), *[()] * 5], 1000, Lying.DOWN, "no code"),
        ([(), ()], 999, Lying.UNKNOWN, "no code found in the region (its contrast 0.00"),
        ([(), ()], 1000, Lying.DOWN, "no code in the region"),
        ([()], 1000, Lying.UNKNOWN, "got 1 pictures"),
        ([], 1000, Lying.UNKNOWN, "got 0 pictures"),
        ([], 10, Lying.UNKNOWN, "no picture from the head camera"),
    ],
)
def test_pictures_are_decided_over_together(pictures: list[tuple[LabelReading, ...]], now_ms: int, lying: Lying, reason: str) -> None:
    decision = votes(*pictures).decide(0, now_ms * MS)
    assert decision.lying is lying
    assert reason in decision.reason
    assert (decision.reading is not None) == (lying is Lying.UP)


@pytest.mark.parametrize("shown", [(), (BAD,)])
def test_a_camera_that_died_in_the_window_decides_nothing(shown: tuple[LabelReading, ...]) -> None:
    made = votes(shown, shown)
    assert made.decide(0, 1200 * MS).lying is not Lying.UNKNOWN
    late = made.decide(0, 1201 * MS)
    assert late.lying is Lying.UNKNOWN
    assert late.reason == "the head camera's last picture is 1.0 s old, expected one of the last 1.0 s"
    assert votes((GOOD,), (GOOD,)).decide(0, 9000 * MS).lying is Lying.UP, "what was read was read"


def test_only_pictures_since_the_moment_count() -> None:
    made = votes((GOOD,), (GOOD,), (), ())
    assert made.decide(0, 450 * MS).lying is Lying.UP
    assert made.decide(150 * MS, 450 * MS).lying is Lying.UNKNOWN
    assert made.decide(250 * MS, 1250 * MS).lying is Lying.DOWN


def test_a_picture_from_before_the_last_is_left_out() -> None:
    made = votes((GOOD,))
    made.add(PictureFacts(100 * MS, (GOOD,)))
    assert made.decide(0, 200 * MS).lying is Lying.UNKNOWN
    made.clear()
    made.add(PictureFacts(50 * MS, (GOOD,)))
    made.add(PictureFacts(60 * MS, (GOOD,)))
    assert made.decide(0, 200 * MS).lying is Lying.UP
