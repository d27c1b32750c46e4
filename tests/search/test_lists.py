"""The mapped lists: what they hold, what a visit finds, and which files they refuse."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from smar.core.errors import InputError
from smar.search.local.forming import Nearest, write_lists
from smar.search.local.lists import Lists
from smar.search.local.tuning import exact_for_shares, tuned
from smar.search.local.vectors import Allowed, Effort, Probes, VectorStore
from smar.search.query import QueryVectors
from smar.search.ranked import Queries, Query, exact_best

ITEMS, DIM = 2000, 32


@pytest.fixture(scope="module")
def unordered() -> np.ndarray:
    """Rows [S_m ; S_t] in clusters, with a spectrum that falls."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, DIM + 1) ** -0.5
    text = rng.standard_normal((60, DIM))[rng.integers(0, 60, ITEMS)] * spectrum
    text += 0.5 * rng.standard_normal((ITEMS, DIM)) * spectrum
    both = text + 0.5 * rng.standard_normal((ITEMS, DIM)) * spectrum
    halves = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in (both, text)]
    return np.ascontiguousarray(np.concatenate(halves, axis=1), np.float32)


@pytest.fixture(scope="module")
def folder(unordered: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists")
    order = write_lists(unordered, path)
    assert sorted(order.tolist()) == list(range(ITEMS))
    np.testing.assert_array_equal(np.load(path / "vectors.npy"), unordered[order])
    return path


@pytest.fixture(scope="module")
def vectors(folder: Path) -> np.ndarray:
    return np.load(folder / "vectors.npy")


@pytest.fixture(scope="module")
def lists(folder: Path) -> Lists:
    return Lists(folder, ITEMS, 2 * DIM, "smar index")


@pytest.fixture(scope="module")
def queries(vectors: np.ndarray) -> Queries:
    rng = np.random.default_rng(1)
    rows = rng.choice(ITEMS, 24)
    asked = vectors[rows, DIM:] + vectors[rows, :DIM] + 0.1 * rng.standard_normal((24, DIM))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return Queries(asked.astype(np.float32), np.tile([0, 0.3, 0.8, 1], 6).astype(np.float32))


def test_every_item_lies_in_one_list(lists: Lists, queries: Queries) -> None:
    coarse, fine = lists.aim(queries.wide)
    assert 95 <= lists.count <= 105  # a twentieth of the items
    first = 0
    for number in range(lists.count):
        rows, _ = lists.visit(fine[0], np.array([number]), np.zeros(1, np.float32), ITEMS)
        assert sorted(rows.tolist()) == list(range(first, first + len(rows)))
        first += len(rows)
    assert first == ITEMS
    ranked, scores = lists.nearest(coarse, lists.count)
    for at, asked in enumerate(coarse):
        order, cosines, near = lists.ordered(asked)
        np.testing.assert_allclose(cosines, scores[at], atol=1e-4)
        assert sorted(order.tolist()) == sorted(ranked[at].tolist())
        np.testing.assert_allclose(lists.near(asked, order[:7]), near[:7], atol=1e-6)
        assert (np.diff(scores[at]) <= 0).all()
        np.testing.assert_allclose(near / np.linalg.norm(lists._centres[order], axis=1), cosines, atol=1e-5)
        np.testing.assert_allclose(lists._centres[order] @ asked, near, atol=1e-5)
        assert np.abs(cosines).max() <= np.linalg.norm(asked) + 1e-5


@pytest.mark.parametrize("count", [40, 1520])
def test_nearest_centres_against_all_distances(count: int) -> None:
    rng = np.random.default_rng(7)
    groups = 3 * rng.standard_normal((count // 40, 8))
    centres = np.concatenate([group + rng.standard_normal((40, 8)) for group in groups]).astype(np.float32)[:count]
    vectors = (centres[rng.integers(0, count, 500)] + 0.3 * rng.standard_normal((500, 8))).astype(np.float32)
    distances = np.square(vectors[:, None] - centres).sum(axis=2)
    same = Nearest(centres)(vectors) == distances.argmin(axis=1)
    assert same.all() if count == 40 else same.mean() > 0.95


def test_codes_follow_the_exact_scores(lists: Lists, vectors: np.ndarray, queries: Queries) -> None:
    coarse, fine = lists.aim(queries.wide)
    for at in range(len(queries)):
        order, _, near = lists.ordered(coarse[at])
        rows, rough = lists.visit(fine[at], order, near, ITEMS)
        exact = vectors[rows] @ queries.wide[at]
        assert len(set(rows.tolist())) == ITEMS
        assert np.corrcoef(rough, exact)[0, 1] > 0.97
        best, _ = lists.visit(fine[at], order, near, 300)
        assert np.isin(np.argsort(-(vectors @ queries.wide[at]))[:50], best).mean() >= 0.9


def test_a_selector_is_kept(lists: Lists, queries: Queries) -> None:
    mask = np.random.default_rng(2).random(ITEMS) < 0.1
    coarse, fine = lists.aim(queries.wide[:1])
    order, _, near = lists.ordered(coarse[0])
    rows, _ = lists.visit(fine[0], order, near, ITEMS, Allowed.of(mask).selector)
    assert sorted(rows.tolist()) == np.flatnonzero(mask).tolist()


def test_each_kind_of_query_visits_its_own_number_of_lists(
    lists: Lists, vectors: np.ndarray, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = []
    whole = Lists.visit

    def spy(self: Lists, fine: np.ndarray, lists: np.ndarray, near: np.ndarray, *rest: object) -> object:
        visited.append((len(lists), rest[0]))
        return whole(self, fine, lists, near, *rest)

    monkeypatch.setattr(Lists, "visit", spy)
    text, adaptive, multimodal = (Effort(lists=number, margin=9, candidates=3) for number in (30, 40, 50))
    probes = Probes(text=text, adaptive=adaptive, multimodal=multimodal)
    store = VectorStore(lists, vectors, probes)
    found = store.top(queries.part(slice(4)), 50)
    assert visited == [(30, 150), (40, 150), (40, 150), (50, 150)]
    for at, items in enumerate(found):
        np.testing.assert_allclose(items.score, vectors[items.rows] @ queries.wide[at], atol=1e-6)
        assert (np.diff(items.score) <= 0).all()


def test_lists_far_below_the_fourth_are_left_out() -> None:
    scores = np.array([0.9, 0.7, 0.62, 0.6, 0.55, 0.52, 0.49, 0.4], np.float32)
    reach = [Effort(lists=most, margin=margin, candidates=1).reach(scores) for most, margin in
             ((8, 9.0), (6, 9.0), (8, 0.1), (5, 0.1), (8, 0.0), (2, 0.0))]  # fmt: skip
    assert reach == [8, 6, 6, 5, 4, 2]
    assert Effort(lists=8, margin=0.05, candidates=1).reach(scores[:2]) == 2  # there is no fourth


@pytest.mark.parametrize("target", [0.8, 0.95, 1.0])
def test_a_tuned_search_finds_what_the_tuning_said(
    lists: Lists, vectors: np.ndarray, queries: Queries, target: float
) -> None:
    """The tuning searches once and reads every effort off that; here each query is searched with the effort chosen."""
    sample = QueryVectors(queries.embedding, queries.share)
    probes, reached = tuned(vectors, lists, sample, target)
    store = VectorStore(lists, vectors, probes)
    shares = []
    for share in (np.zeros(24, np.float32), queries.share, np.ones(24, np.float32)):
        asked = Queries(queries.embedding, share)
        best = -np.sort(-asked.wide @ vectors.T, axis=1)[:, 49]
        found = [probes.of(0.5 if share is queries.share else float(share[0])) for _ in asked.share]
        assert all(effort.lists <= lists.count for effort in found)
        kind = VectorStore(lists, vectors, Probes(text=found[0], adaptive=found[0], multimodal=found[0]))
        shares.append(
            np.mean(
                [(items.score >= least - 1e-6).mean() for items, least in zip(kind.top(asked, 50), best, strict=True)]
            )
        )
    assert min(shares) >= target - 0.01
    assert abs(min(shares) - reached) < 0.02
    assert len(store.top(queries, 50)) == len(queries)


@pytest.mark.parametrize(("deep", "least"), [(700, 0.95), (51, 1.0)])
def test_where_nothing_settles(
    lists: Lists, vectors: np.ndarray, queries: Queries, monkeypatch: pytest.MonkeyPatch, deep: int, least: float
) -> None:
    """All lists are visited; with so few candidates that the codes may have lost some, all that match are scanned."""
    for name, value in (("SCAN_FLOATS", 0), ("_STEPS", 0), ("_FILTERED", 0), ("_MIN_CANDIDATES", 1), ("_DEEP", deep)):
        monkeypatch.setattr(f"smar.search.local.vectors.{name}", value)
    scanned = []
    whole = VectorStore._scan
    monkeypatch.setattr(VectorStore, "_scan", lambda self, *rest: scanned.append(rest) or whole(self, *rest))
    effort = Effort(lists=10, margin=9, candidates=1)
    store = VectorStore(lists, vectors, Probes(text=effort, adaptive=effort, multimodal=effort))
    mask = np.random.default_rng(4).random(ITEMS) < 0.9
    shares = []
    for at, items in enumerate(store.top(queries, 50, Allowed.of(mask))):
        scores = np.where(mask, vectors @ queries.wide[at], -np.inf)
        shares.append(np.mean(items.score >= np.sort(scores)[-50] - 1e-6))
        assert mask[items.rows].all()
    assert np.mean(shares) >= least
    assert (len(scanned) == len(queries)) == (deep == 51)


@pytest.mark.parametrize("k", [1, 50, 700])
def test_exact_for_shares_against_a_sort(
    vectors: np.ndarray, queries: Queries, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    monkeypatch.setattr("smar.search.local.tuning._BLOCK", 700)
    asked = queries.embedding
    shares = [np.zeros(24, np.float32), queries.share, np.ones(24, np.float32)]
    for share, found in zip(shares, exact_for_shares(vectors, asked, shares, k), strict=True):
        scores = Queries(asked, share).wide @ vectors.T
        best = -np.sort(-scores, axis=1)[:, :k]
        np.testing.assert_allclose(np.take_along_axis(scores, found, axis=1), best, atol=1e-6)


@pytest.mark.parametrize("k", [1, 10, 50, 400])
def test_exact_best_against_a_sort(vectors: np.ndarray, queries: Queries, k: int) -> None:
    doubled = np.concatenate([vectors, vectors[:500]])  # equal scores come in the order of their rows
    rows = np.random.default_rng(3).permutation(len(doubled))[:2300]
    for at in range(len(queries)):
        query: Query = queries[at]
        found = exact_best(doubled, query, rows, k)
        text, multimodal = (doubled[:, half] @ query.embedding for half in (slice(DIM, None), slice(DIM)))
        score = query.share * multimodal + (1 - query.share) * text
        expected = rows[np.lexsort((rows, -np.round(score[rows], 6)))][:k]
        np.testing.assert_allclose(found.score, score[expected], atol=2e-6)
        np.testing.assert_allclose(found.text_score, text[found.rows], atol=1e-6)
        np.testing.assert_allclose(found.multimodal_score, multimodal[found.rows], atol=1e-6)
        order = list(zip((-found.score).tolist(), found.rows.tolist(), strict=True))
        assert order == sorted(order)


@pytest.mark.parametrize("k", [20, 1500])
def test_what_lies_around_holds_the_best(lists: Lists, vectors: np.ndarray, queries: Queries, k: int) -> None:
    """With rough scores near the exact ones; of deleted items none, and enough of the others."""
    effort = Effort(lists=lists.count, margin=10, candidates=6)
    store = VectorStore(lists, vectors, Probes(text=effort, adaptive=effort, multimodal=effort))
    exact = queries.wide @ vectors.T
    dead = np.zeros(ITEMS, np.bool_)
    dead[np.argsort(-exact[0])[: ITEMS // 3]] = True
    for alive in (None, Allowed.of(~dead)):
        for near, scores in zip(store.around(queries, k, alive=alive), exact, strict=True):
            assert len(np.unique(near.rows)) == len(near) >= min(k, ITEMS if alive is None else alive.count)
            assert np.abs(near.score - scores[near.rows]).mean() < 0.1
            best = np.argsort(-(scores if alive is None else np.where(dead, -9, scores)))[: k // 2]
            assert np.isin(best, near.rows).mean() > 0.9
            assert alive is None or not dead[near.rows].any()


@pytest.mark.parametrize("name", ["lists.bin", "coarse.npz"])
def test_damaged_files_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = (folder / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name):
        Lists(tmp_path, ITEMS, 2 * DIM, "smar index")
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=name):
        Lists(tmp_path, ITEMS, 2 * DIM, "smar index")


def test_lists_of_other_vectors_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"coarse.npz is not of 1,999 vectors of 64 dimensions"):
        Lists(folder, ITEMS - 1, 2 * DIM, "smar index")
    with pytest.raises(InputError, match=r"coarse.npz is not of 2,000 vectors of 128 dimensions"):
        Lists(folder, ITEMS, 4 * DIM, "smar index")


def test_lists_are_read_where_they_lie(folder: Path, lists: Lists) -> None:
    """Two openings map one file; nothing of it is copied."""
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder / "lists.bin") in line]
    assert mapped
    assert all(line.split()[1] == "r--s" for line in mapped)
    assert isinstance(lists._lists, faiss.OnDiskInvertedLists)


def test_matches_are_counted_by_list(lists: Lists, queries: Queries) -> None:
    _, fine = lists.aim(queries.wide[:1])
    for share in (0.0, 0.01, 0.5, 1.0):
        mask = np.random.default_rng(6).random(ITEMS) < share
        allowed = Allowed.of(mask)
        for number, count in enumerate(lists.counts(allowed.bits)):
            rows, _ = lists.visit(fine[0], np.array([number]), np.zeros(1, np.float32), ITEMS, allowed.selector)
            assert len(rows) == count


def test_thousands_of_lists_are_ranked_nearly_as_by_all_their_dimensions(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    write_lists(rng.normal(size=(70_000, 32)).astype(np.float32), tmp_path)
    lists = Lists(tmp_path, 70_000, 32, "smar index")
    assert lists.count > 1000
    coarse, _ = lists.aim(rng.normal(size=(20, 32)).astype(np.float32))
    ranked, _ = lists.nearest(coarse, 40)
    shares = [np.isin(lists.ordered(asked)[0][:40], row).mean() for asked, row in zip(coarse, ranked, strict=True)]
    assert np.mean(shares) > 0.8  # a random cloud is the hardest
