"""A bag of tokens as text encoder: the state of a token is its own vector, whatever stands beside it.

A fresh one is a search for words before its first step: vectors of random directions are nearly orthogonal, so two
texts are as alike as the tokens that they share, and `weigh` makes vectors as long as their tokens are rare. Training
then brings together what means the same, at a tenth of what a step of a transformer costs, which has to learn from
clicks that a word is like itself. Averaged embeddings as towers of product search: Nigam et al., "Semantic Product
Search", KDD 2019; that they begin as weighted words is our choice.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from smar.data.words import idf
from smar.model.tokens import TokenTable


class BagConfig(PreTrainedConfig):  # type: ignore[misc]
    """Size of a `BagModel`."""

    model_type = "smar_bag"
    vocab_size: int = 8256
    hidden_size: int = 256
    hidden_dropout_prob: float = 0.0


class BagModel(PreTrainedModel):  # type: ignore[misc]
    """Token ids [n, t] -> the vector of each, [n, t, h].

    >>> bag = BagModel(BagConfig(vocab_size=10, hidden_size=4))
    >>> bag(torch.tensor([[1, 2, 3]])).last_hidden_state.shape
    torch.Size([1, 3, 4])
    """

    config_class = BagConfig
    base_model_prefix = "bag"

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.embeddings:
            nn.init.normal_(self.embeddings.weight, std=self.config.hidden_size**-0.5)

    def get_input_embeddings(self) -> nn.Module:
        """The table of vectors."""
        return self.embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table."""
        assert isinstance(value, nn.Embedding)
        self.embeddings = value

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """See the class; the mask is for those who pool."""
        return BaseModelOutput(last_hidden_state=self.dropout(self.embeddings(input_ids)))


def is_bag(config: object) -> bool:
    """Whether an encoder of this configuration is a bag."""
    return isinstance(config, BagConfig)


def bags(model: nn.Module) -> Iterator[BagModel]:
    """The bags among a model's parts."""
    return (module for module in model.modules() if isinstance(module, BagModel))


@torch.no_grad()
def weigh(bag: BagModel, texts: TokenTable) -> None:
    """Scale each vector by its token's idf among the items' `texts`, 1 for the rarest.

    A token that no item holds gets 0: its random direction would be noise in queries that nobody typed before.
    """
    size = bag.config.vocab_size
    text = np.repeat(np.arange(len(texts)), np.diff(texts.offsets))
    holding = np.bincount(np.unique(text * size + texts.ids) % size, minlength=size)
    weight = np.where(holding > 0, idf(holding, len(texts)) / idf(0, len(texts)), 0)
    bag.embeddings.weight *= torch.from_numpy(weight)[:, None].to(bag.embeddings.weight)


AutoConfig.register(BagConfig.model_type, BagConfig)
AutoModel.register(BagConfig, BagModel)
