"""The tokenizer of towers that start from scratch, fitted on the shop's own words.

Byte-pair encoding with bytes as the fall-back: a character without a token of its own is read as the bytes of its UTF-8
form, ``<0xE7>`` and so on, so two texts that differ have different tokens, whatever the script. Rare characters have no
token, which gives the bytes something to learn from.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""The tokens of bytes, named as SentencePiece and the models that use it do."""
RARE = 3
"""A character or piece that occurs less often in the texts gets no token."""
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*"
"""A letter, with its marks, of a script that leaves no blanks between words."""


def _empty(model: models.BPE) -> Tokenizer:
    """A tokenizer that splits at blanks, at punctuation and around letters of scripts without blanks.

    Its normaliser does nothing to texts in their normal form (`smar.data.text`) but give Cherokee its other case; it is
    for those who use the file without smar.
    """
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    unspaced = pre_tokenizers.Split(Regex(UNSPACED), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), unspaced])
    return tokenizer


def _words(tokenizer: Tokenizer, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def _alphabet(counts: Iterable[int], most: int) -> int:
    """How many characters get a token: the frequent ones, `most` of them at most.

    Of characters that occur equally often, all or none: the library would choose by chance.
    """
    ordered = sorted((count for count in counts if count >= RARE), reverse=True)
    return len(ordered) if len(ordered) <= most else sum(count > ordered[most] for count in ordered)


def fit_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Fit a tokenizer of at most `vocabulary` tokens, and the 256 bytes, on texts in their normal form.

    The same texts give the same vocabulary every time, in any order. Pieces carry no sign of where in a word they
    stand, so parts of compounds are the tokens of the words that they are made of.
    """
    draft, texts = _empty(models.BPE()), list(texts)
    counts: Counter[str] = Counter()
    for text in texts:
        for word in _words(draft, text):
            counts.update(word)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary + len(BYTES),
        special_tokens=[*SPECIAL, *BYTES],
        limit_alphabet=_alphabet(counts.values(), vocabulary // 2),
        min_frequency=RARE,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    fitted = json.loads(draft.to_str())["model"]
    # A new tokenizer, for which bytes are tokens like any other: "<0x41>" in a text is none.
    merges = [tuple(pair) for pair in fitted["merges"]]
    tokenizer = _empty(models.BPE(fitted["vocab"], merges, unk_token="[UNK]", byte_fallback=True))
    tokenizer.add_special_tokens(SPECIAL)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unknown_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens that stand for what the vocabulary of a transformers tokenizer lacks: "[UNK]" and bytes."""
    known = tokenizer.get_vocab()
    return tuple(known[name] for name in (tokenizer.unk_token, *BYTES) if name in known)
