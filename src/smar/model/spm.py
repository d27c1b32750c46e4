"""SigLIP's sentencepiece tokenizer as one of the tokenizers library: queries are served without Python's."""

import re
import string
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import SpmConverter

_TEXTS = ("red dress for women", "Kettle 1.7 l, STEEL!", "  a-b  (c)\t50% off", "crème brûlée №5", "x", "☃ 42")


class _Converter(SpmConverter):  # type: ignore[misc]
    def post_processor(self) -> Any:
        end = self.original_tokenizer.eos_token
        return processors.TemplateProcessing(single=["$A", end], special_tokens=[(end, self._end)])

    @property
    def _end(self) -> int:
        return int(self.original_tokenizer.eos_token_id)


def converted(tokenizer: Any) -> Any | None:
    """A tokenizer of the same tokens, or None where it cannot be had: the two are compared on a few texts."""
    if not hasattr(tokenizer, "canonicalize_text"):
        return None
    made: Tokenizer = _Converter(tokenizer).converted()
    steps: list[Any] = [normalizers.Lowercase()] if tokenizer.do_lower_case else []
    steps += [
        normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), ""),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
    ]
    made.normalizer = normalizers.Sequence([*steps, made.normalizer])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        model_input_names=tokenizer.model_input_names,
    )
    same = all(fast(text)["input_ids"] == tokenizer(text)["input_ids"] for text in _TEXTS)
    return fast if same else None
