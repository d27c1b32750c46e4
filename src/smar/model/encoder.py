"""Words and pictures in, vectors out: a saved model with its processor, for everything that comes after training."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from smar.core.errors import InputError
from smar.core.files import sha256
from smar.data.voices import Voices
from smar.model.configuration import SmarConfig
from smar.model.device import CPU, knows_bf16
from smar.model.modeling import ItemOutput, QueryOutput, SmarModel
from smar.model.picture_batches import BATCH, read_ahead, shown, with_growth
from smar.model.processing import SmarProcessor
from smar.model.quiet import quiet
from smar.model.tokens import Ints, TokenTable

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

    `bf16` runs the towers in bfloat16 where the device knows it (about twice as fast there); vectors are float32 either
    way. It works where the model is: on the processor, unless it is loaded onto, or moved to, a GPU.
    """

    def __init__(
        self,
        model: SmarModel,
        processor: SmarProcessor,
        fingerprint: str = "",
        bf16: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.model, self.processor, self.fingerprint, self.bf16 = model.eval(), processor, fingerprint, bf16
        self.config, self.folder = model.config, folder
        self._most: int | None = None  # items at once, after the memory of a GPU was too small for more
        self.voices: Voices | None = None
        """Shares of words and vectors, where they were fitted."""

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, bf16: bool = False, device: torch.device = CPU, config: SmarConfig | None = None
    ) -> "Encoder":
        """Load a folder written by `save_pretrained` (for example ``RUN/stage2``) onto a device.

        `config` stands in for the configuration in the folder.

        Raises:
            InputError: the folder is missing, incomplete or damaged.
        """
        folder = Path(folder)
        if not (folder / "model.safetensors").is_file():
            raise InputError(f"{folder} holds no trained model (model.safetensors is missing). Run `smar train` first.")
        try:
            with quiet():
                model = SmarModel.from_pretrained(folder, config=config, attn_implementation="eager")
                processor = SmarProcessor.from_pretrained(folder)
        except InputError:  # a fusion that nobody registered
            raise
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError) as error:
            raise InputError(
                f"the model in {folder} is damaged and cannot be loaded: {error}. Train it again."
            ) from None
        encoder = cls(model.to(device), processor, fingerprint(folder), bf16, folder)
        encoder.voices = Voices.read(folder)
        return encoder

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.model.device  # type: ignore[no-any-return]

    @property
    def precision(self) -> str:
        """What the towers calculate in here: "bfloat16" or "float32"."""
        return "bfloat16" if self.bf16 and knows_bf16(self.device) else "float32"

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")

    def _pixels(self, images: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Normalised on the device, which a quarter of the bytes then travel to."""
        return self.processor.pixels(torch.as_tensor(images).to(self.device, non_blocking=True))

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
        pixels = self._pixels(images) if self.config.kind != "dpsr" and len(images) else None
        visible = torch.from_numpy(pictures).to(self.device)
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
            _, pooled = tower(self._pixels(images))
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
        batch_size: int | None = None,
        readers: int | None = None,
    ) -> Iterator[ItemVectors]:
        """Yield the vectors of all items, batch by batch, in order.

        A batch that a GPU has no memory for is encoded in halves.

        Args:
            fields: one list a text field.
            images: packed pictures [rows, s, s, 3]; may be memory-mapped.
            image_row: row of each item's picture, -1 for none, [n]; or the rows of several, [n, N], -1 fills up.
            batch_size: items encoded at once. When not given 256, and on a GPU as many as fill it.
            readers: processes that read the pictures beside this one. When not given none, and a few beside a GPU.

        Raises:
            InputError: as `encode_item` does, or a GPU has no memory for one item.
        """
        self._check_fields(fields, len(image_row))
        total, size, start = len(image_row), batch_size or BATCH, 0
        encode = partial(self._vectors, fields, image_row)
        if batch_size is None and self.device.type == "cuda" and total > size:
            first = slice(0, size)
            vectors, size = with_growth(lambda: encode(first, shown(images, image_row[first])), size, self.device)
            yield vectors
            start = first.stop
        parts = [slice(at, min(at + size, total)) for at in range(start, total, size)]
        for part, pictures in read_ahead(images, image_row, parts, self.device, readers):
            yield encode(part, pictures)

    def _vectors(
        self,
        fields: Sequence[Sequence[str]],
        image_row: npt.NDArray[np.int64],
        part: slice,
        images: npt.NDArray[np.uint8],
    ) -> ItemVectors:
        """Vectors of a part of the items, whose pictures are `images`; in halves where the memory ends."""
        items, count = part.stop - part.start, (image_row[part] >= 0).reshape(part.stop - part.start, -1).sum(1)
        if self._most is None or items <= self._most:
            try:
                return self._as_arrays([field[part] for field in fields], images, image_row[part], count)
            except torch.OutOfMemoryError as error:
                if items == 1:
                    raise InputError(f"the GPU has no memory for one item: {error}. Use --device cpu.") from error
                self._most = items // 2
            torch.cuda.empty_cache()  # here, where the error no longer holds what was computed
        middle = part.start + items // 2
        cut = int(count[: items // 2].sum())
        halves = [(slice(part.start, middle), images[:cut]), (slice(middle, part.stop), images[cut:])]
        both = [self._vectors(fields, image_row, half, own) for half, own in halves]
        return ItemVectors(
            *(np.concatenate([getattr(v, field.name) for v in both]) for field in dataclass_fields(both[0]))
        )

    def _as_arrays(
        self, part: list[Sequence[str]], images: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64], count: Ints
    ) -> ItemVectors:
        out = self.encode_item(part, images, rows >= 0 if rows.ndim == 1 else count)
        text, image, multimodal = (x.float().cpu().numpy() for x in (out.text, out.image, out.multimodal))
        served = self._mixed(part, text, multimodal)
        return ItemVectors(text, image, multimodal, out.has_image.cpu().numpy(), served)

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
        if self.config.category_share is None:
            return multimodal
        share = self.share(fields)[:, None]
        mixed: Floats = share * multimodal + (1 - share) * text
        return mixed

    def share(self, fields: Sequence[Sequence[str]]) -> Floats:
        """P(category) [n] of the item-side gate, for items of these text fields."""
        shares: dict[str, float] = self.config.category_share
        categories = fields[list(self.config.text_fields).index("category")]
        return np.array([shares.get(name, shares[""]) for name in categories], np.float32)

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
        return ids.to(self.device), mask.to(self.device)


def fingerprint(folder: Path) -> str:
    """Identity of a saved model, 16 hex digits: what its vectors depend on (weights, configuration, tokenizer)."""
    names = ("model.safetensors", "config.json", "tokenizer.json", "processor_config.json")
    parts = [f"{name}:{sha256(folder / name)}" for name in names if (folder / name).is_file()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
