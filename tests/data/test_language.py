"""The language of a shop, guessed by its titles and queries."""

import pytest

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.data.language import FEWEST, STEMMED, guess_language
from smar.data.prepare import prepare

WORDS = {
    "german": (
        "rotes Kleid mit Gürtel",
        "schwarze Hose für Damen",
        "Töpfe und Pfannen aus Stahl",
        "warme Jacke im Winter",
    ),
    "french": (
        "robe rouge à ceinture",
        "pantalon noir pour femme",
        "casseroles et poêles en acier",
        "veste chaude d'hiver",
    ),
    "english": (
        "red dress with a belt",
        "black trousers for women",
        "pots and pans of steel",
        "warm jacket for the winter",
    ),
    "spanish": (
        "vestido rojo con cinturón",
        "pantalón negro de mujer",
        "ollas y sartenes de acero",
        "chaqueta para el frío",
    ),
}
CHINESE = ("红色连衣裙夏季新款", "黑色牛仔裤女", "不锈钢锅具套装", "冬季保暖羽绒服")


def texts(some: tuple[str, ...]) -> list[str]:
    return [f"{text} {number}" for number in range(20) for text in some]


@pytest.mark.parametrize("language", WORDS)
def test_a_language_with_a_stemmer_is_named(language: str) -> None:
    assert guess_language(texts(WORDS[language])).stemmer == language


def test_none_is_named_where_there_is_no_stemmer_or_no_certainty() -> None:
    assert guess_language(texts(CHINESE)).stemmer is None
    few = guess_language(texts(WORDS["german"])[: FEWEST - 1])
    assert few.stemmer is None
    assert "too few" in few.reason
    mixed = guess_language([text for some in WORDS.values() for text in texts(some)])
    assert mixed.stemmer is None or "sure" in mixed.reason


def test_every_stemmer_exists() -> None:
    from Stemmer import algorithms

    assert set(STEMMED.values()) <= set(algorithms())


def test_prepare_takes_the_guess_and_says_so(tmp_path) -> None:
    import pyarrow as pa

    titles = texts(WORDS["german"])
    items = pa.table({"item_id": [str(at) for at in range(len(titles))], "title": titles})
    clicks = pa.table({"query": [title.lower() for title in titles], "item_id": items["item_id"]})
    plain = DataSettings(text_fields=("title",), slice_columns=())
    summary = prepare(plain, items, clicks, out=tmp_path / "dataset")
    dataset = Dataset.open(tmp_path / "dataset")
    assert dataset.language == "german"
    assert ("language", summary.language) in summary.rows()
    assert summary.language.startswith("german (de, ")
    load_settings(None, ["train.seed=1"], data=dataset.manifest.settings)
    (tmp_path / "auto.yaml").write_text("data: {language: auto}\n")
    assert load_settings(tmp_path / "auto.yaml", data=dataset.manifest.settings).data.language == "german"
    (tmp_path / "other.yaml").write_text("data: {language: english}\n")
    with pytest.raises(InputError, match=r"language is 'english', in the dataset 'german'"):
        load_settings(tmp_path / "other.yaml", data=dataset.manifest.settings)
    prepare(plain.model_copy(update={"language": None}), items, clicks, out=tmp_path / "none")
    assert Dataset.open(tmp_path / "none").language is None
