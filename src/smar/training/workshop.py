"""From a stage's settings to what it trains on: its examples, and the trainer that takes them."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.integrations import TensorBoardCallback

from smar.core.sections.training import Schedule, StageSettings
from smar.core.settings import Settings
from smar.model.device import CPU, knows_bf16
from smar.model.encoder import Encoder
from smar.model.layers import checkpoint_activations
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.start import freeze
from smar.model.towers import Tower
from smar.training.alignment import AlignmentItems, ItemKeys
from smar.training.batches import Collator
from smar.training.callbacks import Callback
from smar.training.distributed import in_turn
from smar.training.gate_fit import training_shares
from smar.training.jobs import Job
from smar.training.loss_guard import LossGuard
from smar.training.made_queries import CatalogueQueries
from smar.training.negatives import NegativeSampler
from smar.training.patches import patch_states
from smar.training.setup import TrainingData
from smar.training.trainer import SmarTrainer
from smar.training.validation import Measure, Validation, ValidationSet
from smar.training.word_bags import WordCollator, WordModel, WordTrainer


@dataclass(frozen=True)
class Workshop:
    """What every stage of one model shares."""

    job: Job
    run: Path
    data: TrainingData
    processor: SmarProcessor
    pairs: Collator
    device: torch.device = CPU
    callbacks: tuple[Callback, ...] = ()

    @property
    def settings(self) -> Settings:
        """Of the model, as of a run of its own."""
        return self.job.settings

    def examples(self, name: str, model: SmarModel) -> Collator | WordCollator:
        """What a stage's batches are made of; the model's encoders are frozen as the stage wants them.

        Args:
            name: of the stage.
            model: as the stage starts with it.

        Raises:
            InputError: see `smar.training.patches.patch_states` and `smar.training.word_bags.WordCollator.of`.
        """
        stage, pairs = self.job.stages[name], self.pairs
        if not isinstance(stage, StageSettings):
            freeze(model, self.job.model)
            return WordCollator.of(
                pairs,
                [" ".join(values) for values in zip(*self.data.fields, strict=True)],
                self.data.queries,
                self.data.dataset.language,
                len(self.processor.tokenizer),
            )
        freeze(model, self.job.model, stage.freeze_image)
        pairs = replace(pairs, negatives=self._negatives())
        if stage.catalogue:
            read = partial(self.processor.query_ids, config=model.config)
            made = CatalogueQueries.of(self.data.fields, stage.catalogue, self.settings.train.seed, read)
            pairs = replace(pairs, catalogue=made)
        if name == "stage2" and self.job.model.kind == "smar" and stage.steps and stage.weights.adaptive:
            encoder = Encoder(model, self.processor, bf16=self.settings.train.bf16)
            pairs = replace(pairs, share=training_shares(encoder, self.data, self.settings))
        fixed = stage.freeze_image or self.job.model.towers["image_tower"].frozen
        if fixed and self.settings.train.pictures.precompute and stage.steps and pairs.images is not None:
            bf16 = self.settings.train.bf16
            pairs = replace(
                pairs, images=in_turn(lambda: patch_states(self.run, self.data.dataset, model, self.processor, bf16))
            )
        return pairs

    def _negatives(self) -> NegativeSampler:
        negatives = NegativeSampler(self.settings.train.negatives.uniform, self.settings.train.seed)
        negatives.check(len(self.pairs.items))
        return negatives

    def trainer(self, name: str, model: SmarModel, examples: Collator | WordCollator, **arguments: Any) -> Trainer:
        """Trainer of a stage; `arguments` are those of `Trainer`."""
        stage, train, processor = self.job.stages[name], self.settings.train, self.processor
        lowered = train.bf16 and knows_bf16(self.device)
        if train.activation_checkpointing:
            checkpoint_activations(tower.encoder for tower in model.children() if isinstance(tower, Tower))
        if isinstance(examples, WordCollator):
            numbers = list(range(len(examples.items)))
            words = WordModel(model.image_tower, examples.bags.words).train()
            arguments |= {"model": words, "data_collator": examples, "train_dataset": numbers}
            return WordTrainer(
                processor=processor, augment=train.pictures.augment, micro_batch=train.micro_batch, **arguments
            )
        assert isinstance(stage, StageSettings)
        return SmarTrainer(
            weights=stage.weights,
            loss=train.loss,
            pictures=train.pictures,
            processor=processor,
            collator=examples,
            guard=LossGuard(self.data, f"{self.job.name} {name}", _advice(name, stage, lowered)),
            alignment=self._alignment(stage, examples),
            micro_batch=train.micro_batch,
            model=model.train(),
            **arguments,
        )

    def _alignment(self, stage: StageSettings, pairs: Collator) -> AlignmentItems | None:
        if not stage.weights.alignment or pairs.images is None:
            return None
        train = self.settings.train
        return AlignmentItems(pairs, ItemKeys.of(self.data.dataset), train.pictures.alignment_items, train.seed)

    def validation(self, name: str, board: TensorBoardCallback) -> Validation | None:
        """Validation of a stage, where it is asked for and there are clicks to validate with; stage 0 has none."""
        stage, settings = self.job.stages[name], self.settings
        every, dataset = settings.train.evaluate_steps, self.data.dataset
        if not every or not stage.steps or not isinstance(stage, StageSettings):
            return None
        part = ValidationSet.from_dataset(dataset, settings)
        if part is None:
            return None
        measure = Measure.of_stage(dataset, part, self.processor, stage.weights, settings)
        return Validation(measure, self.job.folder / name, every, settings.train.patience, board)


def _advice(name: str, stage: Schedule, bf16: bool) -> str:
    lower = f"Lower train.{name}.learning_rate ({stage.learning_rate:g} now), raise its warmup"
    return f"{lower}, or set train.bf16=false." if bf16 else f"{lower}, or look at these pairs."
