"""A tiny embeddings folder with vectors that mean something, for the tests of index and service.

Every word has a random vector; an item's text vector is the mean of its title's words, its multimodal vector
adds the colour and shape words that its drawn picture shows; the query model is the same bag of words as an
ONNX graph.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from smar.core.files import sha256, xxh3
from smar.search.embeddings import EmbeddingManifest, ShardEntry
from smar.search.local.open_version import EmbeddedIndex
from smar.search.query import INPUTS, OUTPUTS, QueryManifest

DIM = 32
FINGERPRINT = "feed" * 16
COLOURS = {"red": "#d33", "blue": "#36c", "green": "#2a7", "yellow": "#eb3", "black": "#222", "pink": "#e7a"}
CATEGORIES = {"Shirt": ("Nike", "Levi's"), "Watch": ("Casio", "Le Coq"), "Kettle": ("Bosch", "Braun")}
WORDS = [
    "[PAD]",
    "[UNK]",
    *COLOURS,
    *(c.lower() for c in CATEGORIES),
    "plain",
    "classic",
    "new",
    "steel",
    "cotton",
    "small",
]


class TinyQuery(torch.nn.Module):
    """Mean of word vectors, normalised; the gate says yes when a colour is asked for."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.words = torch.nn.Embedding(len(WORDS), DIM)
        self.gate = torch.nn.Embedding(len(WORDS), 1)
        with torch.no_grad():
            self.words.weight.copy_(torch.randn(len(WORDS), DIM, generator=generator))
            self.gate.weight.copy_(torch.tensor([[2.0 if word in COLOURS else -0.5] for word in WORDS]))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = attention_mask.unsqueeze(-1).float()
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        probability = torch.sigmoid((self.gate(input_ids) * mask).sum(1).squeeze(-1))
        return torch.nn.functional.normalize(mean, dim=-1), probability


def write_query_encoder(folder: Path, fingerprint: str = FINGERPRINT, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    example = (torch.tensor([[2, 8]]), torch.ones(1, 2, dtype=torch.int64))
    torch.onnx.export(
        TinyQuery(seed).eval(),
        example,
        str(folder / "model.onnx"),
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "n", 1: "t"} for name in INPUTS} | {name: {0: "n"} for name in OUTPUTS},
        dynamo=False,
    )
    files = {name: sha256(folder / name) for name in ("model.onnx", "tokenizer.json")}
    ids = {"pad_id": WORDS.index("[PAD]"), "unknown_ids": (WORDS.index("[UNK]"),)}
    QueryManifest(fingerprint=fingerprint, kind="smar", dim=DIM, max_length=12, files=files, **ids).write(folder)


def bag(texts: list[str], model: TinyQuery) -> np.ndarray:
    ids = [[WORDS.index(word) if word in WORDS else 1 for word in text.lower().split()] for text in texts]
    with torch.no_grad():
        return torch.stack(
            [torch.nn.functional.normalize(model.words(torch.tensor(row)).mean(0), dim=-1) for row in ids]
        ).numpy()


def draw(category: str, colour: str, size: tuple[int, int] = (120, 160)) -> bytes:
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    fill = COLOURS[colour]
    if category == "Shirt":
        pen.polygon(
            [
                (30, 40),
                (90, 40),
                (112, 70),
                (95, 85),
                (88, 72),
                (88, 135),
                (32, 135),
                (32, 72),
                (25, 85),
                (8, 70),
            ],
            fill,
        )
    elif category == "Watch":
        pen.rectangle((50, 15, 70, 145), fill="#888")
        pen.ellipse((30, 50, 90, 110), fill=fill, outline="#444", width=4)
    else:
        pen.rounded_rectangle((30, 60, 90, 140), 14, fill=fill)
        pen.arc((70, 70, 110, 125), -90, 90, fill="#333", width=6)
        pen.rectangle((50, 48, 70, 60), fill="#333")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if colour != "pink" else "PNG")
    return buffer.getvalue()


