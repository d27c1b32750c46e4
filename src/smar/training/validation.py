"""Validation while a stage trains: R@k on validation pairs, the best weights kept, early stop.

Queries with their clicked items come from the validation period. They are ranked against the whole catalogue or, where
it is larger than `train.validation_items`, against the clicked items and a fixed random sample of the others: figures
of one run compare with each other, not with those of `smar evaluate`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from safetensors.torch import load_model, save_model
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from smar.core.files import atomic, link_or_copy, write_json
from smar.core.processes import Heap
from smar.core.progress import console
from smar.core.sections.training import LossWeights
from smar.core.settings import Settings
from smar.data.dataset import Dataset
from smar.model.encoder import Encoder, Floats
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.run_folder import Validated
from smar.model.tokens import Ints
from smar.training.distributed import from_first, rank
from smar.training.heldout import FEWEST_QUERIES

BEST_FILE, STATE_FILE = "best.safetensors", "validation.json"


@dataclass(frozen=True)
class ValidationSet:
    """Validation queries, each with the positions of its items in `items`; `items` are rows of the dataset."""

    queries: list[str]
    relevant: list[Ints]
    items: Ints

    @classmethod
    def from_dataset(cls, dataset: Dataset, settings: Settings) -> "ValidationSet | None":
        """At most `train.validation_queries` queries and `train.validation_items` items.

        None where there are fewer than `FEWEST_QUERIES`: the best of many weights on a handful would be a lucky one.
        """
        table, options = dataset.pairs("valid"), settings.train
        if not len(table):
            return None
        rng = np.random.default_rng(options.seed)
        names, query = np.unique(np.asarray(table["query"].to_pylist(), dtype=object), return_inverse=True)
        if len(names) < FEWEST_QUERIES:
            console.print(
                f"{len(names)} validation queries are too few to choose weights by: the last ones are kept. "
                "A larger data.valid_share gives more.",
                soft_wrap=True,
            )
            return None
        item = table["item_index"].to_numpy().astype(np.int64)
        chosen = np.sort(rng.permutation(len(names))[: options.validation_queries])
        clicked = np.unique(item[np.isin(query, chosen)])
        others = np.setdiff1d(np.arange(len(dataset.items)), clicked)
        sample = rng.permutation(others)[: max(0, options.validation_items - len(clicked))]
        items = np.sort(np.concatenate([clicked, sample]))
        relevant = [np.searchsorted(items, np.unique(item[query == row])) for row in chosen]
        return cls(names[chosen].tolist(), relevant, items)


def recall(
    query: Floats, probability: Floats, text: Floats, multimodal: Floats, relevant: list[Ints], k: int, size: int = 256
) -> float:
    """Mean over queries of the share of relevant items among the k best by p Q.S_m + (1 - p) Q.S_t.

    Args:
        query, probability: [q, dim], [q].
        text, multimodal: item vectors [n, dim].
        relevant: rows of each query's relevant items, at least one, none twice.
        k: depth.
        size: queries scored at once.
    """
    shares = []
    for start in range(0, len(query), size):
        q, p = query[start : start + size], probability[start : start + size, None]
        scores = p * (q @ multimodal.T) + (1 - p) * (q @ text.T)
        best = np.argpartition(-scores, min(k, scores.shape[1]) - 1, axis=1)[:, :k]
        wanted = relevant[start : start + size]
        shares += [np.isin(rows, found).mean() for rows, found in zip(wanted, best, strict=True)]
    return float(np.mean(shares))


@dataclass(frozen=True)
class Measurement:
    """R@k of one moment, and the gate's probabilities [q]; None where the model has no gate."""

    recall: float
    probability: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Measure:
    """Measures a model on a validation set: its adaptive score where the gate is trained, else `Q.S_m` alone."""

    dataset: Dataset
    part: ValidationSet
    processor: SmarProcessor
    adaptive: bool
    k: int
    bf16: bool

    @classmethod
    def of_stage(
        cls, dataset: Dataset, part: ValidationSet, processor: SmarProcessor, weights: LossWeights, settings: Settings
    ) -> "Measure":
        """The measure of a stage with these losses."""
        adaptive = bool(weights.adaptive or weights.gate)
        return cls(dataset, part, processor, adaptive, settings.evaluate.k, settings.train.bf16)

    def __call__(self, model: SmarModel) -> Measurement:
        """Measure `model`; it comes back in training mode."""
        encoder, rows = Encoder(model, self.processor, bf16=self.bf16), self.part.items
        fields = self.dataset.fields(tuple(model.config.text_fields))
        some = [[field[row] for row in rows] for field in fields]
        vectors = list(encoder.encode_items(some, self.dataset.images, self.dataset.image_row[rows]))
        query, probability = encoder.encode_queries(self.part.queries)
        model.train()
        weight = probability if self.adaptive else np.ones_like(probability)
        text, multimodal = (np.concatenate([getattr(v, name) for v in vectors]) for name in ("text", "multimodal"))
        found = recall(query, weight, text, multimodal, self.part.relevant, self.k)
        return Measurement(found, probability if model.config.kind == "smar" else None)


