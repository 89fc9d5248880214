"""The prefix's token ids: the tokens of each view, then the raw instruction, cut or padded to a fixed length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from internvla_a1_ros.core.errors import CheckpointError
from internvla_a1_ros.model.sizes import Architecture

# How Qwen splits text before its byte pairs (its published tokenizer.json).
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTokens:
    """Token ids [L] and which of them are valid [L]; padding and the tokens of missing views are not."""

    input_ids: npt.NDArray[np.int64]
    attention_mask: npt.NDArray[np.bool_]


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`, or Qwen's `vocab.json` and `merges.txt`, of a checkpoint folder. Raises CheckpointError."""
    whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
    try:
        if whole.is_file():
            return Tokenizer.from_file(str(whole))
        if vocabulary.is_file() and merges.is_file():
            return qwen_tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"checkpoint '{folder}': its tokenizer cannot be read: {error}") from None
    raise CheckpointError(f"checkpoint '{folder}': no tokenizer.json, nor vocab.json and merges.txt")


def qwen_tokenizer(bytepairs: BPE) -> Tokenizer:
    """Byte pairs between Qwen's normalisation and splitting."""
    tokenizer = Tokenizer(bytepairs)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def special(text: str) -> AddedToken:
    """A token that is never split and never made of typed text by the byte pairs."""
    return AddedToken(text, special=True, normalized=False)


class PrefixTokenizer:
    """Makes the prefix of a checkpoint: static length, whatever the instruction and the views present."""

    def __init__(self, tokenizer: Tokenizer, sizes: Architecture) -> None:
        """Raises CheckpointError where the checkpoint's token ids lie outside its token table."""
        self.tokenizer, self.sizes = tokenizer, sizes
        used = ("vision_start", "image", "vision_end", "pad") if sizes.layout.view_ends else ("image", "pad")
        for name in used:
            number = getattr(sizes.tokens, name)
            if not 0 <= number < sizes.vocabulary:
                raise CheckpointError(
                    f"token id of {name}: got {number}, expected less than the token table's {sizes.vocabulary}; "
                    "architecture.json must say token_ids"
                )

    @classmethod
    def load(cls, folder: Path, sizes: Architecture) -> PrefixTokenizer:
        return cls(load_tokenizer(folder), sizes)

    def __call__(self, instruction: str, view_mask: npt.NDArray[np.bool_]) -> PrefixTokens:
        """Tokens of `instruction` behind the views, those absent in `view_mask` [V] masked.

        Raises ValueError where the mask has another length than the model's views, or a token is beyond the token table.
        """
        sizes, ids = self.sizes, self.sizes.tokens
        if view_mask.shape != (sizes.views,):
            raise ValueError(f"view mask: got shape {view_mask.shape}, expected ({sizes.views},)")
        text = self.tokenizer.encode(instruction, add_special_tokens=False).ids[: sizes.prompt_tokens]
        if text and max(text) >= sizes.vocabulary:
            raise ValueError(f"instruction: token {max(text)} lies beyond the token table of {sizes.vocabulary} rows")
        ends = sizes.layout.view_ends
        view = [ids.vision_start] * ends + [ids.image] * (sizes.view_tokens - 2 * ends) + [ids.vision_end] * ends
        padding = sizes.prompt_tokens - len(text)
        input_ids = np.array(view * sizes.views + text + [ids.pad] * padding, dtype=np.int64)
        valid_text = np.arange(sizes.prompt_tokens) < len(text)
        return PrefixTokens(input_ids, np.concatenate((np.repeat(view_mask, sizes.view_tokens), valid_text)))
