"""The fitted tokenizer: what differs stays different in every script, and nothing is unknown alone."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from smar.core.sections.model import ModelSettings
from smar.model.processing import SmarProcessor, build_processor
from smar.model.tokenizer import BYTES, fit_tokenizer, unknown_ids

TITLES = [
    "red summer dress levi's", "kleid sommerkleid größe 38", "año nuevo, ano",
    "红色连衣裙 adidas 跑鞋", "紅色連衣裙 跑鞋", "ペット用ベッド ワンピース", "らくらく 長袖 シャツ",
    "فُسْتَان أحمر طويل", "می‌خواهم لباس", "लाल पोशाक महिला", "เสื้อสีแดง ผ้าฝ้าย",
    "빨간 드레스", "красное платье", "κόκκινο φόρεμα",
]  # fmt: skip
TWINS = [
    ("ペット", "ベット"), ("ペッド", "ベッド"), ("ハート", "バート"),
    ("año", "ano"), ("größe", "grosse"), ("कि", "की"), ("เสื้อ", "เสือ"),
    ("فُسْتَان", "فستان"), ("й", "и"), ("👗", "👘"), ("❤", "❤\ufe0f"), ("\u0301", "\u0300"),
    ("\U000e0fff", "\U000e0ffe"), ("\x00", "\x01"),
    ("می‌خواهم", "میخواهم"), ("뷁", "뷂"), ("𠮷", "吉"), ("<0x41>", "\x41"), ("[unk]", "unk"),
]  # fmt: skip


FITTED = fit_tokenizer(TITLES * 3, 600)


@pytest.mark.parametrize("twins", TWINS)
def test_what_differs_has_different_tokens(twins):
    first, second = FITTED(list(twins))["input_ids"]
    assert first != second
    assert len(first) > 2
    assert FITTED.unk_token_id not in {*first, *second}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("sommerkleid größe", ["sommerkleid", "größe"]),
        ("लाल पोशाक", ["लाल", "पोशाक"]),
        ("فُسْتَان", ["فُسْتَان"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("สีแดง", ["สี", "แ", "ด", "ง"]),
        ("红色adidas", ["红", "色", "adidas"]),
        ("ベッド", ["ベ", "ッ", "ド"]),
        ("베", ["<0xEB>", "<0xB2>", "<0xA0>"]),
    ],
)
def test_words_are_not_cut_at_marks(text, tokens):
    assert FITTED.tokenize(text) == tokens


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_normal_forms_pass_unchanged_and_their_characters_come_back(text):
    """But for Cherokee, which case folding writes in capitals."""
    normal = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())
    if any("CHEROKEE" in unicodedata.name(sign, "") for sign in normal):
        return
    backend = FITTED.backend_tokenizer
    if not any(unicodedata.category(sign) == "Cn" for sign in normal):  # a newer Unicode may know it
        assert backend.normalizer.normalize_str(normal) == normal
    found = backend.encode(normal, add_special_tokens=False)
    assert bool(found.ids) == bool(normal)
    pieces = [bytes([int(t[3:5], 16)]) if t in BYTES else t.encode() for t in found.tokens]
    assert b"".join(pieces).decode() == backend.normalizer.normalize_str(normal).replace(" ", "")


def test_the_same_texts_in_any_order_and_process_give_the_same_tokenizer():
    code = (
        "import sys; from smar.model.tokenizer import fit_tokenizer;"
        "print(fit_tokenizer(sys.argv[:0:-1] * 3, 300).backend_tokenizer.to_str())"
    )
    other = subprocess.run([sys.executable, "-c", code, *TITLES], check=True, capture_output=True, text=True).stdout
    assert other.strip() == fit_tokenizer(TITLES * 3, 300).backend_tokenizer.to_str()


def test_a_small_vocabulary_keeps_letters_of_the_most_frequent_script():
    titles = [chr(0x4E00 + at) * 3 for at in range(500)] + ["red dress"] * 50
    small = fit_tokenizer(titles, 100)
    assert small.tokenize("red dress") == ["red", "dress"]
    assert small.tokenize("一") == ["<0xE4>", "<0xB8>", "<0x80>"]
    assert len(small) <= 100 + len(BYTES)


def test_rare_characters_are_bytes_so_that_bytes_are_trained():
    rare = fit_tokenizer([*TITLES * 3, "雛", "雛"], 600)
    assert rare.tokenize("雛") == FITTED.tokenize("雛") == ["<0xE9>", "<0x9B>", "<0x9B>"]
    assert fit_tokenizer([*TITLES * 3, "雛", "雛", "雛"], 600).tokenize("雛") == ["雛"]


def test_the_saved_file_alone_reads_as_the_processor_does(tmp_path):
    processor = build_processor(ModelSettings(vocabulary=600), 16, TITLES * 3)
    processor.save_pretrained(tmp_path)
    texts = [*TITLES, *(text for twins in TWINS for text in twins)]
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    alone.enable_truncation(12)
    expected = [found.ids for found in alone.encode_batch(texts)]
    assert processor.token_ids(texts, 12) == SmarProcessor.from_pretrained(tmp_path).token_ids(texts, 12) == expected


def test_bytes_are_unknown():
    processor = build_processor(ModelSettings(vocabulary=600), 16, TITLES * 3)
    tokenizer = processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(unknown_ids(tokenizer)) == ["[UNK]", *BYTES]
