"""The fusion of an index, fitted to the clicks of validation queries and measured on them.

The weight is the one of `WEIGHTS` with the highest recall@50. What it is worth is measured on queries that it was not
fitted on: each half of them with the other half's weight. It is taken where it then beats reciprocal ranks.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.progress import track
from smar.search.embeddings import sample_clicks
from smar.search.local.candidates import Candidates, gather
from smar.search.local.fusion import DEPTH, Fusion, FusionRecall, HybridFit, as_read, ask_all
from smar.search.local.segment import Segment
from smar.search.local.word_index import WordIndex
from smar.search.protocol import Mode, weigh
from smar.search.query import QueryEncoder
from smar.search.ranked import Queries, Rows

WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0)
"""An adaptive score lies in -1..1; a word adds up to 1 to the other, a frequent one some hundredths."""
_QUERIES = 5000  # 1,000 queries erred by 0.003, which is what there may be to gain; 5,000 take some seconds
_AT = 50
_PLAIN = 3  # columns before those of the weights


def fit_hybrid(base: Segment, words: WordIndex, encoder: QueryEncoder, valid: pa.Table | None) -> HybridFit:
    """Choose the fusion of a version; reciprocal ranks where no validation query has a clicked item here.

    Args:
        base: all items, with their `words`.
        words: the same.
        encoder: of the model of the vectors.
        valid: pairs (query, item_id), None when there are none.
    """
    fit = HybridFit(fields=words.fields, language=words.language, mean_length=words.mean_length)
    recall = _recalls(base, encoder, sample_clicks(valid, _QUERIES)) if valid is not None else np.empty((0, 0))
    if not len(recall):
        return fit
    adaptive, by_words, ranks = recall[:, :_PLAIN].T
    best, fitted = choose_weight(recall[:, _PLAIN:])
    weighted = fitted.mean() > ranks.mean()
    gain = (fitted if weighted else ranks) - adaptive
    figures = FusionRecall(
        queries=len(recall),
        adaptive=adaptive.mean(),
        words=by_words.mean(),
        reciprocal_ranks=ranks.mean(),
        weighted=fitted.mean(),
        gain=gain.mean(),
        gain_error=gain.std() / len(gain) ** 0.5,
    )
    fusion, weight = (Fusion.WEIGHTED, WEIGHTS[best]) if weighted else (Fusion.RANKS, 0.0)
    return fit.model_copy(update={"fusion": fusion, "weight": weight, "recall": figures})


def choose_weight(recall: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.float64]]:
    """The best column of recalls [queries, weights], the first of equal ones, and what choosing like this is worth.

    That is the recall [queries] of each query under the column that is best for the half it does not belong to.
    """
    fair = np.empty(len(recall))
    for half in (0, 1):
        other = recall[1 - half :: 2] if len(recall) > 1 else recall
        fair[half::2] = recall[half::2, other.mean(axis=0).argmax()]
    return int(recall.mean(axis=0).argmax()), fair


def _recalls(base: Segment, encoder: QueryEncoder, clicked: dict[str, set[str]]) -> npt.NDArray[np.float64]:
    """recall@50 of each query with a clicked item here: of adaptive, BM25, reciprocal ranks and each of `WEIGHTS`."""
    known = {query: _rows(base, ids) for query, ids in clicked.items()}
    wanted = {query: rows for query, rows in known.items() if len(rows)}
    queries = list(wanted)
    vectors = encoder.encode(queries)
    adaptive = base.top(Queries(vectors.embedding, weigh(vectors, Mode.ADAPTIVE)), _AT, None)
    words = ask_all([base], queries)
    vectors = as_read(vectors, words, encoder)
    asked = Queries(vectors.embedding, weigh(vectors, Mode.HYBRID))
    found = base.top(asked, DEPTH, None)
    recalls = np.empty((len(queries), _PLAIN + len(WEIGHTS)))
    for at, query in enumerate(track(queries, "fit hybrid search")):
        candidates = gather([base], asked[at], words[at], found[at], DEPTH, None)
        rankings = [adaptive[at].rows, *(candidates.found.rows[places] for places in _rankings(candidates))]
        recalls[at] = [np.isin(rows, wanted[query]).sum() / len(wanted[query]) for rows in rankings]
    return recalls


def _rows(base: Segment, ids: set[str]) -> Rows:
    return np.array([row for row in map(base.catalogue.row_of, ids) if row is not None], np.int64)


def _rankings(candidates: Candidates) -> Iterator[npt.NDArray[np.int64]]:
    """Places among the candidates of the best 50 of every column of `_recalls` after the first."""
    yield np.flatnonzero((candidates.words_rank > 0) & (candidates.words_rank <= _AT))
    yield candidates.best(candidates.reciprocal_ranks(), _AT)
    for weight in WEIGHTS:
        yield candidates.best(candidates.weighted(weight), _AT)


def describe_fit(fit: HybridFit | None) -> str:
    """One line for people: the fusion, and recall@50 with and without it."""
    if fit is None or fit.recall is None:
        return "reciprocal ranks; no validation clicks to fit or to measure it with"
    chosen = f"weighted, w = {fit.weight:g}" if fit.fusion is Fusion.WEIGHTED else "reciprocal ranks"
    recall = fit.recall
    return (
        f"{chosen}: recall@{_AT} {recall.gain:+.4f} ± {recall.gain_error:.4f} to adaptive ({recall.queries:,} "
        f"validation queries: adaptive {recall.adaptive:.4f}, BM25 {recall.words:.4f}, "
        f"reciprocal ranks {recall.reciprocal_ranks:.4f}, weighted {recall.weighted:.4f})"
    )
