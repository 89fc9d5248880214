"""`internvla-a1 calibrate board`, `intrinsics`: the board on paper, and a camera that looks at it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from internvla_a1_ros.cli.calibrate_files import Picture, pictures_of
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
    board_of,
    console,
    listening,
    target,
)
from internvla_a1_ros.commissioning.calibration_file import Intrinsics
from internvla_a1_ros.commissioning.charuco import Board, Finder, Sighting
from internvla_a1_ros.commissioning.intrinsics import fit_intrinsics, residual_so_far
from internvla_a1_ros.commissioning.views import MIN_VIEWS, Views
from internvla_a1_ros.core.errors import ConfigurationError
from internvla_a1_ros.core.types import Verdict
from internvla_a1_ros.robots.document import write_whole

CameraOption = Annotated[str, typer.Option("--camera", help="the camera, by the profile's name for it")]
ImagesOption = Annotated[Path | None, typer.Option("--images", help="a folder of pictures instead of the live camera")]


def board(
    file: Annotated[Path, typer.Argument(help="where it is drawn: a .png or a .pdf")],
    squares: BoardOption = DEFAULT_BOARD,
    square_mm: SquareOption = DEFAULT_SQUARE_MM,
    dpi: Annotated[int, typer.Option(min=50, max=1200, help="dots per inch")] = 300,
) -> None:
    """Draw the ChArUco board to print; its sizes stand below it."""
    from internvla_a1_ros.commissioning.sheet import draw_sheet

    if file.suffix.lower() not in (".png", ".pdf"):
        raise ConfigurationError(f"{file}: got ending '{file.suffix}', expected .png or .pdf")
    made = draw_sheet(board_of(squares, square_mm), dpi)
    packed = io.BytesIO()
    made.save(packed, format=file.suffix[1:].upper(), resolution=dpi, dpi=(dpi, dpi))
    write_whole(file, packed.getvalue())
    size = " x ".join(f"{side / dpi * 25.4:.0f}" for side in made.size)
    console.print(f"{file}: {size} mm at {dpi} dpi; print at 100 %, then measure a square", soft_wrap=True)


def intrinsics(
    camera: CameraOption,
    robot: RobotOption = DEFAULT_ROBOT,
    instance: InstanceOption = "",
    folder: FolderOption = DEFAULT_FOLDER,
    images: ImagesOption = None,
    squares: BoardOption = DEFAULT_BOARD,
    square_mm: SquareOption = DEFAULT_SQUARE_MM,
) -> None:
    """A camera's focal lengths, centre and distortion, from views of the board all over its picture."""
    goal, printed = target(robot, instance, folder), board_of(squares, square_mm)
    goal.camera(camera)
    views = Views(printed)
    if images is not None:
        _look_through(views, Finder(printed), pictures_of(images))
    else:
        _look_live(goal, camera, views, printed)
    fit = fit_intrinsics(views, printed)
    residuals = {"reprojection_px": fit.reprojection_px, "focal_sigma": fit.focal_sigma, "uncovered": 1.0 - views.covered}
    (fx, _, cx), (_, fy, cy), _ = fit.matrix.round(4).tolist()
    k1, k2, p1, p2, k3 = fit.distortion.round(6).tolist()
    found: dict[str, Any] = {"width": fit.size[0], "height": fit.size[1], "fx_px": fx, "fy_px": fy, "cx_px": cx, "cy_px": cy}
    method = f"{printed}, cv2.calibrateCamera without k3"
    goal.save(Intrinsics(**goal.signed(method, fit.used, residuals), camera=camera, **found, distortion=(k1, k2, p1, p2, k3)))


# Views of the board


def _look_through(views: Views, finder: Finder, pictures: list[Picture]) -> None:
    refused: list[str] = []
    for picture in pictures:
        seen = finder.find(picture.rgb)
        verdict = views.offer(seen) if isinstance(seen, Sighting) else seen
        if not verdict:
            refused.append(f"{picture.path.name}: {verdict.reason}")
    console.print(_shown(views, f"{len(refused)} of {len(pictures)} pictures not used"))
    for line in refused:
        console.print(f"  {line}", style="dim", soft_wrap=True)


def _look_live(goal: Target, camera: str, views: Views, printed: Board) -> None:
    console.print(
        "Show the printed board to the camera: hold it still at each place until it is taken. Ctrl-C ends without a trace.", soft_wrap=True
    )
    with listening(goal, (camera,)) as ear, Live(_shown(views, ""), console=console, refresh_per_second=8) as live:
        finder, last, residual = Finder(printed), None, None
        after_ns = ear.now_ns()
        while not views.enough:
            frame = ear.frame(camera, after_ns)
            after_ns = frame.stamp_ns
            seen = finder.find(frame.rgb)
            # Blur shows a fast hand; a slow one shows in the next picture.
            still = isinstance(seen, Sighting) and last is not None and _moved_px(last, seen) < 2.0
            last = seen if isinstance(seen, Sighting) else None
            if isinstance(seen, Verdict):
                live.update(_shown(views, seen.reason, residual))
            elif not still:
                live.update(_shown(views, "hold it still", residual))
            else:
                verdict = views.offer(seen)
                residual = residual_so_far(views, printed) if verdict else residual
                live.update(_shown(views, views.advice() if verdict else verdict.reason, residual))


def _moved_px(before: Sighting, after: Sighting) -> float:
    common = np.intersect1d(before.ids, after.ids)
    if len(common) == 0:
        return np.inf
    at = [sighting.corners[np.isin(sighting.ids, common)] for sighting in (before, after)]
    return float(np.linalg.norm(at[0] - at[1], axis=1).max())


def _shown(views: Views, said: str, residual_px: float | None = None) -> Group:
    """Return how many corners were seen in each part of the picture, and what is said of it."""
    most = max(int(views.corners_in.max()), 1)
    rows = ["  " + " ".join(".-+#"[min(3, int(np.ceil(3 * count / most)))] * 2 for count in row) for row in views.corners_in]
    head = f"views {len(views.taken)} of {MIN_VIEWS}, tilted {views.tilted}, picture covered {views.covered:.0%}"
    head += "" if residual_px is None else f", residual {residual_px:.2f} px"
    return Group(Text(head), *(Text(row) for row in rows), Text(said, style="bold"))
