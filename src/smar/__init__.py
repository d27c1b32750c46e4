"""smar: product search that reads words and looks at pictures (SMAR, SIGIR 2023)."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smar.api.index import Index
    from smar.api.loaded import Encoder, load
    from smar.api.stages import Report, Run, embed, evaluate, prepare, train
    from smar.core.errors import InputError
    from smar.core.settings import Settings
    from smar.data.dataset import Dataset
    from smar.search.protocol import Hit
    from smar.serving.engine import SearchResult

__version__ = "0.1.0"
__all__ = [
    "Dataset",
    "Encoder",
    "Hit",
    "Index",
    "InputError",
    "Report",
    "Run",
    "SearchResult",
    "Settings",
    "embed",
    "evaluate",
    "load",
    "prepare",
    "train",
]
_HOME = {
    "smar.api.loaded": ("Encoder", "load"),
    "smar.api.index": ("Index",),
    "smar.api.stages": ("Report", "Run", "embed", "evaluate", "prepare", "train"),
    "smar.core.errors": ("InputError",),
    "smar.core.settings": ("Settings",),
    "smar.data.dataset": ("Dataset",),
    "smar.search.protocol": ("Hit",),
    "smar.serving.engine": ("SearchResult",),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

# onnxruntime would send figures of its sessions to its maker, and keep a number of this machine in the home folder
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# torch keeps a compiled kernel for each shape, 1,024 of them, and every batch has shapes of its own (docs/training.md)
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")


def __getattr__(name: str) -> Any:
    """A public name, whose module is loaded now: searching loads no torch (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'smar' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
