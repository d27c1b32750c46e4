"""From a stage's settings to what it trains on: its examples, and the trainer that takes them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer

from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.tokens import Ints
from smar.settings import Settings, StageSettings
from smar.training.alignment import AlignmentCollator, ItemKeys
from smar.training.batches import Collator
from smar.training.patches import patch_states
from smar.training.setup import TrainingData, freeze
from smar.training.stages import Job
from smar.training.trainer import SmarTrainer
from smar.training.words import WordCollator, WordModel, WordTrainer


@dataclass(frozen=True)
class Examples:
    """`count` examples, and what turns a list of their numbers into a batch."""

    collate: Callable[[Sequence[int]], dict[str, Any]]
    count: int


@dataclass(frozen=True)
class Workshop:
    """What every stage of one model shares."""

    job: Job
    run: Path
    settings: Settings
    data: TrainingData
    processor: SmarProcessor
    pairs: Collator

    def __post_init__(self) -> None:
        """Look the category column up before anything is trained; raises InputError where there is none."""
        _ = self.category

    @cached_property
    def category(self) -> Ints | None:
        """Number of each pair's category [pairs]; None where batches are not made of categories."""
        options = self.settings.train.pictures
        return self.data.categories(options.category_column) if options.same_category else None

    def examples(self, name: str, model: SmarModel) -> Examples:
        """Examples of a stage; the model's encoders are frozen as the stage wants them.

        Raises:
            InputError: see `smar.training.patches.patch_states` and `smar.training.words.WordCollator.of`.
        """
        stage, pairs = self.job.stages[name], self.pairs
        if not isinstance(stage, StageSettings):
            freeze(model, self.job.model)
            words = WordCollator.of(pairs, self.processor)
            return Examples(words, len(words.items))
        freeze(model, self.job.model, stage.freeze_image)
        options, train = self.settings.train.pictures, self.settings.train
        fixed = stage.freeze_image or self.job.model.vision.frozen
        if fixed and options.precompute and stage.steps and pairs.images is not None and len(pairs.images):
            states = patch_states(self.run, self.data.dataset, model, self.processor, train.bf16)
            pairs = replace(pairs, images=states)
        if not stage.weights.alignment:
            return Examples(pairs, len(pairs.pairs))
        keys = ItemKeys.of(self.data.dataset)
        return Examples(AlignmentCollator(pairs, keys, options.alignment_items, train.seed), len(pairs.pairs))

    def learner(self, model: SmarModel, examples: Examples) -> nn.Module:
        """What a stage trains: the model, or in stage 0 its image tower under a head of words."""
        if isinstance(examples.collate, WordCollator):
            return WordModel(model.image_tower, examples.collate.bags.words)
        return model

    def trainer(self, name: str, learner: nn.Module, examples: Examples, **arguments: Any) -> Trainer:
        """Trainer of a stage; `arguments` are those of `Trainer`."""
        stage, options, processor = self.job.stages[name], self.settings.train.pictures, self.processor
        arguments |= {"data_collator": examples.collate, "train_dataset": list(range(examples.count))}
        if not isinstance(stage, StageSettings):
            return WordTrainer(processor=processor, augment=options.augment, model=learner.train(), **arguments)
        return SmarTrainer(
            weights=stage.weights,
            processor=processor,
            pictures=options,
            category=self.category,
            model=learner.train(),
            **arguments,
        )