def catalogue(items: int, seed: int = 0) -> pa.Table:
    """Item columns with a hidden `colour`; every second title omits it, every ninth item has no picture."""
    rng = np.random.default_rng(seed)
    rows = []
    for at in range(items):
        category = list(CATEGORIES)[at % 3]
        colour = list(COLOURS)[int(rng.integers(len(COLOURS)))]
        words = [
            str(rng.choice(["plain", "classic", "new"])),
            colour if at % 2 else "",
            str(rng.choice(["steel", "cotton", "small"])),
        ]
        rows.append(
            {
                "item_id": f"item/{at:05d}",
                "title": " ".join(word for word in [*words, category] if word).capitalize(),
                "category": category,
                "brand": CATEGORIES[category][int(rng.integers(2))] if at % 7 else None,
                "price": float(np.round(rng.uniform(5, 200), 2)) if at % 5 else None,
                "in_stock": bool(at % 4),
                "colour": colour,
                "image_status": "missing" if at % 9 == 0 else "ok",
            }
        )
    return pa.Table.from_pylist(rows)


def write_embeddings(folder: Path, items: int = 180, shards: int = 3) -> Path:
    folder.mkdir(parents=True)
    table, model = catalogue(items), TinyQuery()
    write_query_encoder(folder / "query")
    offsets, lengths, blob = [], [], b""
    for row in table.to_pylist():
        picture = draw(row["category"], row["colour"]) if row["image_status"] == "ok" and items <= 1000 else b""
        offsets.append(len(blob) if picture else -1)
        lengths.append(len(picture))
        blob += picture
    (folder / "pictures.bin").write_bytes(blob)
    payload = table.drop_columns(["colour"])
    payload = payload.append_column("picture_offset", pa.array(offsets, pa.int64()))
    pq.write_table(payload.append_column("picture_length", pa.array(lengths, pa.int64())), folder / "payload.parquet")
    titles, seen = table["title"].to_pylist(), table["colour"].to_pylist()
    has_picture = np.array([status == "ok" for status in table["image_status"].to_pylist()])
    noise = np.random.default_rng(1).normal(0, 0.05, (items, DIM))
    text = _unit(bag(titles, model) + noise)
    shown = bag([f"{title} {colour}" for title, colour in zip(titles, seen, strict=True)], model) + noise
    multimodal = _unit(np.where(has_picture[:, None], shown, text))
    entries = []
    for at, rows in enumerate(np.array_split(np.arange(items), shards)):
        path = folder / f"shard-{at:05d}.parquet"
        vectors = [pa.FixedSizeListArray.from_arrays(pa.array(m[rows].ravel()), DIM) for m in (text, multimodal)]
        pq.write_table(pa.table([table["item_id"].take(rows), *vectors], ["item_id", "text", "multimodal"]), path)
        entries.append(ShardEntry(file=path.name, rows=len(rows), xxh3=xxh3(path)))
    EmbeddingManifest(
        fingerprint=FINGERPRINT,
        kind="smar",
        dim=DIM,
        items=items,
        shards=tuple(entries),
        text_fields=("title",),
    ).write(folder)
    return folder


def rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change fields of a manifest.json, as a careless hand would."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal_manifest(folder: Path, **changes: object) -> None:
    """Change fields of an index's manifest.json and make its own checksum fit again, as an attacker would."""
    rewrite_manifest(folder, **changes)
    path = folder / "manifest.json"
    content = path.read_text().replace(json.loads(path.read_text())["seal"], "0" * 64)
    path.write_text(content.replace("0" * 64, sha256_text(content), 1))


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def vectors_of(index: EmbeddedIndex, item_id: str) -> tuple[np.ndarray, np.ndarray]:
    """S_m and S_t of an item."""
    row = index.catalogue.row_of(item_id)
    assert row is not None
    return index.vectors(row)
