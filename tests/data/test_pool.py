import os
from pathlib import Path

import numpy as np
from shop_tables import picture

from smar.data.images import Decoded, ImageOptions, Unusable, decode
from smar.data.pool import CHUNK, DecoderPool, Picture

OPTIONS = ImageOptions(16, "pad", 32, 10**6, 10**6)


def crashing_decoder(source: bytes | Path, options: ImageOptions) -> Decoded:
    """Stands for a decoder with a memory error: certain bytes end the process."""
    if source == b"killer":
        os._exit(11)
    return decode(source, options)


def pictures(count: int) -> list[Picture]:
    made: list[Picture] = [(n, picture((n, 255 - n, 0), (20, 20), "PNG")) for n in range(count)]
    made[5] = (5, b"<html>")
    made[6] = (6, Unusable("fetch_failed", "HTTP 404"))
    return made


def test_processes_write_the_same_as_one(tmp_path: Path) -> None:
    count = 3 * CHUNK + 5
    arrays, outcomes = [], []
    for workers in (1, 2):
        path = tmp_path / f"{workers}.npy"
        np.save(path, np.zeros((count, 16, 16, 3), np.uint8))
        with DecoderPool(path, OPTIONS, workers) as pool:
            outcomes.append(list(pool.decode(pictures(count))))
        arrays.append(np.load(path))
    assert outcomes[0] == outcomes[1]
    assert [o.status for o in outcomes[0][4:8]] == ["ok", "not_an_image", "fetch_failed", "ok"]
    assert (arrays[0] == arrays[1]).all()
    assert arrays[0][40, 8, 8].tolist() == [40, 215, 0]


def test_a_picture_that_kills_its_process_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "images.npy"
    np.save(path, np.zeros((80, 16, 16, 3), np.uint8))
    made = pictures(80)
    made[50] = (50, b"killer")
    with DecoderPool(path, OPTIONS, 2, crashing_decoder) as pool:
        outcomes = list(pool.decode(iter(made)))
    assert outcomes[50] == Decoded("corrupt", "the decoder process died, or worked for 10 CPU seconds")
    assert [n for n, outcome in enumerate(outcomes) if outcome.status != "ok"] == [5, 6, 50]
    assert np.load(path)[79, 8, 8].tolist() == [79, 176, 0]
