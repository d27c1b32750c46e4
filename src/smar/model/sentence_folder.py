"""What a sentence-transformers folder says beside its encoder: pooling, dense layers, prompts, longest text."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn
from transformers.utils.hub import cached_file

from smar.core.errors import InputError
from smar.model.towers import ACTIVATIONS

_POOLING = {"cls": "cls", "mean": "mean", "mean_sqrt_len_tokens": "mean", "lasttoken": "last"}
"""The library's names; a sum over the square root of the length has the direction of the mean."""
_LEGACY = {f"pooling_mode_{name}": name.removesuffix("_token") for name in ("cls_token", "lasttoken")} | {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
_QUERY, _ITEM = ("query",), ("document", "passage", "corpus")


@dataclass(frozen=True)
class Sentences:
    """Pooling ("" if nothing is said), layers as of `Head` with their weights, prompts, longest text in tokens."""

    pooling: str = ""
    layers: tuple[tuple[int, bool, str], ...] = ()
    projection: nn.Module = field(default_factory=nn.Identity)
    prompts: tuple[str, str] = ("", "")
    length: int = 0


def read_sentences(source: str, revision: str | None) -> Sentences:
    """Read ``modules.json`` and what it names; a folder without it says nothing.

    Raises:
        InputError: a module, a pooling or an activation has no counterpart in a tower.
    """

    def path(name: str) -> str | None:
        return cached_file(  # type: ignore[no-any-return]
            source,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )

    def read(name: str) -> Any:
        found = path(name)
        return {} if found is None else json.loads(Path(found).read_text(encoding="utf-8"))

    modules = read("modules.json")
    pooling, dense = "", []
    for module in modules:
        kind, folder = module["type"].rpartition(".")[2], module["path"]
        if kind == "Pooling":
            pooling = _pooling(source, read(f"{folder}/config.json"))
        elif kind == "Dense":
            dense.append(_dense(source, folder, read, path))
        elif kind not in ("Transformer", "Normalize") or (kind == "Transformer" and folder):
            raise InputError(
                f"{source} is a sentence encoder with a module {kind} ({folder or '.'}), which a tower has not: "
                "Transformer, Pooling, Dense and Normalize are known."
            )
    layers = tuple((layer.out_features, layer.bias is not None, activation) for layer, activation in dense)
    lengths = read("sentence_bert_config.json")
    prompts = read("config_sentence_transformers.json").get("prompts") or {}
    return Sentences(pooling, layers, _projection(dense), _prompts(prompts), int(lengths.get("max_seq_length") or 0))


def _pooling(source: str, config: Mapping[str, Any]) -> str:
    mode = config.get("pooling_mode") or [name for key, name in _LEGACY.items() if config.get(key)] or "mean"
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise InputError(
            f"{source} pools by {' and '.join(modes)}, which a tower has not; it has {', '.join(sorted(_POOLING))}."
        )
    return _POOLING[modes[0]]


def _dense(
    source: str, folder: str, read: Callable[[str], Any], path: Callable[[str], str | None]
) -> tuple[nn.Linear, str]:
    """A dense layer with its weights, and the name of its activation ("" for none)."""
    config, weights = read(f"{folder}/config.json"), path(f"{folder}/model.safetensors")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if weights is None or activation not in ACTIVATIONS:
        fault = f"its activation {activation} is unknown" if weights else "its weights are not there as safetensors"
        raise InputError(f"the dense layer {folder} of {source} cannot be used: {fault}.")
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    layer.load_state_dict({name.removeprefix("linear."): value for name, value in load_file(weights).items()})
    return layer, "" if activation == "Identity" else activation


def _projection(dense: list[tuple[nn.Linear, str]]) -> nn.Module:
    """The layers as `smar.model.towers.projection` lays them out."""
    modules = [m for layer, name in dense for m in (layer, *([ACTIVATIONS[name]()] if name else []))]
    return nn.Identity() if not modules else modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _prompts(prompts: Mapping[str, str]) -> tuple[str, str]:
    """What stands before queries and before items."""
    query, item = (next((prompts[n] for n in names if n in prompts), "") for names in (_QUERY, _ITEM))
    return query, item
