"""Names of the weights: as the released code saves them, and as this model's modules are called. `layout.py` has the tables."""

from __future__ import annotations

from internvla_a1_ros.model.layout import QWENA1, Layout

FILE_PREFIX = "model."
TOKEN_TABLE = "understanding.text.embed_tokens.weight"


def ours(saved: str, layout: Layout = QWENA1) -> str | None:
    """Return our name of a saved weight, None where the released code saves none under such a name."""
    if not saved.startswith(FILE_PREFIX):
        return None
    name = saved.removeprefix(FILE_PREFIX)
    if name == layout.tied_table:
        return TOKEN_TABLE
    for theirs, here in layout.renames:
        if name.startswith(theirs):
            return here + name.removeprefix(theirs)
    return None if name.startswith(tuple(here for _, here in layout.renames)) else name


def saved(name: str, layout: Layout = QWENA1) -> str:
    """Return the name under which the released code saves our weight `name`."""
    if name == TOKEN_TABLE and layout.tied_table:
        return FILE_PREFIX + layout.tied_table
    for theirs, here in layout.renames:
        if name.startswith(here):
            return FILE_PREFIX + theirs + name.removeprefix(here)
    return FILE_PREFIX + name
