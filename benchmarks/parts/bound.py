"""What no implementation gets below: every weight of the query tower must be read once a query."""

import time
from pathlib import Path

import numpy as np


def weights_read(model: Path) -> int:
    """Bytes of the graph's weights that a query reads: all but tables of embeddings, of which it reads some rows."""
    import onnx

    graph = onnx.load(model).graph
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    return sum(onnx.numpy_helper.to_array(weight).nbytes for weight in graph.initializer if weight.name not in tables)


def read_bandwidth(size: int, seconds: float = 0.5) -> float:
    """Bytes a second that one core reads from an array of `size` bytes, summing its squares again and again.

    An array that fits into a cache is read from there, as a busy service's weights are. The best of some tries counts.
    """
    array, best, end = np.ones(size // 4, np.float32), 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        for _ in range(10):
            array.dot(array)
        best = max(best, 10 * array.nbytes / (time.perf_counter() - started))
    return best
