"""Checks of what the cameras show: readable, of the expected size, lit, sharp, and not frozen."""

from __future__ import annotations

import numpy as np

from internvla_a1_ros.commissioning.doctor_facts import Facts, Stream, Views
from internvla_a1_ros.commissioning.doctor_findings import Finding, Level, ok, stop, warning
from internvla_a1_ros.robots.profile import RobotProfile
from internvla_a1_ros.robots.wires import Camera

# Grey levels of 255. A covered lens or a failed exposure is far below or above; a dim room or a bright table is not.
BLACK, WHITE = 12.0, 243.0
# A picture of one colour (lens cap, wall, test picture) has less spread than sensor noise alone makes of a scene.
ONE_COLOUR = 4.0
# Variance of the Laplacian at 320 pixels of width: docs/doctor.md has what sharp and blurred pictures measure.
BLURRED = 30.0
# Sensor noise makes every picture of a real camera differ from the one before; the same bytes for a second are one picture sent again.
FROZEN_S = 1.0
# Two per cent is rounding; more is another crop of the scene, which the model pads and scales differently.
SHAPE_SHARE = 0.02


def check_pictures(profile: RobotProfile, facts: Facts, model_side: int) -> list[Finding]:
    """Return the findings on every camera from which something came; `model_side`: pixels a side of the model's picture, 0 = unknown."""
    found = []
    for camera in profile.cameras:
        stream, views = facts.streams[camera.topic], facts.views[camera.name]
        if len(stream.received_ns) == 0:
            continue
        readable = check_readable(camera, stream, views)
        found.append(readable)
        if views.pictures:
            found.append(check_size(camera, views, model_side))
            lit = check_exposure(camera, views)
            found.append(lit)
            if lit.level is Level.OK:  # of a black picture that is the one thing to say
                found += [check_sharpness(camera, views), check_frozen(camera, views, facts.simulated)]
    return found


def check_readable(camera: Camera, stream: Stream, views: Views) -> Finding:
    """Can the pictures be decoded, and are they encoded as the profile says?"""
    subject = f"camera {camera.name}"
    if not views.pictures:
        why = stream.refusal or f"none of {len(stream.received_ns)} messages was decoded"
        return stop("encoding", subject, why, "let the driver send rgb8, bgr8, mono8, jpeg or png")
    if stream.refused:
        what = f"{stream.refused} of {len(stream.received_ns)} pictures refused: {stream.refusal}"
        return warning("encoding", subject, what, "look at network and driver: pictures are damaged on their way")
    encoding = views.pictures[-1].encoding or "not said"
    if camera.encodings and not any(known.lower() in encoding.lower() for known in camera.encodings):
        what = f"encoding '{encoding}', the profile knows {', '.join(camera.encodings)}"
        return warning("encoding", subject, what, "check that colours are right, then add the encoding to the profile")
    return ok("encoding", subject, encoding)


def check_size(camera: Camera, views: Views, model_side: int) -> Finding:
    """Is the picture as large as the robot's profile says, always the same, and no smaller than what the model looks at?"""
    subject = f"camera {camera.name}"
    sizes = sorted({(picture.width, picture.height) for picture in views.pictures})
    if len(sizes) > 1:
        told = ", ".join(f"{width}x{height}" for width, height in sizes)
        return stop("size", subject, f"the size changes: {told}", "two cameras or two modes on one topic: end one")
    width, height = sizes[0]
    what = f"{width}x{height}"
    if camera.size is not None and (width, height) != camera.size:
        what = f"{what}, the profile says {camera.size[0]}x{camera.size[1]}"
        shape = width / height * camera.size[1] / camera.size[0]
        if abs(shape - 1.0) > SHAPE_SHARE:
            return stop("size", subject, f"{what}: another shape, another crop of the scene", "set the camera's mode to the profile's size")
        return warning("size", subject, what, "set the camera's mode to the profile's size; a calibration of another size does not hold")
    if max(width, height) < model_side:
        return warning("size", subject, f"{what}, the model looks at {model_side}x{model_side}", "choose a larger mode of the camera")
    return ok("size", subject, what)


def check_exposure(camera: Camera, views: Views) -> Finding:
    """Is there light, and is there a scene? Judged by the median picture: one flash is no fault."""
    subject = f"camera {camera.name}"
    brightness = float(np.median([picture.brightness for picture in views.pictures]))
    contrast = float(np.median([picture.contrast for picture in views.pictures]))
    what = f"brightness {brightness:.0f} of 255, contrast {contrast:.0f}"
    if brightness < BLACK:
        return stop("exposure", subject, f"black: {what}", "take the cap off, switch the light on, or look at the exposure")
    if brightness > WHITE:
        return stop("exposure", subject, f"white: {what}", "lower exposure or gain, or turn the camera away from the lamp")
    if contrast < ONE_COLOUR:
        return stop("exposure", subject, f"one colour: {what}", "something covers the lens, or the driver sends a test picture")
    return ok("exposure", subject, what)


def check_sharpness(camera: Camera, views: Views) -> Finding:
    """Is it in focus and the lens clean? Judged by the sharpest picture: motion blurs, focus does not come and go."""
    subject = f"camera {camera.name}"
    sharpness = max(picture.sharpness for picture in views.pictures)
    what = f"sharpness {sharpness:.0f}"
    if sharpness < BLURRED:
        remedy = "clean the lens, set its focus, and look whether the scene is only plain"
        return warning("sharpness", subject, f"blurred: {what}, sharp pictures have at least {BLURRED:.0f}", remedy)
    return ok("sharpness", subject, what)


def check_frozen(camera: Camera, views: Views, simulated: bool) -> Finding:
    """Does the picture change? A rendered one has no noise and rests while nothing moves."""
    subject = f"camera {camera.name}"
    if views.still_s >= FROZEN_S:
        what = f"the same picture for {views.still_s:.1f} s"
        if simulated:
            return ok("frozen", subject, f"{what} (simulated: no noise)")
        return stop("frozen", subject, what, "the camera hangs while its driver goes on: unplug it and restart the driver")
    changes = [picture.change for picture in views.pictures if picture.change is not None]
    return ok("frozen", subject, f"changes by {np.mean(changes):.2f} grey levels" if changes else "changes")
