"""Words to vectors without torch: a tokenizer file and one ONNX graph, bound to its model by a fingerprint.

A query encoder folder holds ``model.onnx`` (tokens -> normalised embedding and image probability),
``tokenizer.json``, ``manifest.json`` and, where words have a share of their own, ``voices.json``. `smar embed` exports
it, `smar index` and the service carry it along.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from smar.core.errors import InputError, member
from smar.core.files import Manifest, StrPath, verify
from smar.data.voices import VOICES_FILE, Voices
from smar.search.expansion import Expansion

MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("embedding", "image_probability")
MADE_BY = "smar embed"
_BATCH = 16  # of queries about as long as each other; 32 as they come take a fifth more, 256 two thirds


class Precision(StrEnum):
    """Numbers that the graph computes with."""

    FLOAT32 = "float32"
    INT8 = "int8"


class Int8Cost(BaseModel):
    """What int8 loses on validation queries, searched exactly in the catalogue's vectors.

    `float32` and `int8` are recall@50 of the clicked items. `recall_cost` is the share of it that int8 loses: negative
    where it gains, 1 where there is none to lose. `overlap` is the share of the float32 top 50 that int8 finds, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int
    float32: float
    int8: float
    recall_cost: float
    overlap: float


class QueryManifest(Manifest):
    """``query/manifest.json``: which model this is, and the checksum of each of its files."""

    format: Literal["smar-query/2"] = "smar-query/2"
    fingerprint: str
    kind: str
    dim: int = Field(ge=1)
    max_length: int = Field(ge=1, description="tokens kept of a query")
    pad_id: int = Field(ge=0, description="token that fills up shorter queries")
    unknown_ids: tuple[NonNegativeInt, ...] = Field(
        description="tokens that stand for what the vocabulary lacks, bytes among them"
    )
    prefix: str = Field("", description="put before every query; counts among its tokens")
    threshold: float = Field(0.5, ge=0, le=1, description="pictures are brought in when image_probability exceeds it")
    precision: Precision = Field(Precision.FLOAT32, description="used when nothing else is asked for")
    int8: Int8Cost | None = Field(None, description="the measured cost of the int8 graph, where there is one")
    files: dict[str, str]

    def model_file(self, precision: Precision | str | None = None) -> str:
        """Name of the graph of a precision, the default one when not given; InputError where there is none such."""
        chosen = self.precision if precision is None else member(Precision, precision, "precision")
        return INT8_FILE if chosen is Precision.INT8 else MODEL_FILE


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """Encoded queries: `embedding` float32 [n, k], L2-normalised; `image_probability` float32 [n], 0..1.

    Routing asks the pictures where the probability exceeds `threshold`. Hybrid search needs `texts` [n], the queries
    in their normal form. `unknown` float32 [n] is the share of each query's characters that the vocabulary lacks, 0..1;
    None where vectors come from elsewhere. `expansions` [n] are their synonyms, None for none at all.
    """

    embedding: npt.NDArray[np.float32]
    image_probability: npt.NDArray[np.float32]
    threshold: float = 0.5
    texts: tuple[str, ...] | None = None
    unknown: npt.NDArray[np.float32] | None = None
    expansions: tuple[Expansion | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.embedding)

    def readings(self, at: int) -> tuple[str, ...]:
        """A query's text, and those with a synonym in place."""
        assert self.texts is not None
        own = None if self.expansions is None else self.expansions[at]
        return (self.texts[at], *(() if own is None else own.texts))

    def __getitem__(self, part: slice) -> "QueryVectors":
        texts = None if self.texts is None else self.texts[part]
        unknown = None if self.unknown is None else self.unknown[part]
        expansions = None if self.expansions is None else self.expansions[part]
        vectors = (self.embedding[part], self.image_probability[part])
        return QueryVectors(*vectors, self.threshold, texts, unknown, expansions)


