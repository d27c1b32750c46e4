"""Suggestions for the beginnings of queries, right and with a typo: `python benchmarks/suggest.py [TEXTS]`.

Texts are made of syllables, one to four words, with Zipf counts; typed is a beginning of one of them, drawn by its
count. Times are one thread's wall and CPU time; what a service adds is in benchmarks/serving.py.
"""

import sys
import time

import numpy as np

from smar.search.local import Prefixes

TEXTS = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
TYPED, K = 5_000, 8
_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo za bra cle dri flo gru sta"


def texts(random: np.random.Generator) -> list[str]:
    """Different texts."""
    syllables = _SYLLABLES.split()
    words = ["".join(random.choice(syllables, random.integers(1, 4))) for _ in range(8_000)]
    share = 1 / np.arange(1, len(words) + 1)
    drawn = random.choice(words, (2 * TEXTS, 4), p=share / share.sum())
    lengths = random.integers(2, 5, len(drawn))
    found = dict.fromkeys(" ".join(row[:n]) for row, n in zip(drawn, lengths, strict=True))
    return list(found)[:TEXTS]


def mistyped(text: str, random: np.random.Generator) -> str:
    """The text with one letter left out, put in, taken for another or swapped."""
    at, letter = int(random.integers(1, len(text))), random.choice(list("etaoinsr"))
    return [
        text[:at] + text[at + 1 :],
        text[:at] + letter + text[at:],
        text[:at] + letter + text[at + 1 :],
        text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :] if at > 1 else text[:at] + letter + text[at:],
    ][random.integers(4)]


def main() -> None:
    """Print build time, then p50 and p99 in milliseconds by what is typed."""
    random = np.random.default_rng(0)
    own = texts(random)
    counts = np.sort(random.zipf(1.3, len(own)).clip(5, 10**6))[::-1].tolist()
    started = time.process_time()
    found = Prefixes(own, counts)
    print(f"{len(found):,} texts, built in {time.process_time() - started:.2f} CPU s; {K} wanted; ms")
    drawn = random.choice(len(own), TYPED, p=np.array(counts) / sum(counts))
    begun = [own[at][: random.integers(1, len(own[at]) + 1)] for at in drawn.tolist()]
    typed = {
        "nothing": [""] * 500,
        "a letter": [text[:1] for text in begun],
        "a beginning": begun,
        "with a typo": [mistyped(text, random) for text in begun if len(text) > 3],
        "found nowhere": ["q" + text for text in begun],
        "one letter right": [text[:1] + text[::-1] for text in begun],
    }
    for name, some in typed.items():
        wall, cpu = np.array([_timed(found, text) for text in some]).T * 1000
        shown = "  ".join(f"{np.percentile(each, p):7.3f}" for each in (wall, cpu) for p in (50, 99))
        print(f"{name:18} wall p50, p99, CPU p50, p99: {shown}")


def _timed(found: Prefixes, text: str) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.thread_time()
    found.find(text, K)
    return time.perf_counter() - wall, time.thread_time() - cpu


if __name__ == "__main__":
    main()
