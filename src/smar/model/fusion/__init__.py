"""How an item's two modalities become one vector: the fusions by the name that `model.fusion` gives them."""

from smar.model.fusion.attention import BothFusion, CrossAttentionFusion, MergeFusion, ReverseFusion
from smar.model.fusion.base import Fusion
from smar.model.fusion.pooled import ConcatFusion, GatedFusion

FUSIONS: dict[str, type[Fusion]] = {
    "cross": CrossAttentionFusion,
    "reverse": ReverseFusion,
    "both": BothFusion,
    "merge": MergeFusion,
    "gated": GatedFusion,
    "concat": ConcatFusion,
}
