"""Hidden R@k by hand, and the column that says what is hidden."""

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.evaluation.hidden import hidden_metrics, hidden_pairs
from smar.evaluation.metrics import Relevance, read_judgements


def test_hidden_and_cold_pairs() -> None:
    relevance = Relevance.from_pairs([0, 0, 1, 1], [0, 2, 1, 2], [1] * 4, queries=2)
    clicked = np.array([True, False, False])
    assert hidden_pairs(np.array([True, True, False, True]), clicked, relevance).tolist() == [1, 3]
    assert hidden_pairs(None, clicked, relevance).tolist() == []


def test_recall_is_the_mean_over_a_querys_hidden_items() -> None:
    relevance = Relevance.from_pairs([0, 0, 1, 3, 3, 3], [0, 2, 1, 0, 1, 2], [1] * 6, queries=4)
    got = hidden_metrics(np.array([3, 4, 1, 5]), np.array([1, 3, 4, 5]), relevance, k=3)
    assert got.recall.tolist() == [1.0, pytest.approx(1 / 3)]  # queries 0 and 3: places 3 | 4, 1, 5


def qrels(**columns: list[object]) -> pa.Table:
    return pa.table(
        {"query": ["b", "a", "b", "b"], "item_id": ["x", "y", "gone", "y"], "relevance": [1, 2, 1, 1], **columns}
    )


def test_flags_follow_their_judgements() -> None:
    ids = pa.chunked_array([["y"], ["x"]])
    got = read_judgements(qrels(hidden=[True, False, True, False]), ids)
    flagged = got.relevance.items[got.hidden], got.relevance.query[got.hidden]
    assert [column.tolist() for column in flagged] == [[1], [0]]  # query "b", item "x"
    assert read_judgements(qrels(hidden=[1, 0, 0, 1]), ids).hidden.sum() == 2
    assert read_judgements(qrels(), ids).hidden is None


@pytest.mark.parametrize(
    ("flags", "message"), [(["yes it is"] * 4, "true or false"), ([True, None, True, True], "1 nulls")]
)
def test_wrong_flags_are_refused(flags: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_judgements(qrels(hidden=flags), ["x", "y"])
