"""The model card of a saved stage: ``README.md`` as model hubs read it, with what the run itself knows."""

from pathlib import Path

import torch
from huggingface_hub import EvalResult, ModelCardData

from smar.core.files import atomic
from smar.core.sections.training import Schedule
from smar.core.settings import Settings
from smar.model.device import CPU, knows_bf16
from smar.model.hub import CARD_FILE
from smar.model.run_folder import Parent, StageRecord
from smar.training.setup import TrainingData

WHAT = {
    "smar": "a query tower, item-text, item-image and multimodal towers, and a gate that decides for "
    "each query how much pictures count (SMAR, SIGIR 2023)",
    "dpsr": "a query tower and an item-text tower: product search by words",
    "dpsr-i": "a query tower and an item-image tower: product search by pictures alone",
    "clip": "a query, an item-text and an item-image tower, the last two added up: product search by late fusion",
}
_WITHOUT = {"dpsr": "image_tower", "dpsr-i": "text_tower"}


def write_card(
    folder: Path,
    record: StageRecord,
    data: TrainingData,
    settings: Settings,
    temperature: float,
    parent: Parent | None = None,
    device: torch.device = CPU,
) -> None:
    """Write ``folder/README.md``: front matter, data, training, metrics, limits, use."""
    parts = [
        _head(record, settings),
        _data(data, settings),
        _training(record, settings, temperature, parent, device),
        _metrics(record),
        _limits(settings.model.kind),
        _use(settings.model.kind),
    ]
    with atomic(folder / CARD_FILE) as partial:
        partial.write_text(f"---\n{_front(record, settings).to_yaml()}\n---\n\n" + "\n".join(parts), encoding="utf-8")


def _front(record: StageRecord, settings: Settings) -> ModelCardData:
    """What a model hub reads. No pipeline tag: a pipeline knows neither the normal form nor which tower to ask."""
    kind, seen, unnamed = settings.model.kind, record.validated, settings.train.license == "other"
    pictures = [] if kind == "dpsr" else ["multimodal"]
    hub, _ = _origins(settings)
    result = seen and EvalResult(
        task_type="information-retrieval",
        dataset_type="search-log",
        dataset_name=settings.data.note or "search log of a shop",
        dataset_split="validation",
        metric_type=f"recall_at_{seen.k}",
        metric_name=f"R@{seen.k} of clicked items",
        metric_value=round(seen.recall, 4),
    )
    return ModelCardData(
        license=settings.train.license,
        license_name="not-stated" if unnamed else None,
        library_name="smar",
        base_model=[name.partition("@")[0] for name in hub] or None,
        tags=["smar", kind, record.kind, "product-search", "e-commerce", "retrieval", *pictures],
        metrics=[f"recall_at_{seen.k}"] if seen else None,
        model_name=record.kind if seen else None,
        eval_results=[result] if result else None,
    )


def _origins(settings: Settings) -> tuple[list[str], list[str]]:
    """Pretrained encoders of the towers that the kind has: names on a model hub, and names of local folders."""
    towers = settings.model.towers.items()
    left_out = _WITHOUT.get(settings.model.kind)
    names = dict.fromkeys(tower.pretrained for name, tower in towers if tower.pretrained and name != left_out)
    paths = {name: (Path(name), Path(name.partition("@")[0])) for name in names if name}
    local = [name for name, seen in paths.items() if seen[0].is_absolute() or any(path.exists() for path in seen)]
    return [name for name in names if name and name not in local], [Path(name).resolve().name for name in local]


def _head(record: StageRecord, settings: Settings) -> str:
    missing = "The weights have no licence of their own yet: whoever publishes them fills in `license` above. "
    return (
        f"# {record.kind}, {record.stage}\n\nProduct retrieval: {WHAT[settings.model.kind]}. Trained with `smar`. "
        f"{missing if settings.train.license == 'other' else ''}".rstrip()
        + "\n"
    )


def _data(data: TrainingData, settings: Settings) -> str:
    manifest = data.dataset.manifest
    note = f"{settings.data.note}. " if settings.data.note else ""
    return (
        f"## Data\n\n{note}{len(data.pairs):,} pairs of query and clicked item, {len(data.queries):,} queries, "
        f"{manifest.counts['items']:,} items, {manifest.counts['images_packed']:,} pictures of "
        f"{manifest.image_size} x {manifest.image_size} pixels. Item text: {', '.join(settings.data.text_fields)}.\n"
    )


def _training(
    record: StageRecord, settings: Settings, temperature: float, parent: Parent | None, device: torch.device
) -> str:
    stage: Schedule = getattr(settings.train, record.stage)
    unit = "pictures" if record.stage == "stage0" else "pairs"
    speed = f", {record.pairs_per_second:,.0f} {unit} a second" if record.pairs_per_second else ""
    hub, local = _origins(settings)
    start = f"From pretrained weights: {', '.join([*hub, *(f'a local {name}' for name in local)])}. "
    on = f"Goes on from the run {parent.name} (model {parent.fingerprint}). " if parent else ""
    return (
        f"## Training\n\n{start if hub or local else ''}{on}"
        f"{record.steps:,} steps, {record.pairs:,} {unit} in all{speed}; {record.seconds:,.0f} s "
        f"({record.cpu_seconds:,.0f} CPU seconds) in {record.processes} process(es). Learning rate "
        f"{stage.learning_rate:g}, temperature {temperature:.4g}, "
        f"{'bfloat16' if settings.train.bf16 and knows_bf16(device) else 'float32'}. The run's `config.yaml` holds "
        "every setting.\n"
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


def _use(kind: str) -> str:
    words = (
        "`smar export RUN --format sentence-transformers --out FOLDER` writes this model as a folder that "
        "sentence-transformers reads.\n"
    )
    return f"""## Use

The classes come with the package `smar`; the folder holds no code.

```python
from smar.model.encoder import Encoder

encoder = Encoder.from_pretrained("this-folder")
vector = encoder.encode_query(["red dress"]).embedding
```

or, with transformers' own names,

```python
import smar.model.modeling  # makes the classes known
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("this-folder").eval()
processor = AutoProcessor.from_pretrained("this-folder")
ids = processor.query_ids(["red dress", "blue shoe"], model.config)  # normal form, prefix, length
batch = processor.tokenizer.pad({{"input_ids": ids}}, padding_side="right", return_tensors="pt")
vectors = model.encode_query_ids(batch["input_ids"], batch["attention_mask"]).embedding
```

{words if kind == "dpsr" else ""}"""
