"""The prefix's tokens, with the nano's own tokenizer and with one made of Qwen's kind of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY
from tokenizers.pre_tokenizers import ByteLevel

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.checkpoint import load_architecture
from internvla_a1_ros.policy.tokenizer import PrefixTokenizer, load_tokenizer

NANO = Path(__file__).resolve().parents[2] / "models" / "nano"
ALL = np.ones(3, dtype=np.bool_)


@pytest.fixture(scope="module")
def nano() -> PrefixTokenizer:
    return PrefixTokenizer.load(NANO, load_architecture(NANO))


def test_a_prefix_is_views_then_text(nano: PrefixTokenizer) -> None:
    sizes, ids = nano.sizes, nano.sizes.tokens
    made = nano("Sort the parcels", ALL)
    assert made.input_ids.shape == made.attention_mask.shape == (sizes.prefix_tokens,)
    for view in np.split(made.input_ids[: sizes.views * sizes.view_tokens], sizes.views):
        assert view[0] == ids.vision_start and view[-1] == ids.vision_end and set(view[1:-1]) == {ids.image}
        assert len(view) == sizes.token_grid[0] * sizes.token_grid[1] + 2
    text, valid = (part[sizes.views * sizes.view_tokens :] for part in (made.input_ids, made.attention_mask))
    assert len(text) == sizes.prompt_tokens
    assert nano.tokenizer.decode(text[valid].tolist()) == "Sort the parcels"
    assert set(text[~valid]) == {ids.pad}
    assert valid.tolist() == sorted(valid.tolist(), reverse=True), "padding is on the right"


def test_a_missing_view_keeps_its_tokens_masked(nano: PrefixTokenizer) -> None:
    whole, without = nano("Wait.", ALL), nano("Wait.", np.array([True, False, True]))
    assert np.array_equal(whole.input_ids, without.input_ids)
    changed = np.flatnonzero(whole.attention_mask != without.attention_mask)
    tokens = nano.sizes.view_tokens
    assert changed.tolist() == list(range(tokens, 2 * tokens))


@pytest.mark.parametrize("text", ["", "x" * 5000, "日本語の荷物", "naïve café — ok", "\n\t ", "\x00"])
def test_any_text_fits(nano: PrefixTokenizer, text: str) -> None:
    made = nano(text, ALL)
    assert made.input_ids.shape == (nano.sizes.prefix_tokens,)
    assert made.input_ids.min() >= 0 and made.input_ids.max() < nano.sizes.vocabulary


def test_long_text_is_cut(nano: PrefixTokenizer) -> None:
    text = "Pick the bread from the belt and put it on the sandwich. " * 20
    made = nano(text, ALL)
    start = nano.sizes.views * nano.sizes.view_tokens
    assert made.attention_mask.all()
    assert text.startswith(nano.tokenizer.decode(made.input_ids[start:].tolist()))


def test_a_mask_of_another_length_is_refused(nano: PrefixTokenizer) -> None:
    with pytest.raises(ValueError, match=r"expected \(3,\)"):
        nano("Wait.", np.ones(2, dtype=np.bool_))


def qwen_files(folder: Path) -> Path:
    """Qwen's two files, with its bytes and two merges: 'a'+'b', then ' '+'ab'."""
    tokens = [*sorted(ByteLevel.alphabet()), "ab", "Ġab"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nĠ ab\n")
    return folder


def test_qwens_files_are_read(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(qwen_files(tmp_path))
    assert tokenizer.encode("ab ab", add_special_tokens=False).tokens == ["ab", "Ġab"]
    # Qwen splits digits one by one and keeps a space with the word that follows.
    assert tokenizer.encode("12 ab", add_special_tokens=False).tokens == ["1", "2", "Ġab"]
    assert tokenizer.encode("é", add_special_tokens=False).ids == tokenizer.encode("e\u0301", add_special_tokens=False).ids


def test_faulty_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_tokenizer(tmp_path)


def test_ids_beyond_the_token_table_are_refused(nano: PrefixTokenizer, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="151652, expected less than the token table's 64"):
        PrefixTokenizer(nano.tokenizer, replace(TINY, tokens=replace(TINY.tokens, vision_start=151652)))
    small = PrefixTokenizer(load_tokenizer(qwen_files(tmp_path)), TINY)
    with pytest.raises(ValueError, match="beyond the token table of 64"):
        small("ab", ALL)
