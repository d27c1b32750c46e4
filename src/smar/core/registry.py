"""Words that the configuration allows and what each stands for: our own, and what the modules of `plugins` register."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from smar.core.errors import InputError, one_of

T = TypeVar("T")
V = TypeVar("V")


class Registry(Generic[T]):
    """What may stand for the value of one key of the configuration.

    Our own are named by where they lie, ``module:name``, and imported when they are used: a configuration is read
    without torch.

    >>> shapes = Registry[type]("model.shape", {"ordered": "collections:OrderedDict"})
    >>> @shapes.register("mine")
    ... class Mine: ...
    >>> sorted(shapes), shapes["ordered"].__name__
    (['mine', 'ordered'], 'OrderedDict')
    """

    def __init__(self, key: str, own: Mapping[str, str]) -> None:
        self._key, self._own = key, own
        self._added: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        return iter((*self._own, *self._added))

    def register(self, name: str) -> Callable[[V], V]:
        """Decorator that gives `name` to what it decorates.

        Raises:
            InputError: the name is taken; a definition that is run again, as in a notebook, takes its own place.
        """

        def add(decorated: V) -> V:
            old = self._added.get(name)
            if name in self._own or (old is not None and _place(old) != _place(decorated)):
                raise InputError(f"{self._key} has a {name!r} already: choose another name.")
            self._added[name] = cast(T, decorated)
            return decorated

        return add

    def __getitem__(self, name: str) -> T:
        """What the name stands for; raises InputError, which lists the names, where there is no such."""
        if name in self._added:
            return self._added[name]
        if name not in self._own:
            raise one_of(name, self, self._key, "A module that registers more is named under `plugins`.")
        module, _, attribute = self._own[name].partition(":")
        found: T = getattr(importlib.import_module(module), attribute)
        return found

    def check(self, name: str) -> str:
        """The name, which there must be; nothing is imported. For pydantic."""
        if name not in self._added and name not in self._own:
            self[name]
        return name


def _place(value: object) -> tuple[object, object]:
    return getattr(value, "__module__", None), getattr(value, "__qualname__", value)


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that `plugins` names, which register what they define; raises InputError where one cannot."""
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"plugins: {name} cannot be imported ({error}): install it, or name its folder in PYTHONPATH."
            ) from error


FUSIONS = Registry[Any](
    "model.fusion",
    {
        "cross": "smar.model.fusion.attention:CrossAttentionFusion",
        "reverse": "smar.model.fusion.attention:ReverseFusion",
        "both": "smar.model.fusion.attention:BothFusion",
        "merge": "smar.model.fusion.attention:MergeFusion",
        "gated": "smar.model.fusion.pooled:GatedFusion",
        "concat": "smar.model.fusion.pooled:ConcatFusion",
    },
)
TEXT_ENCODERS = Registry[Any](
    "the kind of a text tower", {"bert": "smar.model.encoders:bert", "bag": "smar.model.encoders:bag"}
)
IMAGE_ENCODERS = Registry[Any](
    "model.vision.kind", {"resnet": "smar.model.encoders:resnet", "vit": "smar.model.encoders:vit"}
)
LOSSES = Registry[Any](
    "train.loss.kind",
    {"softmax": "smar.training.losses.objective:softmax"},
)
