"""`internvla-a1 make-nano`: a small checkpoint in the released folder format, with its own tokenizer. Untrained."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from internvla_a1_ros.cli.make_nano_parts import taken
from internvla_a1_ros.cli.make_nano_robot import manifest_of, statistics_of, write_manifest
from internvla_a1_ros.core.errors import ConfigurationError, suggestion
from internvla_a1_ros.model.nano import draw_model, nano_sizes, nano_sizes_2b
from internvla_a1_ros.model.sizes import TokenIds
from internvla_a1_ros.model.writing import write_checkpoint, write_json
from internvla_a1_ros.policy.statistics import ARX, Layout
from internvla_a1_ros.policy.tokenizer import qwen_tokenizer, special
from internvla_a1_ros.robots.profile import load_profile

SPECIAL = ("<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
VOCABULARY = 640
SIZES = {"3b": nano_sizes, "2b": nano_sizes_2b}
READY_RAD = (0.0, 0.948, 0.858, -0.573, 0.0, 0.0)  # the ARX arms' ready pose
# Small on purpose: plans of an untrained model are noise, and 0.01 rad of it shows the loop without shaking the arms.
STATE_STD_RAD, DELTA_STD_RAD = 0.3, 0.01
GRIPPER_OPEN, GRIPPER_CLOSED = -3.4, 0.0  # motor readout of the 2025 arms

ROBOT = "ARX AC One, two arms of six joints with grippers (`stats.json`)"
CARD = """# {folder}

A small model of InternVLA-A1's {layout} layout: {millions:.1f} million parameters, {views} views of {columns}x{rows} pixels, chunks of
{chunk} actions.

**Untrained.** Its weights are drawn from seed {seed}; it looks at the pictures and moves the arms a little, for no reason. It is
here so that the whole loop, from cameras to guarded commands, runs on a machine without a GPU.{taken}

Made by `internvla-a1 make-nano {folder} --seed {seed}{option}`. The folder has the released format (`config.json`, `model.safetensors` in
bfloat16, `stats.json`), with the sizes in {files}, and a byte-level tokenizer of
{vocabulary} tokens trained on the instructions of the two tasks.

- Robot: {robot}. Actions are relative to the observed joints, grippers
  absolute. The statistics are chosen, not measured: states around the ready pose ({state_std} rad), deltas of {delta_std} rad.
- The last projection is fitted so that the flow contracts noise (`model/nano.py`, `calm_flow`): normalised actions stay below
  about 3, so arms stay within about {reach:.2f} rad of where they are.
