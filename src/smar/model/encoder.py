"""Words and pictures in, vectors out: a saved model with its processor, for everything that comes after training."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from smar.errors import InputError
from smar.files import sha256
from smar.model.modeling import ItemOutput, QueryOutput, SmarModel
from smar.model.processing import SmarProcessor
from smar.model.quiet import quiet
from smar.model.tokens import TokenTable

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ItemVectors:
    """Unit vectors of items as float32 arrays [n, k], and whether a picture was seen, bool [n].

    `served` is what a query that asks for pictures meets: `multimodal`, or with an item-side gate the item's own
    mixture P S_m + (1 - P) S_t, which is shorter than a unit vector.
    """

    text: Floats
    image: Floats
    multimodal: Floats
    has_image: npt.NDArray[np.bool_]
    served: Floats


class Encoder:
    """A model in evaluation mode and its processor.

    `bf16` runs the towers in bfloat16 (about twice as fast on CPUs that know it); vectors are float32 either way.
    """

    def __init__(self, model: SmarModel, processor: SmarProcessor, fingerprint: str = "", bf16: bool = False) -> None:
        self.model, self.processor, self.fingerprint, self.bf16 = model.eval(), processor, fingerprint, bf16
        self.config = model.config

    @classmethod
    def from_pretrained(cls, folder: str | Path, bf16: bool = False) -> "Encoder":
        """Load a folder written by `save_pretrained` (for example ``RUN/stage2``).

        Raises:
            InputError: the folder is missing, incomplete or damaged.
        """
        folder = Path(folder)
        if not (folder / "model.safetensors").is_file():
            raise InputError(f"{folder} holds no trained model (model.safetensors is missing). Run `smar train` first.")
        try:
            with quiet():
                model = SmarModel.from_pretrained(folder, attn_implementation="eager")
                processor = SmarProcessor.from_pretrained(folder)
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
            raise InputError(
                f"the model in {folder} is damaged and cannot be loaded: {error}. Train it again."
            ) from None
        return cls(model, processor, fingerprint(folder), bf16)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    @torch.inference_mode()
    def encode_query(self, texts: Sequence[str]) -> QueryOutput:
        """Queries, however written -> `QueryOutput` with embedding [n, k] and image probability [n]."""
        ids, mask = self._pad(self.processor.query_ids(texts, self.config))
        with self._autocast():
            output: QueryOutput = self.model.encode_query_ids(ids, mask)
        return output

    @torch.inference_mode()
    def encode_item(
        self,
        fields: Sequence[Sequence[str]],
        images: npt.NDArray[np.uint8],
        pictures: npt.NDArray[np.bool_] | npt.NDArray[np.int64],
    ) -> ItemOutput:
        """Encode n items.

        Args:
            fields: one list of n strings a text field, however written, in the order of `config.text_fields`.
            images: fitted pictures uint8 [m, s, s, 3], those of an item one after the other, in the order of items.
            pictures: how many of them each item has, int [n]; or bool [n], True for one.

        Raises:
            InputError: the fields, their lengths, the pictures' shape or their number do not fit the model.
        """
        self._check_fields(fields, len(pictures))
        self._check_pictures(images)
        if (told := int(np.sum(pictures))) != len(images):
            raise InputError(f"the items have {told} pictures by their numbers; {len(images)} pictures were given.")
        ids, mask = self._pad(self.processor.item_ids(fields, self.config))
        shown = self.config.kind != "dpsr" and len(images) > 0
        pixels = self.processor.pixels(images).to(self.model.device) if shown else None
        visible = torch.from_numpy(pictures).to(self.model.device)
        with self._autocast():
            output: ItemOutput = self.model.encode_item_ids(ids, mask, pixels, visible)
        return output

    @torch.inference_mode()
    def encode_pictures(self, images: npt.NDArray[np.uint8]) -> Floats:
        """S_i of fitted pictures uint8 [m, s, s, 3], each alone: unit vectors [m, k].

        Raises:
            InputError: the model reads no pictures, or these have another shape.
        """
        if self.config.kind == "dpsr":
            raise InputError("this model (kind dpsr) reads words only, so it cannot encode a picture.")
        self._check_pictures(images)
        tower = self.model.image_tower
        with self._autocast():
            _, pooled = tower(self.processor.pixels(images).to(self.model.device))
            return tower.embed(pooled).float().cpu().numpy()  # type: ignore[no-any-return]

    def encode_queries(self, texts: Sequence[str], batch_size: int = 512) -> tuple[Floats, Floats]:
        """All queries, batched: embeddings [n, k] and image probabilities [n] as arrays."""
        outputs = [self.encode_query(texts[i : i + batch_size]) for i in range(0, len(texts), batch_size)]
        embedding = torch.cat([output.embedding for output in outputs]).float().cpu().numpy()
        return embedding, torch.cat([output.image_probability for output in outputs]).float().cpu().numpy()

    def encode_items(
        self,
        fields: Sequence[Sequence[str]],
        images: npt.NDArray[np.uint8],
        image_row: npt.NDArray[np.int64],
        batch_size: int = 256,
    ) -> Iterator[ItemVectors]:
        """Yield the vectors of all items, batch by batch, in order.

        Args:
            fields: one list a text field.
            images: packed pictures [rows, s, s, 3]; may be memory-mapped.
            image_row: row of each item's picture, -1 for none, [n]; or the rows of several, [n, N], -1 fills up.
            batch_size: items encoded at once.

        Raises:
            InputError: as `encode_item` does.
        """
        self._check_fields(fields, len(image_row))
        for start in range(0, len(image_row), batch_size):
            rows = image_row[start : start + batch_size]
            part = [field[start : start + batch_size] for field in fields]
            shown = rows >= 0
            out = self.encode_item(part, images[rows[shown]], shown if rows.ndim == 1 else shown.sum(1))
            arrays = [x.float().cpu().numpy() for x in (out.text, out.image, out.multimodal)]
            served = self._mixed(part, arrays[0], arrays[2])
            yield ItemVectors(arrays[0], arrays[1], arrays[2], out.has_image.cpu().numpy(), served)

    def _check_fields(self, fields: Sequence[Sequence[str]], items: int) -> None:
        """Refuse text that is not one list of strings a field, each as long as there are items."""
        names = self.config.text_fields or []
        if isinstance(fields, str) or any(isinstance(field, str) for field in fields):
            raise InputError("the fields are texts; give one list of texts (one an item) for each field.")
        if names and len(fields) != len(names):
            raise InputError(
                f"{len(fields)} text fields were given; the model reads {len(names)}, in order: {', '.join(names)}. "
                "Give one list of texts (one an item) for each, with empty texts where an item has none."
            )
        if lengths := sorted({len(field) for field in fields} - {items}):
            raise InputError(f"a text field has {lengths[0]} texts for {items} items; give one text an item.")

    def _check_pictures(self, images: npt.NDArray[np.uint8]) -> None:
        """Refuse pictures that are not uint8 [m, s, s, 3] with the model's s."""
        if self.config.kind == "dpsr":
            return
        size = self.processor.image_processor.size
        wanted = (size["height"], size["width"], 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise InputError(
                f"the pictures are {images.dtype} {list(images.shape)}; the model reads uint8 "
                f"[m, {', '.join(map(str, wanted))}]: `smar.data.images.decode` with size {wanted[0]} makes them."
            )

    def _mixed(self, fields: Sequence[Sequence[str]], text: Floats, multimodal: Floats) -> Floats:
        shares: dict[str, float] | None = self.config.category_share
        if shares is None:
            return multimodal
        categories = fields[list(self.config.text_fields).index("category")]
        share = np.array([shares.get(name, shares[""]) for name in categories], np.float32)[:, None]
        mixed: Floats = share * multimodal + (1 - share) * text
        return mixed

    @torch.inference_mode()
    def gate_features(self, texts: Sequence[str], batch_size: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries -> embeddings [n, k] and what the gate's last layer sees [n, h], float32 on the CPU."""
        parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        for start in range(0, len(texts), batch_size):
            ids, mask = self._pad(self.processor.query_ids(texts[start : start + batch_size], self.config))
            with self._autocast():
                _, pooled = self.model.query_tower(ids, mask)
                parts.append((self.model.query_tower.embed(pooled).cpu(), self.model.gate.features(pooled).cpu()))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])

    def _pad(self, lists: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = TokenTable.from_lists(lists, self.processor.tokenizer.pad_token_id).rows(np.arange(len(lists)))
        return ids.to(self.model.device), mask.to(self.model.device)


def fingerprint(folder: Path) -> str:
    """Identity of a saved model, 16 hex digits: what its vectors depend on (weights, configuration, tokenizer)."""
    names = ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json")
    parts = [f"{name}:{sha256(folder / name)}" for name in names if (folder / name).is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
