"""Names of the weights: as the released code saves them, and as this model's modules are called."""

from __future__ import annotations

FILE_PREFIX = "model."
TOKEN_TABLE = "understanding.text.embed_tokens.weight"
TIED_TOKEN_TABLE = "qwen3_vl_with_expert.und_expert.lm_head.weight"  # saving drops embed_tokens in favour of it

RELEASED_TO_OURS = (
    ("qwen3_vl_with_expert.und_expert.model.language_model.", "understanding.text."),
    ("qwen3_vl_with_expert.und_expert.model.visual.", "understanding.vision."),
    ("qwen3_vl_with_expert.gen_expert.", "generation."),
    ("qwen3_vl_with_expert.act_expert.", "action."),
    ("cosmos._enc_model.quant_conv.", "cosmos.encoder.quant_conv."),
    ("cosmos._dec_model.post_quant_conv.", "cosmos.decoder.post_quant_conv."),
    ("cosmos._enc_model.encoder.", "cosmos.encoder."),
    ("cosmos._dec_model.decoder.", "cosmos.decoder."),
)

# In released files and never read: mergers whose output is not used, and the constants of the Haar filters.
UNUSED = (
    "understanding.vision.deepstack_merger_list.",
    "cosmos.encoder.patcher.",
    "cosmos.decoder.unpatcher.",
)


def ours(saved: str) -> str | None:
    """Return our name of a saved weight, None where it does not begin with `model.`."""
    if not saved.startswith(FILE_PREFIX):
        return None
    name = saved.removeprefix(FILE_PREFIX)
    if name == TIED_TOKEN_TABLE:
        return TOKEN_TABLE
    for theirs, here in RELEASED_TO_OURS:
        if name.startswith(theirs):
            return here + name.removeprefix(theirs)
    return name


def saved(name: str) -> str:
    """Return the name under which the released code saves our weight `name`."""
    if name == TOKEN_TABLE:
        return FILE_PREFIX + TIED_TOKEN_TABLE
    for theirs, here in RELEASED_TO_OURS:
        if name.startswith(here):
            return FILE_PREFIX + theirs + name.removeprefix(here)
    return FILE_PREFIX + name
