"""`internvla-a1 calibrate hand-eye`, `belt`: places and speeds in metres, seen by a camera whose intrinsics are known."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from internvla_a1_ros.cli.calibrate_cameras import CameraOption, ImagesOption
from internvla_a1_ros.cli.calibrate_files import Picture, numbers, pictures_of, read_table, stamps_of
from internvla_a1_ros.cli.calibrate_guide import (
    DEFAULT_BOARD,
    DEFAULT_FOLDER,
    DEFAULT_ROBOT,
    DEFAULT_SQUARE_MM,
    BoardOption,
    FolderOption,
    InstanceOption,
    RobotOption,
    SquareOption,
    Target,
    ask,
    board_of,
    console,
    listening,
    target,
)
from internvla_a1_ros.commissioning.belt import BeltView, fit_belt, view_of_points
from internvla_a1_ros.commissioning.calibration_file import Belt, HandEye, Intrinsics, load_calibration
from internvla_a1_ros.commissioning.charuco import Board, Finder, Sighting
from internvla_a1_ros.commissioning.hand_eye import MIN_POSES, fit_hand_eye
from internvla_a1_ros.commissioning.poses import from_rpy, quaternion_xyzw
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import FloatArray, Verdict

_GOOD_POSES = 15
# The hand may tremble, or still swing, while its picture is taken.
_HAND_RESTS_M = 0.002


def hand_eye(
    camera: CameraOption,
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    arm: Annotated[str, typer.Option(help="the arm that carries the camera or the board, as its joints' names begin")] = "left",
    fixed: Annotated[bool, typer.Option("--fixed", help="the camera stands beside the arm and the hand carries the board")] = False,
    images: ImagesOption = None,
    poses: Annotated[
        Path | None, typer.Option(help="with --images: a CSV file, picture,x,y,z,roll,pitch,yaw of the hand in its base, m and rad")
    ] = None,
    pose_field: Annotated[
        str, typer.Option(help="live: the field of the arm's state that holds its hand's x y z roll pitch yaw")
    ] = "end_pos",
    squares: BoardOption = DEFAULT_BOARD,
    square_mm: SquareOption = DEFAULT_SQUARE_MM,
) -> None:
    """Where a camera is: on an arm's hand (the board lies still), or with --fixed beside the arm (the hand carries the board)."""
    goal, printed = target(robot, instance, folder), board_of(squares, square_mm)
    lens = _intrinsics(goal, goal.camera(camera))
    if images is not None:
        if poses is None:
            raise ConfigurationError("--images: got pictures without the hand's poses, expected --poses FILE.csv")
        hands, sightings = _posed(images, poses, Finder(printed), lens)
    else:
        hands, sightings = _pose_live(goal, camera, arm, pose_field, printed, lens, on_hand=not fixed)
    fit = fit_hand_eye(hands, sightings, printed, lens.matrix, np.array(lens.distortion), on_hand=not fixed)
    residuals = {"off_m": fit.off_m, "off_rad": fit.off_rad, "reprojection_px": fit.reprojection_px, "sigma_m": fit.sigma_m}
    x, y, z = fit.parent_from_camera[:3, 3].round(5).tolist()
    qx, qy, qz, qw = (round(value, 6) for value in quaternion_xyzw(fit.parent_from_camera[:3, :3]))
    parent = f"{arm} {'base' if fixed else 'hand'}"
    method = f"{printed}, Park and Martin's closed form, then least reprojection error"
    signed = goal.signed(method, fit.used, residuals)
    goal.save(HandEye(**signed, camera=camera, parent=parent, position_m=(x, y, z), quaternion_xyzw=(qx, qy, qz, qw)))


def belt(
    camera: CameraOption,
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    images: ImagesOption = None,
    plane: Annotated[Path | None, typer.Option(help="a picture of the board lying flat on the belt, its long side along x")] = None,
    points: Annotated[Path | None, typer.Option(help="instead: a CSV file u_px,v_px,x_m,y_m of four points or more on the belt")] = None,
    rate: Annotated[float, typer.Option(help="pictures a second, where their names are no times in ns")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.5, max=10.0, help="how long to watch live")] = 3.0,
    squares: BoardOption = DEFAULT_BOARD,
    square_mm: SquareOption = DEFAULT_SQUARE_MM,
) -> None:
    """How fast the belt runs and where to, seen from the frame of the board that lay on it (x along its long side)."""
    goal, printed = target(robot, instance, folder), board_of(squares, square_mm)
    lens = _intrinsics(goal, goal.camera(camera))
    given = None
    if points is not None:
        table = numbers(points, read_table(points, columns := ["u_px", "v_px", "x_m", "y_m"]), columns)
        given = view_of_points(table[:, :2], table[:, 2:], lens.matrix, np.array(lens.distortion))
    elif plane is not None:
        given = _view(Finder(printed), printed, Picture(plane).rgb, lens, str(plane))
    if images is not None:
        if given is None:
            raise ConfigurationError("--images: got pictures without the belt's plane, expected --plane PICTURE or --points FILE.csv")
        files = pictures_of(images)
        stamps_s, pictures = stamps_of(files, rate), [file.rgb for file in files]
    else:
        given, stamps_s, pictures = _watch(goal, camera, Finder(printed), printed, lens, given, seconds)
    fit = fit_belt(stamps_s, pictures, given, lens.matrix, np.array(lens.distortion))
    residuals = {"speed_spread_m_s": fit.speed_spread_m_s, "heading_spread_rad": fit.heading_spread_rad}
    method = f"{'given points' if points else str(printed)}, shifts between pictures of the belt"
    signed = goal.signed(method, fit.pairs, residuals)
    goal.save(Belt(**signed, camera=camera, speed_m_s=round(fit.speed_m_s, 5), heading_rad=round(fit.heading_rad, 4)))


