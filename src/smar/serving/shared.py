"""Arrays that all processes of one service map."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def shared_array(file: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """The array in `file`, made of zeros by whoever comes first; what one process writes the others see at once."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with file.open("a+b") as handle:
        handle.truncate(size)
        return np.frombuffer(mmap.mmap(handle.fileno(), size), dtype).reshape(shape)
