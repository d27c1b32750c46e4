"""How an item's two modalities become one vector: the fusions by the name that `model.fusion` gives them."""

from collections.abc import Callable
from typing import TypeVar

from smar.core.registry import FUSIONS
from smar.model.fusion.base import Fusion, Modality

F = TypeVar("F", bound=type[Fusion])
__all__ = ["FUSIONS", "Fusion", "Modality", "register_fusion"]


def register_fusion(name: str) -> Callable[[F], F]:
    """Decorator: the class is what ``model.fusion: NAME`` builds; see `Fusion` for an example.

    Raises:
        InputError: the name is taken.
    """
    return FUSIONS.register(name)
