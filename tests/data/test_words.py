"""Words in every script; what Lucene's tests publish for the same rules stands beside our own cases."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.data.text import normalise
from smar.data.words import words

LETTERS = (
    "aZéÉßİıøŁñ09½²Ωάςйёא\u05b8ש'’ـأةى\u064eکک\u093cसा१"
    "ペﾍﾟー々手機红ก\u0e34가각\u1100\u1161™\u00ad\u200b\u200c\u200d\u0301\u0307 "
)
texts = st.text(st.sampled_from(LETTERS)) | st.text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red DRESS, size_38", "red dress size 38"),
        ("", ""),
        ("?! ™ \u0301", ""),
        # numbers: a unit is a word of its own, a model number is one word
        ("256GB 256 gb 500мл 1.5l 2in1 FS4545", "256 gb 256 gb 500 мл 1 5 l 2in1 fs4545"),
        ("1½ 1 1/2 ٣٨ ३८ ３８", "1 1 2 1 1 2 38 38 38"),
        # apostrophes
        ("men's Men’s mens", "men mens men mens mens"),
        ("l'été d’or rock'n'roll", "ete lete or dor rock roll rocknroll"),
        ("6'x4' ג'ינס м’ята", "6 x4 ינס גינס ята мята"),
        # Latin, Greek, Cyrillic: accents fold
        ("Größe GRÖSSE grosse Große", "grosse grosse grosse grosse"),
        ("Smørrebrød Łódź Çiçek ISPARTA ısparta İzmir", "smorrebrod lodz cicek isparta isparta izmir"),
        ("ÆRØ œuvre đàn façade", "aero oeuvre dan facade"),
        ("Ξύλινη ΞΥΛΙΝΗ ΟΔΟΣ οδός", "ξυλινη ξυλινη οδοσ οδοσ"),
        ("ёлка ЕЛКА йогурт", "елка елка йогурт"),  # й is a letter of its own
        # marks that are letters stay
        ("ペット ﾍﾟｯﾄ ベッド", "ペッ ット ペッ ット ベッ ッド"),
        ("महिलाओं के लिए साड़ी सा\u095cी", "महिलाओं के लिए साड़ी साड़ी"),
        ("ผ้าไหม", "ผ้า าไ ไห หม"),
        # Arabic, Persian, Hebrew
        ("كِتَابٌ كتاب حقيبة حقيبه أحمر احمر معطـــف", "كتاب كتاب حقيبه حقيبه احمر احمر معطف"),
        ("کفش‌های كفش هاي", "كفش هاي كفش هاي"),
        ("שָׁלוֹם שלום", "שלום שלום"),
        # no blanks between words
        ("红色连衣裙", "红 色 连 衣 裙 红色 色连 连衣 衣裙"),
        ("紅色連衣裙", "红 色 连 衣 裙 红色 色连 连衣 衣裙"),
        ("iPhone手机壳256GB", "iphone 手 机 壳 手机 机壳 256 gb"),
        ("靴", "靴"),
        ("す", "す"),
        ("赤いドレス", "赤 赤い いド ドレ レス"),
        ("ワンピース", "ワン ンピ ピー ース"),
        ("머그컵 컵", "머 그 컵 머그 그컵 컵"),
        ("မြန်မာ ស្រី", "မြန် န်မာ ស្រី"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(text) == unicodedata.normalize("NFC", expected).split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [  # TestICUFoldingFilter
        ("This is a test", "this is a test"),
        ("Ruß", "russ"),
        ("ΜΆΪΟΣ", "μαιοσ"),
        ("Μάϊος", "μαιοσ"),
        ("re\u0301sume\u0301 résumé", "resume resume"),
        ("ELİF eli\u0307f", "elif elif"),
        ("৭০৬", "706"),
        # TestArabicNormalizationFilter
        ("آجن أحمد إعاذ ٱبن", "اجن احمد اعاذ ابن"),
        ("بنى فاطمة", "بني فاطمه"),
        ("روبرـــت مَبنا علِي بُوات ولدٌ سيبًا", "روبرت مبنا علي بوات ولد سيبا"),
        # TestCJKAnalyzer
        ("あいうえおabcかきくけこ", "あい いう うえ えお abc かき きく くけ けこ"),
        ("ｶﾀｶﾅ ﾋﾟｯﾁ", "カタ タカ カナ ピッ ッチ"),
        ("ＴＥＳＴ １２３４", "test 1234"),
    ],
)
def test_words_as_lucene_has_them(text: str, expected: str) -> None:
    assert " ".join(words(text)) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("german", "rote Kleider ROTES KLEID", "rot kleid rot kleid"),
        ("german", "Gürtel Gurtel", "gurtel gurtel"),
        ("english", "red dresses red dress", "red dress red dress"),
        ("russian", "красные красный кресла кресло", "красн красн кресл кресл"),
        ("french", "chaussures d'été chaussure", "chaussur ete det chaussur"),
        ("german", "手机壳 256GB", "手 机 壳 手机 机壳 256 gb"),
    ],
)
def test_a_language_shortens_words(language: str, text: str, expected: str) -> None:
    assert " ".join(words(text, language)) == expected


@given(texts)
def test_spelling_in_code_points_does_not_matter(text: str) -> None:
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, text)
        assert normalise(other) == normalise(text)
        assert words(other) == words(text)
    assert words(normalise(text)) == words(text)
    assert words(text) == [word for token in text.split() for word in words(token)]


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_full_width_and_half_width_meet(text: str) -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in text)
    assert normalise(wide) == normalise(text)
    assert words(wide) == words(text)
