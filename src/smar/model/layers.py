"""An encoder's layers, whatever it calls them: what is trained of them, how fast, and adapters on them."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from smar.core.errors import InputError


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """The layers from first to last: the longest list of modules in it; empty where there is none."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=nn.ModuleList())


def depths(encoder: nn.Module) -> dict[nn.Parameter, int]:
    """Depth of every parameter: 0 before the first of n layers, 1 to n in them, n + 1 behind the last."""
    layers = layers_of(encoder)
    inside = {parameter: depth for depth, layer in enumerate(layers, start=1) for parameter in layer.parameters()}
    out, before = {}, True
    for parameter in encoder.parameters():
        before = before and parameter not in inside
        out[parameter] = inside.get(parameter, 0 if before else len(layers) + 1)
    return out


def train_last(encoder: nn.Module, last: int, name: str) -> None:
    """Train the last layers and what is behind them, and nothing before.

    Raises:
        InputError: the encoder has fewer layers.
    """
    layers = len(layers_of(encoder))
    if last > layers:
        raise InputError(f"{name}.unfreeze_last is {last}, and the encoder has {layers} layers.")
    for parameter, depth in depths(encoder).items():
        parameter.requires_grad_(depth > layers - last)


def add_adapters(encoder: Any, rank: int, name: str) -> None:
    """Put low-rank adapters (LoRA) on every linear layer in place; only they are trained.

    Raises:
        InputError: peft is not installed, or the encoder has no linear layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise InputError(f"{name}.lora needs the package peft: install smar[lora].") from None
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise InputError(f"{name}.lora: {error}") from None
    for key, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora_" in key)


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the weights that they are on, and leave the plain layers."""
    if not any("lora_" in key for key, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, LoraLayer):
                module.merge()
                setattr(parent, name, module.get_base_layer())


def checkpoint_activations(encoders: Iterable[Any]) -> None:
    """Keep no activations inside the encoders that know how to compute them again."""
    for encoder in encoders:
        if getattr(encoder, "supports_gradient_checkpointing", False):
            encoder.gradient_checkpointing_enable({"use_reentrant": False})
