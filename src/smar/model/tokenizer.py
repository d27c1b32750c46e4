"""The tokenizer of towers that start from scratch, fitted on the shop's own words.

Byte-pair encoding with bytes as the fall-back: a character without a token of its own is read as the bytes of its UTF-8
form, ``<0xE7>`` and so on, so two texts that differ have different tokens, whatever the script. Rare characters have no
token, which gives the bytes something to learn from.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, pairwise, repeat
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


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in texts in their normal form; words are what the tokenizer never joins."""
    draft, counts = _empty(models.BPE()), Counter[str]()
    for text in texts:
        counts.update(_words(draft, text))
    return counts


def _characters(words: Mapping[str, int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    return counts


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
    counts = _characters(count_words(texts))
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
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def is_fitted(tokenizer: Any) -> bool:
    """Whether a tokenizer was made by `fit_tokenizer`, so that `extended` can go on with it."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    return bool(model["type"] == "BPE" and model["byte_fallback"] and {*SPECIAL, *BYTES} <= model["vocab"].keys())


def extended(tokenizer: PreTrainedTokenizerFast, words: Mapping[str, int], most: int) -> PreTrainedTokenizerFast:
    """A fitted tokenizer that knows words which have become frequent, by at most `most` further tokens.

    Byte-pair encoding goes on where it ended: the new merges come after all others. So every token keeps its id, a text
    is first cut as it was before, and then some neighbours of these pieces become one. A text in which none does has
    the ids that it had.

    Args:
        tokenizer: of `fit_tokenizer`, or of this function.
        words: how often each new word occurs; the rare ones do not count.
        most: tokens added at most, those of frequent new characters included.
    """
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, merges = spec["model"]["vocab"], spec["model"]["merges"]
    words = {word: count for word, count in words.items() if count >= RARE}
    fresh = {c: count for c, count in _characters(words).items() if c not in vocabulary}
    kept = sorted(fresh, key=lambda character: (-fresh[character], character))[: _alphabet(fresh.values(), most // 2)]
    vocabulary.update({character: len(vocabulary) + number for number, character in enumerate(kept)})
    further = _further_merges(Tokenizer.from_str(json.dumps(spec)), words, most - len(kept))
    if not kept and not further:
        return tokenizer
    for merge in further:
        merges.append(merge)
        vocabulary.setdefault("".join(merge), len(vocabulary))
    return _wrapped(Tokenizer.from_str(json.dumps(spec)))


_LETTERS = 0x10000
"""A token's number after this one makes it a letter to the trainer, which has a million of them."""


def _further_merges(tokenizer: Tokenizer, words: Mapping[str, int], most: int) -> list[list[str]]:
    """Pairs of tokens to join, the best first: the library's trainer runs over words whose letters are the tokens."""
    bytes_ = {tokenizer.token_to_id(name) for name in (*BYTES, SPECIAL[1])}
    cut: Counter[str] = Counter()
    encoded = tokenizer.encode_batch(list(words), add_special_tokens=False)
    for encoding, count in zip(encoded, words.values(), strict=True):
        ends = [-1, *(at for at, token in enumerate(encoding.ids) if token in bytes_), len(encoding.ids)]
        for start, end in pairwise(ends):  # what is rare stays bytes
            if end - start > 2:
                cut["".join(chr(_LETTERS + token) for token in encoding.ids[start + 1 : end])] += count
    if not cut or most < 1:
        return []
    draft = Tokenizer(models.BPE())
    size = len(set().union(*cut)) + most
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=RARE, show_progress=False)
    draft.train_from_iterator(chain.from_iterable(repeat(word, count) for word, count in sorted(cut.items())), trainer)

    def spelt(piece: str) -> str:
        return "".join(str(tokenizer.id_to_token(ord(letter) - _LETTERS)) for letter in piece)

    return [[spelt(first), spelt(second)] for first, second in json.loads(draft.to_str())["model"]["merges"]]


def unknown_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids of the tokens that stand for what the vocabulary of a transformers tokenizer lacks: "[UNK]" and bytes."""
    known = tokenizer.get_vocab()
    return tuple(known[name] for name in (tokenizer.unk_token, *BYTES) if name in known)