class QueryEncoder:
    """The online query tower and gate; safe to call from several threads."""

    def __init__(self, manifest: QueryManifest, session: Any, tokenizer: Any, voices: Voices | None = None) -> None:
        self.manifest, self.voices = manifest, voices
        self._session = session
        self._tokenizer = tokenizer
        ends = tokenizer.encode(manifest.prefix).ids  # every query has them; CLIP's end token is its unknown one, too
        self._ends = len(ends)
        self._unknown = frozenset(manifest.unknown_ids).difference(ends)

    @classmethod
    def load(cls, folder: StrPath, threads: int = 1, precision: Precision | str | None = None) -> Self:
        """Load and verify an encoder folder; `precision` instead of the one that it names as its default.

        Raises:
            InputError: a file is missing, damaged, or not what the manifest says; the message names it.
        """
        folder = Path(folder)
        import onnxruntime as ort
        from tokenizers import Tokenizer

        manifest = QueryManifest.read(folder, MADE_BY)
        model = manifest.model_file(precision)
        for name in (model, TOKENIZER_FILE, *{VOICES_FILE}.intersection(manifest.files)):
            _verify(folder / name, manifest.files.get(name))
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads  # queries are small: more workers serve more than more threads
        options.inter_op_num_threads = 1
        try:
            session = ort.InferenceSession(folder / model, options, providers=["CPUExecutionProvider"])
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        except Exception as error:  # both libraries raise bare or private types
            raise InputError(f"{folder} does not hold a query encoder: {error}. Run `{MADE_BY}` again.") from error
        _check_graph(session, folder / model)
        tokenizer.enable_truncation(manifest.max_length)
        tokenizer.enable_padding(pad_id=manifest.pad_id)
        return cls(manifest, session, tokenizer, Voices.read(folder))

    def encode(self, texts: Sequence[str], timings: dict[str, float] | None = None) -> QueryVectors:
        """Encode queries as they are (normalise them first), in batches; each is padded to its longest.

        `timings` takes the milliseconds of the stages `tokenise` and `encode`.
        """
        spent = {} if timings is None else timings
        encode = self._encode if 0 < len(texts) <= _BATCH else self._by_length
        embedding, probability, unknown = encode(texts, spent)
        return QueryVectors(embedding, probability, self.manifest.threshold, tuple(texts), unknown)

    def encode_expanded(
        self,
        texts: Sequence[str],
        expansions: Sequence[Expansion | None],
        timings: dict[str, float] | None = None,
    ) -> QueryVectors:
        """Encode queries with their synonyms: the mean of the vectors of a query's readings, at length 1.

        Of these only the ones of which the vocabulary lacks least count. The gate's word is their mean, too.
        """
        readings = [(text, *(() if own is None else own.texts)) for text, own in zip(texts, expansions, strict=True)]
        each = self.encode([text for own in readings for text in own], timings)
        assert each.unknown is not None
        counts = np.array([len(own) for own in readings])
        starts = np.cumsum(counts) - counts
        unknown = np.minimum.reduceat(each.unknown, starts)
        known = (each.unknown <= np.repeat(unknown, counts)).astype(np.float32)
        embedding, several = each.embedding[starts], counts > 1
        sums = np.add.reduceat(each.embedding * known[:, None], starts)[several]
        embedding[several] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        probability = np.add.reduceat(each.image_probability * known, starts) / np.add.reduceat(known, starts)
        return replace(
            each,
            embedding=embedding,
            image_probability=probability.astype(np.float32),
            texts=tuple(texts),
            unknown=unknown,
            expansions=tuple(expansions),
        )

    def _by_length(self, texts: Sequence[str], timings: dict[str, float]) -> tuple[npt.NDArray[np.float32], ...]:
        embedding = np.empty((len(texts), self.manifest.dim), np.float32)
        probability, unknown = np.empty(len(texts), np.float32), np.empty(len(texts), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(texts), _BATCH):
            batch = order[start : start + _BATCH]
            encoded = self._encode([texts[at] for at in batch], timings)
            embedding[batch], probability[batch], unknown[batch] = encoded
        return embedding, probability, unknown

    def _encode(self, texts: Sequence[str], timings: dict[str, float]) -> tuple[npt.NDArray[np.float32], ...]:
        started = time.perf_counter()
        ids, mask, unknown = self._tokenise(texts)
        tokenised = time.perf_counter()
        embedding, probability = self._session.run(OUTPUTS, dict(zip(INPUTS, (ids, mask), strict=True)))
        for stage, spent in (("tokenise", tokenised - started), ("encode", time.perf_counter() - tokenised)):
            timings[stage] = timings.get(stage, 0.0) + 1000 * spent
        return embedding, probability.reshape(len(texts)), unknown

    def _tokenise(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Ids and mask [n, tokens], and the share of unknown characters [n]."""
        encodings = self._tokenizer.encode_batch_fast([self.manifest.prefix + text for text in texts])
        tokens = [e.ids for e in encodings]
        ids = np.array(tokens, np.int64).reshape(len(texts), -1)
        mask = np.array([e.attention_mask for e in encodings], np.int64).reshape(len(texts), -1)
        if ids.shape[1] == 0:  # the tokenizer found nothing at all, e.g. in a lone control character
            ids, mask = np.zeros((len(texts), 1), np.int64), np.zeros((len(texts), 1), np.int64)
        unknown = np.zeros(len(texts), np.float32)
        for at, own in enumerate(tokens):
            if not self._unknown.isdisjoint(own):
                unknown[at] = self._unknown_share(texts[at])
        if (nothing := mask.sum(axis=1) <= self._ends).any():
            unknown[nothing] = 1
            blank = mask.sum(axis=1) == 0  # pooling over no token would divide by zero
            ids[blank, 0], mask[blank, 0] = next(iter(self.manifest.unknown_ids), self.manifest.pad_id), 1
        return ids, mask, unknown

    def _unknown_share(self, text: str) -> float:
        """Share of the characters, blanks left out, that only unknown tokens cover; what is cut off does not count."""
        found = self._tokenizer.encode(text)
        read: set[int] = set()
        lost: set[int] = set()
        for token, span, added in zip(found.ids, found.offsets, found.special_tokens_mask, strict=True):
            if not added:
                (lost if token in self._unknown else read).update(at for at in range(*span) if not text[at].isspace())
        return len(lost) / len(read | lost) if lost else 0.0


def _verify(path: Path, expected: str | None) -> None:
    if expected is None:
        raise InputError(f"{path.parent / 'manifest.json'} does not name {path.name}. Run `{MADE_BY}` again.")
    verify(path, expected, f"Run `{MADE_BY}` again.")


def _check_graph(session: Any, path: Path) -> None:
    inputs = {node.name for node in session.get_inputs()}
    outputs = {node.name for node in session.get_outputs()}
    if inputs != set(INPUTS) or not set(OUTPUTS) <= outputs:
        raise InputError(f"{path} maps {sorted(inputs)} to {sorted(outputs)}; expected {INPUTS} to {OUTPUTS}.")
