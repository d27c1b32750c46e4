"""`SmarProcessor`: words to token ids, packed pictures to pixels; saved and loaded with the model.

Item text is its fields joined by the separator token, in the order of `data.text_fields`. Pictures reach the
processor already fitted to the model's square (`smar.data.images`), so that training never decodes anything.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoImageProcessor, AutoTokenizer, ProcessorMixin, ViTImageProcessorPil

from smar.data.text import normalise
from smar.errors import InputError
from smar.model.configuration import pinned
from smar.model.tokenizer import fit_tokenizer
from smar.sections.model import ModelSettings


class SmarProcessor(ProcessorMixin):  # type: ignore[misc]
    """Tokenizer and image processor of a `SmarModel`."""

    def __init__(self, image_processor: object = None, tokenizer: object = None, **kwargs: object) -> None:
        super().__init__(image_processor, tokenizer)

    def token_ids(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to `max_length`."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)
        return encoded["input_ids"]  # type: ignore[no-any-return]

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
    text = {settings.query.pretrained, settings.text.pretrained} - {None}
    return (text or settings.vocabulary, settings.vision.pretrained)


def build_processor(settings: ModelSettings, image_size: int, texts: Iterable[str]) -> SmarProcessor:
    """Processor for a new model: the pretrained towers' own parts, or fresh ones fitted on `texts`.

    Raises:
        InputError: query and item text start from encoders with different tokenizers, or one cannot be loaded.
    """
    names = {tower.pretrained for tower in (settings.query, settings.text)} - {None}
    if len(names) > 1:
        raise InputError(
            f"model.query.pretrained and model.text.pretrained differ ({', '.join(sorted(map(str, names)))}): the two "
            "towers share one tokenizer. Name the same encoder, or leave one out to train that tower from scratch."
        )
    try:
        tokenizer = _tokenizer(str(names.pop())) if names else fit_tokenizer(texts, settings.vocabulary)
        image_processor = _image_processor(settings.vision.pretrained, image_size)
    except (OSError, ValueError) as error:
        raise InputError(f"the pretrained tower's tokenizer or image processor cannot be loaded: {error}") from None
    return SmarProcessor(image_processor, tokenizer)


def _tokenizer(pretrained: str) -> Any:
    source, revision = pinned(pretrained)
    return AutoTokenizer.from_pretrained(source, revision=revision)


def _image_processor(pretrained: str | None, image_size: int) -> ViTImageProcessorPil:
    """Square pictures with the pretrained encoder's own mean and deviation, by PIL (torchvision is not needed)."""
    size = {"height": image_size, "width": image_size}
    if pretrained is None:
        return ViTImageProcessorPil(size=size)
    source, revision = pinned(pretrained)
    own = AutoImageProcessor.from_pretrained(source, revision=revision, backend="pil")
    return ViTImageProcessorPil(size=size, image_mean=own.image_mean, image_std=own.image_std)
