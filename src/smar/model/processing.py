"""`SmarProcessor`: words to token ids, packed pictures to pixels; saved and loaded with the model.

Item text is its fields joined by the separator token, in the order of `data.text_fields`. Pictures reach the
processor already fitted to the model's square (`smar.data.images`), so that training never decodes anything.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from transformers import ProcessorMixin, ViTImageProcessorPil

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.data.text import normalise
from smar.model.checkpoint import load_tokenizer, refuse_single
from smar.model.configuration import SmarConfig
from smar.model.framing import load_image_processor
from smar.model.tokenizer import fit_tokenizer, unknown_ids


class SmarProcessor(ProcessorMixin):  # type: ignore[misc]
    """Tokenizer and image processor of a `SmarModel`."""

    def __init__(self, image_processor: object = None, tokenizer: object = None, **kwargs: object) -> None:
        super().__init__(image_processor, tokenizer)

    def token_ids(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Token ids of each text, at least one, special tokens included, cut to `max_length`."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
        unknown = next(iter(unknown_ids(self.tokenizer)), self.tokenizer.pad_token_id or 0)  # as `QueryEncoder` has it
        return [ids or [unknown] for ids in encoded["input_ids"]]

    def query_ids(self, texts: Sequence[str], config: SmarConfig) -> list[list[int]]:
        """Token ids of queries, however written, as the model wants them: normal form, its prefix, its length."""
        return self.token_ids([config.query_prefix + normalise(text) for text in texts], config.query_length)

    def item_ids(self, fields: Sequence[Sequence[str]], config: SmarConfig) -> list[list[int]]:
        """The same of items; `fields` is one list a field."""
        return self.token_ids([config.item_prefix + text for text in self.item_texts(fields)], config.text_length)

    def item_texts(self, fields: Sequence[Sequence[str]]) -> list[str]:
        """Join the fields of each item, in their normal form, with the separator; `fields` is one list a field.

        Empty fields are left out. A title that spells the separator does not become one: the normal form lower-cases.
        """
        separator = f" {self.tokenizer.sep_token or ','} "
        return [separator.join(filter(None, map(normalise, values))) for values in zip(*fields, strict=True)]

    def pixels(self, images: npt.NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """Packed pictures uint8 [m, s, s, 3] -> normalised float32 [m, 3, s, s]."""
        raw = torch.as_tensor(images)
        mean = torch.tensor(self.image_processor.image_mean, device=raw.device) * 255
        std = torch.tensor(self.image_processor.image_std, device=raw.device) * 255
        scaled = (raw.float() - mean) / std
        return scaled.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def processor_parts(settings: ModelSettings) -> tuple[object, ...]:
    """What a new processor is made of beside the dataset: models with equal parts share one."""
    query, words, vision = (tower.pretrained for tower in settings.towers.values())
    return ({query, words} - {None} or settings.vocabulary, vision)


def build_processor(settings: ModelSettings, image_size: int, texts: Iterable[str]) -> SmarProcessor:
    """Processor for a new model: the pretrained towers' own parts, or fresh ones fitted on `texts`.

    Raises:
        InputError: query and item text start from encoders with different tokenizers, or one cannot be loaded.
    """
    refuse_single(settings)
    towers = settings.towers
    names = {towers[tower].pretrained for tower in ("query_tower", "text_tower")} - {None}
    if len(names) > 1:
        raise InputError(
            f"model.query.pretrained and model.text.pretrained differ ({', '.join(sorted(map(str, names)))}): the two "
            "towers share one tokenizer. Name the same encoder, or leave one out to train that tower from scratch."
        )
    vision = towers["image_tower"].pretrained if settings.kind != "dpsr" else None
    tokenizer = load_tokenizer(str(names.pop())) if names else fit_tokenizer(texts, settings.vocabulary)
    return SmarProcessor(_image_processor(vision, image_size), tokenizer)


def _image_processor(pretrained: str | None, image_size: int) -> ViTImageProcessorPil:
    """Square pictures with the pretrained encoder's own mean and deviation, by PIL (torchvision is not needed)."""
    size = {"height": image_size, "width": image_size}
    if pretrained is None:
        return ViTImageProcessorPil(size=size)
    own = load_image_processor(pretrained)
    mean, std = _measured(own, pretrained)
    return ViTImageProcessorPil(size=size, image_mean=mean, image_std=std, resample=getattr(own, "resample", None))


def _measured(processor: Any, name: str) -> tuple[list[float], list[float]]:
    """Mean and deviation that give the numbers of an image processor, whatever it calls them and scales by.

    Raises:
        InputError: it does more than shift and scale each colour.
    """

    def seen(colour: tuple[int, int, int]) -> npt.NDArray[np.float64]:
        image = Image.new("RGB", (64, 64), colour)
        values = np.asarray(processor(images=[image], return_tensors="np")["pixel_values"][0], np.float64)
        return values.reshape(3, -1)[:, 0] if values.ndim == 3 else values[0].reshape(-1, 3)[0]

    black, white = seen((0, 0, 0)), seen((255, 255, 255))
    std = 1 / (white - black)
    mean = -black * std
    if not np.allclose(seen((51, 102, 204)), (np.array([0.2, 0.4, 0.8]) - mean) / std, atol=1e-4):
        raise InputError(
            f"the image processor of {name} does more than shift and scale colours, which is not supported."
        )
    said = [list(getattr(processor, name, None) or ()) for name in ("image_mean", "image_std")]
    if all(len(a) == 3 and np.allclose(a, b, atol=1e-5) for a, b in zip(said, (mean, std), strict=True)):
        return said[0], said[1]  # without the rounding of the measurement
    return mean.tolist(), std.tolist()
