"""`smar train`: a model and its baselines, stage by stage, each stage resumable.

RUN/config.yaml, manifest.json     the complete configuration; the dataset it belongs to
RUN/processor/                     tokenizer and image processor, fitted once
RUN/stage1/, RUN/stage2/           finished stages: model, processor, manifest.json; checkpoints while under way
RUN/baselines/<kind>/stage1, ...   the same for each baseline
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from smar.data.dataset import Dataset
from smar.errors import InputError
from smar.model.encoder import Encoder
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.quiet import quiet
from smar.model.run import CONFIG_FILE, RunManifest, StageRecord, run_settings
from smar.progress import console
from smar.settings import Settings, StageSettings, save_settings
from smar.training.batches import Collator
from smar.training.checkpoints import StageCallback, latest
from smar.training.gate import finish_gate, training_shares
from smar.training.setup import TrainingData, new_model, new_processor
from smar.training.stages import Job, jobs
from smar.training.trainer import SmarTrainer


@dataclass(frozen=True)
class TrainSummary:
    """What `train` did: a record for every stage of every model."""

    stages: tuple[StageRecord, ...]


def train(dataset: Dataset, run: Path, settings: Settings) -> TrainSummary:
    """Train everything `settings` asks for into `run`, or finish a run that was interrupted.

    Raises:
        InputError: `run` belongs to another dataset or configuration, or a checkpoint is damaged.
    """
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    open_run(dataset, run, settings)
    fold = settings.train.gate.holdout
    data = TrainingData.from_dataset(dataset, settings.data.text_fields, fold, settings.train.seed)
    processor = _run_processor(run, settings, data)
    records = []
    with quiet():
        for job in jobs(settings, run):
            records += _train_job(job, settings, data, processor)
    return TrainSummary(tuple(records))


def open_run(dataset: Dataset, run: Path, settings: Settings) -> None:
    """Start `run`, or check that it is the same run as before."""
    manifest = RunManifest(dataset=dataset.digest)
    run.mkdir(parents=True, exist_ok=True)
    if {file.name for file in run.iterdir()} <= {CONFIG_FILE, "manifest.json.partial"}:
        save_settings(settings, run / CONFIG_FILE)
        manifest.write(run)
        return
    if RunManifest.read(run, "smar train").dataset != manifest.dataset:
        raise InputError(f"{run} was trained on another dataset than {dataset.path}: choose another --out.")
    before, now = (s.model_dump(include={"data", "model", "train"}) for s in (run_settings(run), settings))
    changed = _changes(before, now)
    if changed:
        raise InputError(f"{run} was started with another configuration ({', '.join(changed)}): choose another --out.")


def _changes(before: dict[str, object], now: dict[str, object], prefix: str = "") -> list[str]:
    """Names of the settings that differ."""
    out: list[str] = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            out += _changes(old, value, f"{prefix}{key}.")
        elif value != old:
            out.append(f"{prefix}{key}: {old!r} then, {value!r} now")
    return out


def _run_processor(run: Path, settings: Settings, data: TrainingData) -> SmarProcessor:
    folder = run / "processor"
    if not folder.is_dir():
        partial = run / "processor.partial"
        new_processor(settings, data).save_pretrained(partial)
        partial.replace(folder)
    processor: SmarProcessor = SmarProcessor.from_pretrained(folder)
    return processor


def _train_job(job: Job, settings: Settings, data: TrainingData, processor: SmarProcessor) -> list[StageRecord]:
    collator = data.collator(processor, job.model)
    records, start = [], None
    for name, stage in job.stages.items():
        folder = job.folder / name
        if (folder / "manifest.json").is_file():
            records.append(StageRecord.read(folder, "smar train"))
        else:
            torch.manual_seed(settings.train.seed)
            model = new_model(settings, job.model, processor) if start is None else Encoder.from_pretrained(start).model
            if job.kind == "smar" and name == "stage2":
                encoder = Encoder(model, processor, bf16=settings.train.bf16)
                collator = replace(collator, share=training_shares(encoder, data, settings))
            records.append(_train_stage(job, name, stage, model, collator, settings, processor, data))
        start = folder
    return records


def _train_stage(
    job: Job,
    name: str,
    stage: StageSettings,
    model: SmarModel,
    collator: Collator,
    settings: Settings,
    processor: SmarProcessor,
    data: TrainingData,
) -> StageRecord:
    folder = job.folder / name
    resume = latest(folder) if folder.is_dir() else None
    if resume:
        console.print(f"{job.kind} {name}: going on from {resume[0].name}")
    clock = StageCallback(f"{job.kind} {name}", resume[1] if resume else 0.0)
    arguments = _arguments(stage, folder, settings, len(collator.rows))
    trainer = SmarTrainer(
        weights=stage.weights,
        processor=processor,
        model=model.train(),
        args=arguments,
        train_dataset=collator.rows.tolist(),
        data_collator=collator,
        callbacks=[clock],
        optimizers=(optimizer(model, job, stage), None),
    )
    trainer.remove_callback(PrinterCallback)
    if stage.steps:
        trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    pairs = stage.steps * arguments.per_device_train_batch_size
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    record = StageRecord(
        kind=job.kind,
        stage=name,
        steps=stage.steps,
        pairs=pairs,
        seconds=clock.seconds if stage.steps else 0.0,
        loss=losses[-1] if losses else None,
    )
    if job.kind == "smar" and name == "stage2":
        finish_gate(Encoder(model, processor, bf16=settings.train.bf16), data, settings, folder)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    record.write(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return record


def _arguments(stage: StageSettings, folder: Path, settings: Settings, pairs: int) -> TrainingArguments:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs")
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=max(stage.steps, 1),
        per_device_train_batch_size=min(stage.batch_size, pairs),
        dataloader_drop_last=True,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=1.0,
        bf16=settings.train.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=settings.train.seed,
        save_strategy="steps",
        save_steps=settings.train.save_steps,
        save_total_limit=2,
        logging_steps=20,
        report_to=["tensorboard"],
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
    )


def optimizer(model: SmarModel, job: Job, stage: StageSettings) -> torch.optim.AdamW:
    """Fused AdamW: towers that start from pretrained weights have their own rate; vectors and norms do not decay."""
    slow = tuple(f"{name}.encoder." for name, tower in job.model.towers.items() if tower.pretrained)
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = stage.pretrained_learning_rate if name.startswith(slow) else stage.learning_rate
            decay = stage.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    parameters = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    return torch.optim.AdamW(parameters, fused=True)