"""


def make_nano(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write; made if need be")],
    seed: Annotated[int, typer.Option(help="the weights are drawn from it")] = 0,
    layout: Annotated[str, typer.Option(help="3b or 2b: which released model's layout")] = "3b",
    robot: Annotated[str, typer.Option(help="for this robot (its profile's name or path), manifest.yaml included; empty: AC One")] = "",
    autoencoder: Annotated[str, typer.Option(metavar="MODEL", help="take the autoencoder of this one (nano, a folder); empty: drawn")] = "",
    vision: Annotated[str, typer.Option(metavar="MODEL", help="take the vision tower of this one; empty: drawn")] = "",
) -> None:
    """Write an untrained model of nano size in the released folder format.

    With --autoencoder nano --vision nano it sees as the one that comes along does, and only what acts and imagines is drawn: where
    teaching a policy of your own begins, without the two stages that teach it to see (docs/nano.md).
    """
    if layout not in SIZES:
        raise ConfigurationError(f"--layout: got '{layout}', expected 3b or 2b{suggestion(layout, list(SIZES))}")
    profile = load_profile(robot) if robot else None
    models = {part: model for part, model in (("autoencoder", autoencoder), ("vision", vision)) if model}
    options = {"layout": "" if layout == "3b" else layout, "robot": robot, **models}
    option = "".join(f" --{name} {told}" for name, told in options.items() if told)
    if profile is not None:
        manifest = manifest_of(profile, f"internvla-a1 make-nano {folder.name} --seed {seed}{option}", instructions()[0])
        table = statistics_of(profile, STATE_STD_RAD, DELTA_STD_RAD)
    else:
        table = {"ARX AC One": statistics(ARX)}
    tokenizer = train_tokenizer()
    pad, start, end, image = (tokenizer.get_vocab(with_added_tokens=True)[text] for text in SPECIAL)
    sizes = SIZES[layout](tokenizer.get_vocab_size(), TokenIds(vision_start=start, image=image, vision_end=end, pad=pad))
    if profile is not None:
        sizes = replace(sizes, robot_width=profile.dof, views=len(profile.cameras))
    known = {name: weight for part, model in models.items() for name, weight in taken(part, model, sizes).items()}
    model = draw_model(sizes, seed, known)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"'{folder}' cannot be made a folder: {error.strerror}") from None
    write_checkpoint(folder, model, torch.bfloat16)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "stats.json", table)
    if profile is not None:
        write_manifest(folder / "manifest.yaml", manifest)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    card = CARD.format(
        millions=parameters / 1e6,
        views=sizes.views,
        rows=sizes.picture[0],
        columns=sizes.picture[1],
        chunk=sizes.chunk,
        seed=seed,
        folder=folder.name if option else "models/nano",
        files="`architecture.json` and `preprocessor_config.json`" if layout == "3b" else "`architecture.json`",
        layout=sizes.layout.title,
        option=option,
        taken="".join(f" Its {part} is that of `{name}`." for part, name in models.items()),
        robot=ROBOT if profile is None else f"{profile.name}, {profile.dof} joints with grippers (`stats.json`, made from its profile)",
        vocabulary=sizes.vocabulary,
        state_std=STATE_STD_RAD,
        delta_std=DELTA_STD_RAD,
        reach=3 * DELTA_STD_RAD,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    size_mb = (folder / "model.safetensors").stat().st_size / 1e6
    typer.echo(f"wrote {folder}: {parameters / 1e6:.2f} M parameters, {size_mb:.1f} MB, {sizes.vocabulary} tokens, untrained")


def instructions() -> list[str]:
    """Sentences of both tasks, express sorting and in-motion ingredient picking, as people say them."""
    sides, arms = ("left", "right"), ("left arm", "right arm", "left gripper", "right gripper")
    parcels = ("parcel", "package", "small box", "express parcel", "next parcel", "parcel on the conveyor belt", "moving parcel")
    food = ("bread", "lettuce", "cheese", "tomato", "patty", "ham", "onion", "pickle", "bun", "ingredient", "meat slice", "egg")
    sentences = [
        # As launch/cells and the trials say them.
        "Track the parcel on the belt and grasp it with the right arm.",
        "Flip the parcel with the right arm and take it over with the left arm.",
        "Lift the parcel and show its label to the head camera.",
        *(f"Place the parcel in the {side} bin." for side in sides),
        "Pick up a slice of bread from the moving belt.",
        "Pick up the steak from the moving belt.",
        "Pick up a lettuce leaf from the moving belt.",
        "Sort the parcels on the conveyor belt.",
        "Express sorting.",
        "Pick the ingredients from the moving belt.",
        "Wait.",
        "Stop.",
    ]
    for parcel, side in product(parcels, sides):
        sentences += [
            f"Pick up the {parcel} and place it in the {side} bin.",
            f"Pick up the {parcel} from the conveyor and place it in the bin",
            f"Turn the {parcel} over so that its label faces up, then put it on the {side} side.",
            f"If the label of the {parcel} faces down, flip it; push it to the {side}.",
        ]
    sentences += [f"Pick up the {a} with left arm, pick up the {b} with right arm" for a, b in product(food, food)]
    for item, arm in product(food, arms):
        sentences += [
            f"Pick the {item} from the belt with the {arm} and put it on the sandwich.",
            f"Place the {item} on the plate using the {arm}.",
            f"In-motion ingredient picking: grasp the {item}.",
        ]
    return sentences


def train_tokenizer() -> Tokenizer:
    """Byte pairs over both tasks' instructions; every byte is a token, so any text can be said."""
    tokenizer = qwen_tokenizer(BPE())
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        show_progress=False,
        special_tokens=[special(text) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(instructions(), trainer)
    return tokenizer


def statistics(layout: Layout) -> dict[str, Any]:
    """Statistics that make an untrained policy move little: states around the ready pose, small deltas, grippers about open."""
    table: dict[str, Any] = {}
    for key in layout.state_keys:
        if "gripper" in key:
            table[key] = moments(((GRIPPER_OPEN + GRIPPER_CLOSED) / 2,), 1.0, GRIPPER_OPEN, GRIPPER_CLOSED)
        else:
            table[key] = moments(READY_RAD, STATE_STD_RAD)
    for key in layout.action_keys:
        if "gripper" in key:
            table[key] = moments((GRIPPER_OPEN + 0.4,), 0.1, GRIPPER_OPEN, GRIPPER_CLOSED)
        else:
            table[key] = moments((0.0,) * len(READY_RAD), DELTA_STD_RAD)
    return table


def moments(mean: tuple[float, ...], std: float, low: float | None = None, high: float | None = None) -> dict[str, list[float]]:
    """One key's statistics; the range is three spreads to either side unless given. A count of 0: nothing was measured."""
    return {
        "min": [round(m - 3 * std, 6) if low is None else low for m in mean],
        "max": [round(m + 3 * std, 6) if high is None else high for m in mean],
        "mean": list(mean),
        "std": [std] * len(mean),
        "count": [0],
    }
