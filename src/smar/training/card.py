"""The model card of a saved stage: ``README.md`` as model hubs read it, with what the run itself knows."""

from pathlib import Path

import yaml

from smar.files import atomic
from smar.model.run import StageRecord
from smar.sections.train import Schedule
from smar.settings import Settings
from smar.training.setup import TrainingData

WHAT = {
    "smar": "a query tower, item-text, item-image and multimodal towers, and a gate that decides for "
    "each query how much pictures count (SMAR, SIGIR 2023)",
    "dpsr": "a query tower and an item-text tower: product search by words",
    "dpsr-i": "a query tower and an item-image tower: product search by pictures alone",
    "clip": "a query, an item-text and an item-image tower, the last two added up: product search by late fusion",
}


def write_card(folder: Path, record: StageRecord, data: TrainingData, settings: Settings, temperature: float) -> None:
    """Write ``folder/README.md`` front matter, data, training, metrics, limits, use."""
    front = {
        "license": "other",
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["smar", settings.model.kind, "product-search", "e-commerce", "multimodal", "retrieval"],
    }
    header = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n"
    parts = [
        _head(record, settings),
        _data(data, settings),
        _training(record, settings, temperature),
        _metrics(record),
        _limits(settings.model.kind),
        _use(),
    ]
    with atomic(folder / "README.md") as partial:
        partial.write_text(header + "\n" + "\n".join(parts), encoding="utf-8")


def _head(record: StageRecord, settings: Settings) -> str:
    return (
        f"# {record.kind}, {record.stage}\n\nProduct retrieval: {WHAT[settings.model.kind]}. Trained with `smar`. "
        "The weights have no licence of their own yet: whoever publishes them fills in `license` above.\n"
    )


def _data(data: TrainingData, settings: Settings) -> str:
    manifest = data.dataset.manifest
    note = f"{settings.data.note}. " if settings.data.note else ""
    return (
        f"## Data\n\n{note}{len(data.pairs):,} pairs of query and clicked item, {len(data.queries):,} queries, "
        f"{manifest.counts['items']:,} items, {manifest.counts['images_packed']:,} pictures of "
        f"{manifest.image_size} x {manifest.image_size} pixels. Item text: {', '.join(settings.data.text_fields)}.\n"
    )


def _training(record: StageRecord, settings: Settings, temperature: float) -> str:
    stage: Schedule = getattr(settings.train, record.stage)
    unit = "pictures" if record.stage == "stage0" else "pairs"
    speed = f", {record.pairs_per_second:,.0f} {unit} a second" if record.pairs_per_second else ""
    return (
        f"## Training\n\n{record.steps:,} steps, {record.pairs:,} {unit} in all{speed}; {record.seconds:,.0f} s "
        f"({record.cpu_seconds:,.0f} CPU seconds) in {record.processes} process(es). Learning rate "
        f"{stage.learning_rate:g}, temperature {temperature:.4g}, "
        f"{'bfloat16' if settings.train.bf16 else 'float32'}. The run's `config.yaml` holds every setting.\n"
    )


def _metrics(record: StageRecord) -> str:
    seen = record.validated
    if seen is None:
        return "## Metrics\n\nNot validated while training. `smar evaluate` measures the test period.\n"
    return (
        f"## Metrics\n\nR@{seen.k} on validation clicks: {seen.recall:.3f} after step {seen.step:,}, whose weights "
        f"these are ({seen.queries:,} queries, {seen.items:,} items). The step was chosen by this very figure, so it "
        "is slightly too good; `smar evaluate` measures the test period.\n"
    )


def _limits(kind: str) -> str:
    pictures = " It reads words only." if kind == "dpsr" else ""
    return (
        "## Limits\n\nIt knows the words and the taste of one shop's log: clicks carry the bias of what was shown. It "
        f"retrieves candidates and does not rank for sale.{pictures} Vectors compare only with vectors of this very "
        "model.\n"
    )


def _use() -> str:
    return (
        "## Use\n\n```python\nfrom smar.model.encoder import Encoder\n\n"
        'encoder = Encoder.from_pretrained("this-folder")\n'
        'vector = encoder.encode_query(["red dress"]).embedding\n```\n\n'
        "or `import smar.model.modeling`, then `transformers.AutoModel.from_pretrained(...)`.\n"
    )
