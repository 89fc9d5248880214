"""`internvla-a1 convert`: bags to a LeRobot dataset, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from internvla_a1_ros.cli.progress import working
from internvla_a1_ros.core.errors import ConfigurationError, suggestion

if TYPE_CHECKING:
    from internvla_a1_ros.bags.converting_episodes import Meaning

TARGETS = ("lerobot", "bag")
MEANINGS = ("next-state", "command")


def convert(
    paths: Annotated[list[Path], typer.Argument(help="what to convert, one or more, and last what to make", metavar="FROM... OUT")],
    to: Annotated[str, typer.Option(help="lerobot: a dataset of version 3.0 from bags; bag: an MCAP bag from a dataset")],
    robot: Annotated[str, typer.Option(help="robot profile: its name or the path of a YAML file")] = "arx_ac_one",
    robot_type: Annotated[str, typer.Option(help="which of the profile's layouts to write; its usual one where empty")] = "",
    episodes_from: Annotated[
        list[str] | None, typer.Option(help="topic whose messages cut episodes (more than once for several), or 'whole'")
    ] = None,
    actions: Annotated[str, typer.Option(help="next-state: the joints a step later; command: what they were told")] = "next-state",
    drop_static: Annotated[bool, typer.Option("--drop-static", help="leave out steps after half a second in which nothing moved")] = False,
    static_tolerance: Annotated[float, typer.Option(help="what an arm's joint may move at rest (rad)", min=0.0)] = 0.01,
    fps: Annotated[float, typer.Option(help="steps a second", min=1.0, max=120.0)] = 30.0,
    codec: Annotated[str, typer.Option(help="av1 or h264; the first that can be encoded here where empty")] = "",
    task: Annotated[str, typer.Option(help="what is done, in words, instead of the bag's instructions")] = "",
    remap: Annotated[list[str] | None, typer.Option(help="PROFILE_TOPIC:=BAG_TOPIC where the bag has another name")] = None,
    episode: Annotated[int, typer.Option(help="--to bag: which episode", min=0)] = 0,
) -> None:
    """Convert bags of one robot to a LeRobot dataset, with the keys and the units that the released training code expects; or back."""
    from internvla_a1_ros.robots.profile import load_usable_profile

    if to not in TARGETS:
        raise ConfigurationError(f"--to: got '{to}', expected one of {', '.join(TARGETS)}{suggestion(to, list(TARGETS))}")
    if len(paths) < 2:
        raise ConfigurationError(f"convert: got only '{paths[0]}', expected what to convert and, last, what to make")
    *sources, out = paths
    profile = load_usable_profile(robot)
    with working(f"writing {out}", 1.0) as work:
        if to == "bag":
            from internvla_a1_ros.bags.converting_back import convert_back

            if len(sources) != 1:
                raise ConfigurationError(f"--to bag: got {len(sources)} datasets, expected one")
            notes = convert_back(sources[0], episode, profile, out, robot_type=robot_type, progress=work.at)
            summary = f"{out}: episode {episode} of {sources[0]}"
        else:
            from internvla_a1_ros.bags.converting import convert as convert_bags
            from internvla_a1_ros.bags.converting_episodes import Choices

            asked = episodes_from or []
            choices = Choices(fps, _meaning(actions), asked == ["whole"], task, static_tolerance if drop_static else None)
            outcome = convert_bags(
                sources,
                profile,
                out,
                choices,
                cut_by=[] if choices.whole else asked,
                topics=_renamed(remap or []),
                robot_type=robot_type,
                codec=codec,
                progress=work.at,
            )
            notes = outcome.notes
            summary = f"{out}: {outcome.episodes} episodes, {outcome.steps} steps, {outcome.steps / fps:.1f} s"
    for note in notes:
        print(f"note: {note}")
    print(summary)


def _meaning(text: str) -> Meaning:
    if text not in MEANINGS:
        raise ConfigurationError(f"--actions: got '{text}', expected one of {', '.join(MEANINGS)}{suggestion(text, list(MEANINGS))}")
    return "command" if text == "command" else "next-state"


def _renamed(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        ours, sign, theirs = pair.partition(":=")
        if not (ours and sign and theirs):
            raise ConfigurationError(f"--remap: got '{pair}', expected PROFILE_TOPIC:=BAG_TOPIC")
        found[ours] = theirs
    return found
