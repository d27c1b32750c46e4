"""Queries that no shop can answer: what the cut-off learns to tell from the log's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from smar.data.text import normalise

_ELSEWHERE = """
photosynthesis mitochondria thermodynamics plaintiff subpoena amortisation parliament referendum gerrymandering
tectonics paleolithic embryology diphthong conjugation theorem eigenvalue homotopy cytoplasm isotope baptism liturgy
diocese obituary midterm sophomore dissertation mortgage refinancing annuity dividend bankruptcy embassy consulate visa
itinerary layover vaccination appendicitis cholesterol insomnia chemotherapy karaoke crossword astrology horoscope
Bundestagswahl Steuererklärung Mietvertrag Zahnarzttermin Wettervorhersage Rechtsanwalt Grundgesetz Arbeitslosigkeit
Staatsangehörigkeit Bahnverspätung Vorlesungsverzeichnis Krankenkasse Führerscheinprüfung Wahlergebnis Kochrezept
préfecture grève boulangerie élections météo déménagement baccalauréat assurance-maladie retraite hôpital horaires
syndicat législatives sécheresse ordonnance médecin immatriculation
elecciones ayuntamiento matrícula universidad hacienda abogado hipoteca pronóstico empadronamiento jubilación receta
farmacia jurisprudencia ciudadanía
przepis pogoda wybory podatek lekarz ubezpieczenie mieszkanie rozkład pociągów pełnomocnictwo
погода выборы расписание поездов больница гражданство рецепт пенсия университет экзамен
天气预报 高考成绩 火车时刻表 离婚律师 医院挂号 选举结果 論文 年金 天気予報 時刻表 確定申告 選挙結果
الطقس انتخابات جامعة مستشفى مواعيد القطارات
"""
"""Words of other businesses than selling things, in several languages; those that an item holds are left out."""
_ENOUGH = 20


_KINDS = 4
_MIXED = 1


@dataclass(frozen=True, slots=True)
class MadeUp:
    """A made-up query; of one that is `mixed` of other queries' words nobody can be sure that nothing answers it."""

    text: str
    mixed: bool


def nonsense(queries: Sequence[str], unheld: Callable[[str], float], seed: int) -> list[MadeUp]:
    """As many made-up queries as real ones, each about as long.

    By turns they are of words from elsewhere, of a word each from other queries, of words with their letters in another
    order, and of random letters.

    Args:
        queries: of the log.
        unheld: the share of a text's words that no item holds.
        seed: of the choices.
    """
    random = np.random.default_rng(seed)
    alphabet = sorted({letter for query in queries for letter in query if letter.isalpha()}) or ["x"]
    elsewhere = [word for word in normalise(_ELSEWHERE).split() if unheld(word) == 1]
    mixed = [word for query in queries for word in query.split()]
    pools = [elsewhere if len(elsewhere) >= _ENOUGH else [], mixed, [], []]
    made = []
    for at, query in enumerate(queries):
        kind, words = at % _KINDS, query.split()
        text = " ".join(_made(words, kind, pools, alphabet, random))
        made.append(MadeUp(text, kind == _MIXED and len(words) > 1))
    return made


def _made(
    words: Sequence[str],
    kind: int,
    pools: Sequence[Sequence[str]],
    alphabet: Sequence[str],
    random: np.random.Generator,
) -> Iterator[str]:
    for word in words:
        if pools[kind] and (len(words) > 1 or kind != _MIXED):
            yield pools[kind][int(random.integers(len(pools[kind])))]
        elif kind == 2 and len(set(word)) > 3:
            yield "".join(word[at] for at in random.permutation(len(word)).tolist())
        else:
            yield "".join(alphabet[at] for at in random.integers(len(alphabet), size=max(len(word), 3)).tolist())
