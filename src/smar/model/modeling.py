"""`SmarModel`: one query tower for three item towers and the gate (paper.md, "Model").

    query  ->  Q  ----------------------------> embedding [n, k], gate logit [n]
    title  ->  S_t  ---------------+----------> text        [n, k]
    picture -> S_i  --+------------|----------> image       [n, k]
                      +-> cross attention S_m -> multimodal  [n, k]

S_m sits on the hidden states of S_t and S_i, so one pass gives all three item vectors. A baseline is the same
class with fewer towers: `dpsr` has no pictures, `dpsr-i` has no item text.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers import initialization as init

from smar.model.configuration import SmarConfig
from smar.model.fusion import CrossAttentionFusion
from smar.model.gate import Gate
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


class SmarModel(PreTrainedModel):  # type: ignore[misc]
    """Query tower, item towers, fusion and gate. Inputs are token ids and pixels; see `Encoder` for words and files."""

    config_class = SmarConfig
    base_model_prefix = "smar"
    main_input_name = "query_ids"
    _supports_sdpa = True

    def __init__(self, config: SmarConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.query_tower = TextTower(config.query_config, config.dim, config.pooling)
        if config.kind != "dpsr-i":
            shared = self.query_tower.encoder if config.share_text else None
            self.text_tower = TextTower(text, config.dim, config.pooling, shared)
        if config.kind != "dpsr":
            self.image_tower = ImageTower(config.vision_config, config.dim, config.pooling)
        if config.kind == "smar":
            image_hidden = self.image_tower.projection.in_features
            self.fusion = CrossAttentionFusion(
                text.hidden_size, image_hidden, text.num_attention_heads, config.fusion_layers
            )
            self.multimodal_projection = nn.Linear(text.hidden_size, config.dim)
            self.gate = Gate(self.query_tower.projection.in_features)
        if config.kind == "dpsr-i":
            self.null_image = nn.Parameter(torch.zeros(config.dim))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if "null_image" in module._parameters:
            init.normal_(module.null_image, std=self.config.initializer_range)

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

    def encode_item_ids(self, ids: Tensor, mask: Tensor, pixels: Tensor | None, has_image: Tensor) -> ItemOutput:
        """Encode n items, m of which show a picture.

        Args:
            ids, mask: item text tokens [n, t].
            pixels: pictures [m, 3, s, s] of the items where `has_image` holds, in their order; None when m is 0.
            has_image: bool [n] with m True values.
        """
        kind = self.config.kind
        if kind == "dpsr":
            hidden, pooled = self.text_tower(ids, mask)
            text = self.text_tower.embed(pooled)
            return ItemOutput(text, torch.zeros_like(text), text, torch.zeros_like(has_image))
        patches, image = self._images(pixels, has_image)
        if kind == "dpsr-i":
            return ItemOutput(image, image, image, has_image)
        hidden, pooled = self.text_tower(ids, mask)
        if self.config.pooling == "cls":  # layers never mix text positions, so the first alone gives the same result
            hidden, mask = hidden[:, :1], mask[:, :1]
        fused = self.fusion(hidden, patches, has_image)
        multimodal = self.multimodal_projection(self.text_tower.pool(fused, mask))
        return ItemOutput(
            self.text_tower.embed(pooled), image, functional.normalize(multimodal.float(), dim=-1), has_image
        )

    def _images(self, pixels: Tensor | None, has_image: Tensor) -> tuple[Tensor, Tensor]:
        """Patch states [n, p, h] and image vectors [n, k], with zeros / the null vector for items without a picture."""
        n, tower = len(has_image), self.image_tower
        if self.config.kind == "smar":
            null = tower.embed(self.fusion.null_image[None])[0]
        else:
            null = functional.normalize(self.null_image, dim=-1)
        image = null.expand(n, -1)
        if pixels is None or not len(pixels):
            return image.new_zeros(n, 1, tower.projection.in_features), image
        states, pooled = tower(pixels)
        where = has_image.nonzero().squeeze(1)
        image = image.clone().index_copy(0, where, tower.embed(pooled))
        if len(where) == n:
            return states, image
        return states.new_zeros(n, *states.shape[1:]).index_copy(0, where, states), image

    def forward(self, batch: dict[str, Any]) -> tuple[QueryOutput, ItemOutput]:
        """Encode a training batch (see `smar.training.batches.Collator`)."""
        query = self.encode_query_ids(batch["query_ids"], batch["query_mask"])
        item = self.encode_item_ids(batch["item_ids"], batch["item_mask"], batch["pixels"], batch["has_image"])
        return query, item


AutoConfig.register("smar", SmarConfig)
AutoModel.register(SmarConfig, SmarModel)
