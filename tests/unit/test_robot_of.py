"""Which robot a node works for: profile, own name, and what was measured on this unit."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from internvla_a1_ros.commissioning.calibration_file import MAX_AGE, Delays, JointZeros, save_calibration
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.nodes.robot import robot_of


def node(**given: str) -> Any:
    values = {"robot": "arx_ac_one", "instance": "cell_7", "calibration": "", **given}
    return SimpleNamespace(get_parameter=lambda name: SimpleNamespace(value=values[name]))


def measured(folder: Path, **changes: Any) -> None:
    common = {"robot": "cell_7", "profile": "arx_ac_one", "date": datetime.now(timezone.utc), "method": "test", "samples": 3}
    common |= {"residuals": {}, **changes}
    save_calibration(folder, Delays(**common, actuation_s=0.042, cameras_s={"head": 0.031}))
    save_calibration(folder, JointZeros(**common, offsets_rad={"left_joint1": 0.02}))


def test_without_a_calibration_the_profile_is_as_written() -> None:
    profile, instance = robot_of(node())
    assert instance == "cell_7" and profile.actuation_delay_s == 0.0
    assert robot_of(node(instance=""))[1] == "arx_ac_one"


def test_what_was_measured_is_in_the_profile(tmp_path: Path) -> None:
    measured(tmp_path)
    profile, _ = robot_of(node(calibration=str(tmp_path)))
    assert profile.actuation_delay_s == 0.042 and profile.cameras[0].delay_s == 0.031
    (scale, offset), (back, shift) = profile.measured, profile.commanded
    position = scale[0] * 0.5 + offset[0]
    assert position == pytest.approx(0.48) and back[0] * position + shift[0] == pytest.approx(0.5), "to the wire and back"


def test_nothing_measured_on_this_unit_changes_nothing(tmp_path: Path) -> None:
    measured(tmp_path)
    assert robot_of(node(calibration=str(tmp_path), instance="cell_8"))[0].actuation_delay_s == 0.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"date": datetime.now(timezone.utc) - MAX_AGE - timedelta(days=1)}, "days"), ({"profile": "arx_lift2s"}, "expected 'arx_ac_one'")],
)
def test_a_stale_one_or_one_of_another_robot_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    measured(tmp_path, **changes)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        robot_of(node(calibration=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^calibration: got '.*/calibratoin', expected a folder .* such as 'cell_7'$"):
        robot_of(node(calibration=str(tmp_path / "calibratoin")))