class _State(BaseModel):
    """What a checkpoint remembers of validation."""

    step: int = 0
    recall: float = -1.0
    waited: int = 0


class Validation(TrainerCallback):  # type: ignore[misc]
    """Measures every `every` steps and at the end of the stage; keeps the best weights in ``STAGE/best.safetensors``.

    Each checkpoint holds the best weights up to it (a second name of the same file), so a resumed run knows what the
    stopped one knew.

    Args:
        measure: of the model in training.
        folder: of the stage.
        every: steps.
        patience: measurements without gain after which the stage ends; None never ends it.
        board: whose writer takes the figures.
    """

    def __init__(
        self, measure: Measure, folder: Path, every: int, patience: int | None, board: TensorBoardCallback
    ) -> None:
        self.measure, self.folder, self.every, self.patience, self.board = measure, folder, every, patience, board
        self.state = _State()

    def resume(self, checkpoint: Path) -> None:
        """Know again what was known when `checkpoint` was written."""
        if (checkpoint / STATE_FILE).is_file():
            self.state = _State.model_validate_json((checkpoint / STATE_FILE).read_bytes())
        if rank() == 0 and (checkpoint / BEST_FILE).is_file():
            link_or_copy(checkpoint / BEST_FILE, self.folder / BEST_FILE)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Measure, keep the weights if they are the best, stop the stage if nothing was gained for long."""
        if state.global_step % self.every and state.global_step != state.max_steps:
            return
        Heap().trim()  # what the steps left, before the measurement takes its own
        measured = from_first(self.measure(model) if rank() == 0 else None)
        assert measured is not None
        if measured.recall > self.state.recall:
            self.state = _State(step=state.global_step, recall=measured.recall)
            if rank() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                with atomic(self.folder / BEST_FILE) as partial:
                    save_model(model, str(partial))
        else:
            self.state = self.state.model_copy(update={"waited": self.state.waited + 1})
        if self.patience is not None and self.state.waited >= self.patience:
            control.should_training_stop = True
        self._log(measured, state.global_step)

    def _log(self, measured: Measurement, step: int) -> None:
        writer = self.board.tb_writer
        if writer is not None:
            writer.add_scalar(f"valid/R@{self.measure.k}", measured.recall, step)
            if measured.probability is not None:
                writer.add_histogram("valid/image_probability", measured.probability, step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put what is known into the checkpoint, before it is sealed."""
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if rank() == 0 and self.state.step:
            write_json(checkpoint / STATE_FILE, self.state.model_dump())
            link_or_copy(self.folder / BEST_FILE, checkpoint / BEST_FILE)

    def finish(self, model: SmarModel) -> Validated | None:
        """Give `model` the best weights; what was measured of them."""
        if not self.state.step:
            return None
        if rank() == 0:
            load_model(model, self.folder / BEST_FILE)
        part = self.measure.part
        return Validated(
            step=self.state.step,
            k=self.measure.k,
            recall=self.state.recall,
            queries=len(part.queries),
            items=len(part.items),
        )
