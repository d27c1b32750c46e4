"""What `smar train` takes where nobody says otherwise: chosen by a look at the dataset, with the reasons.

A proposal is a base: whatever a file or ``--set`` says stands. docs/training.md has what each choice was measured on.
"""

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from smar.core.overrides import overridden
from smar.core.settings import Settings
from smar.data.dataset import Dataset

PICTURED = 0.01
"""Share of the items with a picture below which a shop is one of words only."""
_PASSES, _FEWEST, _MOST = 12, 300, 3000  # over pairs or catalogue, whichever is more; steps of stage 1
_BATCH, _DIM = 512, 256
_TEMPERATURE = 0.05


@dataclass(frozen=True)
class Look:
    """What a dataset is like; `pictured`, `cold` and `unseen` are shares."""

    items: int
    pictured: float
    cold: float
    pairs: int
    queries: int
    unseen: float | None
    title_words: float
    image_size: int

    @classmethod
    def at(cls, dataset: Dataset) -> "Look":
        """Look at a dataset: its items, the training pairs, and validation queries that training has not."""
        train, valid = (set(dataset.pairs(part)["query"].to_pylist()) for part in ("train", "valid"))
        titles = dataset.fields(["title"])[0]
        return cls(
            items=len(titles),
            pictured=float(np.mean(dataset.image_row.reshape(len(titles), -1)[:, 0] >= 0)),
            cold=1 - float(np.mean(dataset.items["clicked_in_train"].to_numpy(zero_copy_only=False))),
            pairs=len(dataset.pairs("train")),
            queries=len(train),
            unseen=len(valid - train) / len(valid) if valid else None,
            title_words=median(len(title.split()) for title in titles),
            image_size=dataset.manifest.image_size,
        )

    def __str__(self) -> str:
        unseen = "" if self.unseen is None else f", {self.unseen:.0%} of the validation queries are new"
        pictures = f"{self.pictured:.0%} with a picture of {self.image_size} px" if self.pictured else "no pictures"
        return (
            f"{self.items:,} items, {pictures}, {self.cold:.0%} never clicked, titles of {self.title_words:g} words; "
            f"{self.pairs:,} pairs of {self.queries:,} queries{unseen}"
        )


def propose(dataset: Dataset, asked: Settings) -> tuple[Settings, list[str]]:
    """Settings to begin with, and what to tell the user of them.

    Args:
        dataset: what will be trained on.
        asked: what file and command line say, with defaults for the rest: what they describe is left to them.
    """
    look = Look.at(dataset)
    other = asked.model.kind != "dpsr" if "kind" in asked.model.model_fields_set else _compared(asked)
    described = asked.model.model_fields_set
    if look.pictured >= PICTURED:
        proposed, told = ({}, []) if {"pretrained", "query", "text", "vision"} & described else _with_pictures()
    elif other:
        proposed, told = {}, []
    else:
        proposed, told = _words_only(look, fresh=not {"pretrained", "query", "text"} & described)
    return overridden(Settings(), proposed), [str(look), *told]


def _bags() -> tuple[dict[str, Any], str]:
    """Text towers from scratch, and how they are told."""
    bag = {"kind": "bag", "hidden": _DIM}
    told = (
        f"model.query and model.text: {{kind: bag, hidden: {_DIM}}}, model.dim={_DIM}, "
        f"train.temperature={_TEMPERATURE}: from scratch a bag of tokens finds more than a transformer"
    )
    return {"query": bag, "text": bag, "dim": _DIM}, told


def _with_pictures() -> tuple[dict[str, Any], list[str]]:
    model, told = _bags()
    train = {
        "temperature": _TEMPERATURE,
        "stage1": {"weights": {"image": 1.0}},
        "pictures": {"augment": True},
    }
    more = "train.stage1.weights.image=1, train.pictures.augment=true: pictures have to be found by themselves, too"
    return {"model": model, "train": train}, [told, more]


def _words_only(look: Look, fresh: bool) -> tuple[dict[str, Any], list[str]]:
    """Without pictures; `fresh` unless somebody has described the text towers."""
    model: dict[str, Any] = {"kind": "dpsr"}
    train: dict[str, Any] = {"baselines": []}
    told = ["model.kind=dpsr, train.baselines=[]: there are no pictures to learn from"]
    if fresh:
        steps = min(max(math.ceil(_PASSES * max(look.pairs, look.items) / _BATCH), _FEWEST), _MOST)
        bags, said = _bags()
        model |= bags
        train |= {
            "temperature": _TEMPERATURE,
            "stage1": {"steps": steps, "batch_size": _BATCH},
            "stage2": {"steps": 0},
        }
        more = "pairs" if look.pairs > look.items else "catalogue"
        told += [
            said,
            f"train.stage1: {{steps: {steps}, batch_size: {_BATCH}}}: {_PASSES} passes over the {more}; "
            "train.stage2.steps=0: there is no gate to fine-tune",
        ]
    return {"model": model, "train": train}, told


def _compared(asked: Settings) -> bool:
    """Whether someone wants models beside the run's own, which then is SMAR."""
    return "baselines" in asked.train.model_fields_set and bool(asked.train.baselines)
