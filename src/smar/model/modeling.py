"""`SmarModel`: one query tower for three item towers and the gate (docs/paper.md, "Model").

    query  ->  Q  ----------------------------> embedding [n, k], gate logit [n]
    title  ->  S_t  ---------------+----------> text        [n, k]
    picture -> S_i  --+------------|----------> image       [n, k]
                      +-> fusion S_m ----------> multimodal  [n, k]

S_m sits on the hidden states of S_t and S_i, so one pass gives all three item vectors. A baseline is the same
class with fewer parts: `dpsr` has no pictures, `dpsr-i` no item text, `clip` no fusion but norm(S_t + S_i).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoProcessor, PreTrainedModel
from transformers import initialization as init

from smar.model.configuration import SmarConfig, attention_heads
from smar.model.fusion import FUSIONS
from smar.model.fusion.base import Modality
from smar.model.gate import Gate
from smar.model.hub import WholeFolder
from smar.model.processing import SmarProcessor
from smar.model.ragged import place
from smar.model.towers import ImageTower, TextTower


@dataclass(frozen=True)
class QueryOutput:
    """`embedding` [n, k] of unit length; `gate_logit` [n]; `image_probability` [n] = sigmoid of it."""

    embedding: Tensor
    gate_logit: Tensor

    @property
    def image_probability(self) -> Tensor:
        """Probability [n] that pictures help the query."""
        return self.gate_logit.sigmoid()


@dataclass(frozen=True)
class ItemOutput:
    """`text`, `image`, `multimodal`: unit vectors [n, k]; `has_image`: bool [n], False where it was the null token."""

    text: Tensor
    image: Tensor
    multimodal: Tensor
    has_image: Tensor


class SmarModel(WholeFolder, PreTrainedModel):  # type: ignore[misc]
    """Query tower, item towers, fusion and gate. Inputs are token ids and pixels; see `Encoder` for words and files."""

    config_class = SmarConfig
    base_model_prefix = "smar"
    main_input_name = "query_ids"
    _supports_sdpa = True

    def __init__(self, config: SmarConfig) -> None:
        super().__init__(config)
        self.query_tower = TextTower(config.query_config, config.head("query_tower"))
        if config.kind != "dpsr-i":
            shared = self.query_tower.encoder if config.share_text else None
            self.text_tower = TextTower(config.text_config, config.head("text_tower"), shared)
        if config.kind != "dpsr":
            vision = config.head("image_tower")
            self.image_tower = ImageTower(config.vision_config, vision)
        if config.kind == "smar":
            words, heads = self.text_tower.head, attention_heads(config.text_config, self.text_tower.head.states)
            pooling = "cls" if words.pooling == "cls" else "mean"  # of the fused states
            self.fusion = FUSIONS[config.fusion](words.states, vision.states, heads, config.fusion_layers, pooling)
            self.multimodal_projection = nn.Linear(self.fusion.width, config.dim)
            self.gate = Gate(self.query_tower.head.pooled)
        if config.kind in ("dpsr-i", "clip"):
            self.null_image = nn.Parameter(torch.zeros(config.dim))
        if config.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.post_init()
        # transformers looks for weights that an encoder ties, such as T5's, in direct children only
        self.all_tied_weights_keys = self.get_expanded_tied_weights_keys(all_submodels=True)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if "null_image" in module._parameters:
            init.normal_(module.null_image, std=self.config.initializer_range)
        if "log_temperature" in module._parameters:
            init.constant_(module.log_temperature, math.log(self.config.temperature))

    def temperature(self) -> float | Tensor:
        """Temperature of the softmax; a learned one is brought back inside its bounds, where its gradient lives on."""
        if not self.config.learn_temperature:
            return self.config.temperature  # type: ignore[no-any-return]
        with torch.no_grad():
            self.log_temperature.clamp_(*map(math.log, self.config.temperature_bounds))
        return self.log_temperature.exp()

    def encode_query_ids(self, ids: Tensor, mask: Tensor) -> QueryOutput:
        """Query token ids and mask [n, t] -> `QueryOutput`. Baselines' gates are fixed: 0 for words, 1 for pictures.

        With an item-side gate the query asks for pictures always: the item's vector holds the mixture.
        """
        _, pooled = self.query_tower(ids, mask)
        embedding = self.query_tower.embed(pooled)
        if self.config.kind == "smar" and self.config.category_share is None:
            return QueryOutput(embedding, self.gate(pooled))
        certain = -float("inf") if self.config.kind == "dpsr" else float("inf")
        return QueryOutput(embedding, torch.full_like(embedding[:, 0], certain))

    def encode_item_ids(self, ids: Tensor, mask: Tensor, pixels: Tensor | None, pictures: Tensor) -> ItemOutput:
        """Encode n items that show m pictures together.

        Args:
            ids, mask: item text tokens [n, t].
            pixels: pictures [m, 3, s, s], those of an item one after the other, in the order of items; None if m is 0.
                Patch states of the image encoder [m, p, h] may stand for them.
            pictures: how many of them each item has, int64 [n]; or bool [n], True for one.
        """
        kind, has_image = self.config.kind, pictures > 0
        if kind == "dpsr":
            hidden, pooled = self.text_tower(ids, mask)
            text = self.text_tower.embed(pooled)
            return ItemOutput(text, torch.zeros_like(text), text, torch.zeros_like(has_image))
        shown, image = self._images(pixels, pictures)
        if kind == "dpsr-i":
            return ItemOutput(image, image, image, has_image)
        hidden, pooled = self.text_tower(ids, mask)
        text = self.text_tower.embed(pooled)
        if kind == "clip":
            fused = text + image * has_image[:, None]
        else:
            fused = self.multimodal_projection(self.fusion(Modality(hidden, mask.bool(), pooled), shown)).float()
            if self.config.residual:  # what the towers already know; the projection starts at 0
                fused = fused + text
            if self.config.residual == "sum":
                fused = fused + image * has_image[:, None]
        return ItemOutput(text, image, functional.normalize(fused, dim=-1), has_image)

    def _images(self, pixels: Tensor | None, pictures: Tensor) -> tuple[Modality, Tensor]:
        """States of the items' pictures and image vectors [n, k], the null vector for items without a picture."""
        n, tower = len(pictures), self.image_tower
        if self.config.kind == "smar":
            null = tower.embed(self.fusion.null_image[None])[0]
        else:
            null = functional.normalize(self.null_image, dim=-1)
        image = null.expand(n, -1)
        if pixels is None or not len(pixels):
            blank = image.new_zeros(n, 1, tower.head.states)
            return Modality(blank, torch.zeros_like(pictures, dtype=torch.bool)[:, None], blank[:, 0]), image
        states, pooled = tower(pixels)
        shown = place(states, pooled, pictures)
        where = pictures.nonzero().squeeze(1)
        return shown, image.clone().index_copy(0, where, tower.embed(shown.pooled[where]))

    def forward(self, batch: dict[str, Any]) -> tuple[QueryOutput, ItemOutput]:
        """Encode a training batch (see `smar.training.batches.Collator`)."""
        query = self.encode_query_ids(batch["query_ids"], batch["query_mask"])
        pictures = batch.get("pictures", batch["has_image"])
        item = self.encode_item_ids(batch["item_ids"], batch["item_mask"], batch["pixels"], pictures)
        return query, item


AutoConfig.register("smar", SmarConfig)
AutoModel.register(SmarConfig, SmarModel)
AutoProcessor.register(SmarConfig, SmarProcessor)
