"""What differs between the two released layouts, in one place. Nothing here needs torch; sizes are in `sizes.py`.

All else in `model/` is one code for both: experts that share attention, Cosmos, the flow and its losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from internvla_a1_ros.core.errors import CheckpointError, suggestion

Renames = tuple[tuple[str, str], ...]

COSMOS_RENAMES: Renames = (
    ("cosmos._enc_model.quant_conv.", "cosmos.encoder.quant_conv."),
    ("cosmos._dec_model.post_quant_conv.", "cosmos.decoder.post_quant_conv."),
    ("cosmos._enc_model.encoder.", "cosmos.encoder."),
    ("cosmos._dec_model.decoder.", "cosmos.decoder."),
)
COSMOS_UNUSED = ("cosmos.encoder.patcher.", "cosmos.decoder.unpatcher.")  # the constants of the Haar filters


@dataclass(frozen=True, slots=True)
class Layout:
    """One of the released layouts.

    `kind`: `type` in config.json. `tower`: which vision tower. `view_ends`: tokens before and as many after a view's pictures.
    `merge_order`: the patches of a token follow each other; else they stand row by row. `scaled_words`: token embeddings are
    multiplied by sqrt(width). `positions` of the prefix: "grid", three axes where a picture takes rows and columns, or
    "counted", the number of valid tokens before. `masked_advance`: masked generation tokens take a position when actions are
    sampled. `qkv_bias`, `qk_norm`: of every expert's attention. `mean`, `std`: of the pictures, where the folder says nothing.

    `renames`: beginnings of saved names and ours; the first that fits is written. `tied_table`: the name under which the token
    table is saved where it is not saved under its own. `unused`: beginnings of our names that are in released files and not read.
    """

    kind: str
    title: str
    tower: Literal["qwen3_vl", "internvl"]
    view_ends: int
    merge_order: bool
    scaled_words: bool
    positions: Literal["grid", "counted"]
    masked_advance: bool
    qkv_bias: bool
    qk_norm: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    renames: Renames
    tied_table: str | None
    unused: tuple[str, ...]


QWENA1 = Layout(
    kind="qwena1",
    title="3B",
    tower="qwen3_vl",
    view_ends=1,
    merge_order=True,
    scaled_words=False,
    positions="grid",
    masked_advance=True,
    qkv_bias=False,
    qk_norm=True,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    renames=(
        ("qwen3_vl_with_expert.und_expert.model.language_model.", "understanding.text."),
        ("qwen3_vl_with_expert.und_expert.model.visual.", "understanding.vision."),
        ("qwen3_vl_with_expert.gen_expert.", "generation."),
        ("qwen3_vl_with_expert.act_expert.", "action."),
        *COSMOS_RENAMES,
    ),
    tied_table="qwen3_vl_with_expert.und_expert.lm_head.weight",  # saving drops embed_tokens in favour of it
    unused=("understanding.vision.deepstack_merger_list.", *COSMOS_UNUSED),  # the output of those mergers is not used
)

INTERNA1 = Layout(
    kind="interna1",
    title="2B",
    tower="internvl",
    view_ends=0,
    merge_order=False,
    scaled_words=True,
    positions="counted",
    masked_advance=False,
    qkv_bias=True,
    qk_norm=False,
    mean=(0.485, 0.456, 0.406),  # of ImageNet
    std=(0.229, 0.224, 0.225),
    renames=(
        ("internvl_with_expert.und_expert.model.language_model.", "understanding.text."),
        ("internvl_with_expert.und_expert.model.multi_modal_projector.", "understanding.vision.projector."),
        ("internvl_with_expert.und_expert.model.vision_tower.", "understanding.vision."),
        ("internvl_with_expert.gen_expert.model.", "generation."),
        ("internvl_with_expert.act_expert.model.", "action."),
        ("gen_in_proj.", "cosmos_in_proj."),
        ("gen_out_proj.", "cosmos_out_proj."),
        ("gen_out_layer_norm.", "cosmos_out_layer_norm."),
        *((theirs.replace("cosmos.", "cosmos_tokenizer.", 1), ours) for theirs, ours in COSMOS_RENAMES),
        *COSMOS_RENAMES,  # as `import-cosmos` writes them beside either layout
    ),
    tied_table=None,
    unused=("internvl_with_expert.und_expert.lm_head.", "imagenet_mean", "imagenet_std", *COSMOS_UNUSED),
)

LAYOUTS = {layout.kind: layout for layout in (QWENA1, INTERNA1)}


def layout_called(kind: object) -> Layout:
    """Return the layout whose `type` is `kind`. Raises CheckpointError where there is none."""
    if isinstance(kind, str) and kind in LAYOUTS:
        return LAYOUTS[kind]
    known = " or ".join(f"'{layout.kind}' (the {layout.title} layout)" for layout in LAYOUTS.values())
    near = suggestion(kind, list(LAYOUTS)) if isinstance(kind, str) else ""
    raise CheckpointError(f"got type {kind!r} (an unknown layout), expected {known}{near}")
