"""The model: towers, fusion, gate, and everything saved with them.

Reading order: `modeling` is the whole; `towers`, `fusion` and `gate` are its parts, `configuration` says how they are
composed, `encoders` and `fusion` what else may be registered; `processing` reads words and pictures; `encoder` is a
trained model at work, `run` the folder that it lies in.
"""

from smar.model.encoders import register_encoder
from smar.model.fusion import Fusion, Modality, register_fusion

__all__ = ["Fusion", "Modality", "register_encoder", "register_fusion"]