# Poses of the hand


def _posed(images: Path, poses: Path, finder: Finder, lens: Intrinsics) -> tuple[FloatArray, list[Sighting]]:
    columns = ["x", "y", "z", "roll", "pitch", "yaw"]
    table = read_table(poses, ["picture", *columns])
    hands, sightings = [], []
    for name, row in zip(table["picture"], numbers(poses, table, columns), strict=True):
        seen = finder.find(Picture(images / name).rgb)
        if isinstance(seen, Verdict):
            console.print(f"  {name}: {seen.reason}", style="dim", soft_wrap=True)
            continue
        _refuse_size(seen, lens, name)
        hands.append(from_rpy(row))
        sightings.append(seen)
    return np.array(hands).reshape(-1, 4, 4), sightings


def _pose_live(
    goal: Target, camera: str, arm: str, field: str, printed: Board, lens: Intrinsics, *, on_hand: bool
) -> tuple[FloatArray, list[Sighting]]:
    told = "the board lies still and the hand's camera sees it" if on_hand else "the hand carries the board and the camera sees it"
    console.print(f"{_GOOD_POSES} poses or more: {told}; turn the hand about all its axes, 20 to 60 degrees between poses.", soft_wrap=True)
    finder = Finder(printed)
    hands: list[FloatArray] = []
    sightings: list[Sighting] = []
    with listening(goal, (camera,)) as ear:
        ear.listen_to_hand(arm, field)
        while True:
            done = len(sightings) >= _GOOD_POSES
            answer = ask(f"pose {len(sightings) + 1}: move the hand, let it rest" + (", or type q when these are enough" if done else ""))
            if done and answer == "q":
                return np.array(hands), sightings
            frame = ear.frame(camera, ear.now_ns())
            hand, strayed_m = ear.hand_at(arm, frame.stamp_ns)
            seen = finder.find(frame.rgb)
            if isinstance(seen, Verdict):
                console.print(seen.reason, style="yellow", soft_wrap=True)
            elif strayed_m > _HAND_RESTS_M:
                console.print(f"the hand moved by {strayed_m * 1e3:.1f} mm: let it rest before Enter", style="yellow")
            else:
                _refuse_size(seen, lens, camera)
                hands.append(from_rpy(hand))
                sightings.append(seen)
                console.print(_so_far(np.array(hands), sightings, printed, lens, on_hand=on_hand), soft_wrap=True)


def _so_far(hands: FloatArray, sightings: list[Sighting], printed: Board, lens: Intrinsics, *, on_hand: bool) -> str:
    if len(sightings) < MIN_POSES:
        return f"taken: {len(sightings)} of {_GOOD_POSES}"
    try:
        fit = fit_hand_eye(hands, sightings, printed, lens.matrix, np.array(lens.distortion), on_hand=on_hand)
    except ConfigurationError as problem:
        return f"taken: {len(sightings)}; {problem}"
    return f"taken: {len(sightings)}; single views miss by {fit.off_m * 1e3:.1f} mm and {np.degrees(fit.off_rad):.2f} degrees"


def _intrinsics(goal: Target, camera: str) -> Intrinsics:
    found = load_calibration(goal.folder, goal.instance, f"intrinsics_{camera}", datetime.now(timezone.utc))
    assert isinstance(found, Intrinsics)
    return found


def _refuse_size(seen: Sighting, lens: Intrinsics, where: str) -> None:
    if seen.size != (lens.width, lens.height):
        width, height = seen.size
        raise ConfigurationError(
            f"{where}: got a picture of {width}x{height}, expected {lens.width}x{lens.height} as in the intrinsics: calibrate those anew"
        )


# The belt


def _view(finder: Finder, printed: Board, rgb: Any, lens: Intrinsics, where: str) -> BeltView:
    seen = finder.find(rgb)
    if isinstance(seen, Verdict):
        raise ConfigurationError(f"{where}: {seen.reason}")
    _refuse_size(seen, lens, where)
    return view_of_points(seen.corners, seen.points_m(printed)[:, :2], lens.matrix, np.array(lens.distortion))


def _watch(
    goal: Target, camera: str, finder: Finder, printed: Board, lens: Intrinsics, given: BeltView | None, seconds: float
) -> tuple[BeltView, FloatArray, list[Any]]:
    with listening(goal, (camera,)) as ear:
        if given is None:
            ask("stop the belt and lay the board flat on it, its long side along the belt")
            given = _view(finder, printed, ear.frame(camera, ear.now_ns()).rgb, lens, camera)
        ask("take the board away and let the belt run with something on it to see")
        return given, *ear.film(camera, seconds)
