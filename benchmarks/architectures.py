"""The table of docs/model.md: which architectures train and export, and whether they begin as what they were.

    python benchmarks/architectures.py

Small random checkpoints of each, saved with their real classes, as the tests make them (tests/checkpoints.py).
`trains`: a step in bfloat16 moves the encoder; `export`: fused or plain attention, compared with PyTorch to 1e-5;
`differs`: largest difference of Q and S_i with no step from the checkpoint's own features; `check`: seconds to load,
export and compare.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import load
from transformers.utils import logging

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "model")]

import test_architectures as tried  # noqa: E402
import test_pairs as pairs  # noqa: E402

from checkpoints import PAIRS, TEXTS, VISIONS, checkpoint  # noqa: E402
from smar.core.errors import InputError  # noqa: E402
from smar.export.onnx import PROBE, export_query  # noqa: E402


def row(name: str, root: Path) -> str:
    """One line of the table."""
    folder = checkpoint(name, root)
    towers = () if name in PAIRS else ("vision",) if name in VISIONS else ("query", "text")
    started, exported, differs = time.perf_counter(), "", ""
    try:
        encoder = tried.start(folder, *towers)
        if name not in VISIONS:
            export_query(encoder, root / f"query-{name}", PROBE)
            operators = [node.op_type for node in load(root / f"query-{name}" / "model.onnx").graph.node]
            exported = "plain" if "Softmax" in operators else "fused"
        seconds = time.perf_counter() - started
        if name in PAIRS:
            text, image = pairs.own_features(folder, pairs.TEXTS, encoder.config.query_length)
            found = encoder.encode_queries(pairs.TEXTS)[0], encoder.encode_pictures(pairs.PICTURES)
            differs = f"{max(np.abs(a - b).max() for a, b in zip(found, (text, image), strict=True)):.0e}"
        kind, head = type(encoder.model.query_tower.encoder), encoder.config.head("query_tower")
        if name in VISIONS:
            kind, head = type(encoder.model.image_tower.encoder), encoder.config.head("image_tower")
        trains = "yes" if tried.step(encoder) > 0 else "no"
    except InputError as error:
        return f"| {name} | | refused: {error} | | | |"
    return f"| {name} | `{kind.__name__}` | {head.pooling} | {trains} | {exported} | {differs} | {seconds:.1f} |"


def main() -> None:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print("| checkpoint | tower | pooling | trains | export | differs | check, s |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for name in (*PAIRS, *TEXTS, *VISIONS):
            print(row(name, Path(root)), flush=True)


if __name__ == "__main__":
    main()
