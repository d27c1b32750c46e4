"""`smar train`: a model and its baselines, stage by stage, each stage resumable.

Stage 0, if asked for, trains the image tower alone (`smar.training.word_bags`). Where a stage freezes the image
encoder, the patch states of all pictures are made once and take the pictures' place (`smar.training.patches`).

RUN/config.yaml, manifest.json     the complete configuration; the dataset it belongs to
RUN/processor/                     tokenizer and image processor, fitted once, shared by all that need an equal one
RUN/stage0/, stage1/, stage2/      finished stages: model, processor, manifest.json; checkpoints while under way
RUN/baselines/<name>/stage1, ...   the same for each baseline; processor/ where it has other tokens or pictures
"""

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.overrides import differences
from smar.core.processes import Heap, PeakMemory
from smar.core.progress import console
from smar.core.sections.training import Schedule
from smar.core.settings import Settings, save_settings
from smar.data.dataset import Dataset
from smar.export.check import try_line
from smar.model.bag import bags, weigh
from smar.model.configuration import SmarConfig
from smar.model.device import knows_bf16, pick_device, precision
from smar.model.encoder import Encoder
from smar.model.layers import merge_adapters
from smar.model.modeling import SmarModel
from smar.model.picture_batches import AHEAD, readers_beside
from smar.model.processing import SmarProcessor, processor_parts
from smar.model.quiet import quiet
from smar.model.run_folder import CONFIG_FILE, Parent, RunManifest, StageRecord, run_settings
from smar.model.seen import SEEN_FILE, Seen
from smar.model.start import new_model, start_digest, start_notes
from smar.training.batches import Collator
from smar.training.callbacks import Callback, check_callbacks, of_stage
from smar.training.card import write_card
from smar.training.checkpoints import Spent, StageCallback, latest
from smar.training.distributed import barrier, check_shared, in_turn, largest, processes, rank, world
from smar.training.gate_fit import finish_gate
from smar.training.jobs import Job, jobs
from smar.training.rates import optimizer
from smar.training.setup import TrainingData, new_processor
from smar.training.validation import BEST_FILE
from smar.training.warm_start import WarmStart
from smar.training.word_bags import WordCollator
from smar.training.workshop import Workshop


@dataclass(frozen=True)
class TrainSummary:
    """What `train` did: a record for every stage of every model, and (model, note) of pretrained starts.

    `peak_bytes` is the most memory that a process held, mapped files left out (`PeakMemory`); of a GPU
    what `notes` say.
    """

    stages: tuple[StageRecord, ...]
    notes: tuple[tuple[str, str], ...] = ()
    peak_bytes: int = 0

    def rows(self) -> list[tuple[str, object]]:
        """Names and values to show to the user."""
        rows: list[tuple[str, object]] = [*self.notes]
        for stage in self.stages:
            speed = f"{stage.pairs / stage.seconds:,.0f} pairs/s" if stage.seconds else "no steps"
            loss = f", loss {stage.loss:.3f}" if stage.loss is not None else ""
            if (seen := stage.validated) is not None:
                loss += f", validation R@{seen.k} {seen.recall:.3f} at step {seen.step:,}"
            told = f"{stage.steps:,} steps, {stage.seconds:,.0f} s, {speed}{loss}"
            rows.append((f"{stage.kind} {stage.stage}", told))
        return [*rows, ("peak memory", f"{self.peak_bytes / 1e6:,.0f} MB, mapped files left out")]


def train(
    dataset: Dataset,
    run: StrPath,
    settings: Settings,
    source: StrPath | None = None,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
) -> TrainSummary:
    """Train everything `settings` asks for into `run`, or finish a run that was interrupted.

    Args:
        dataset: what to train on.
        run: folder of the run.
        settings: all; with `source` those of `smar.training.warm_start.warm_settings`, or what fits its weights.
        source: a finished run whose models are where these begin.
        device: `auto`, `cpu` or `cuda`; no part of the run, which may go on elsewhere.
        callbacks: of every stage that is trained now, after our own.

    Raises:
        InputError: `run` belongs to another dataset or configuration, a checkpoint is damaged, or the settings or the
            dataset do not fit the models of `source`.
    """
    run = Path(run)
    check_callbacks(callbacks)
    if source is not None and Path(source).resolve() == run.resolve():
        raise InputError(f"--from {source} is the run itself: a warm start is a run of its own, name another --out.")
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    chosen = pick_device(device)
    with PeakMemory() as peak, processes(chosen), quiet():
        check_shared(run)
        warm = None if source is None else WarmStart.open(source)
        if warm is not None:
            warm.check(dataset, settings, jobs(settings, run))
        in_turn(lambda: open_run(dataset, run, settings, None if warm is None else warm.parent))
        fold, before = settings.train.gate.fold, Seen() if warm is None else warm.known
        data = TrainingData.from_dataset(dataset, settings.data.text_fields, fold, settings.train.seed, before)
        planned = in_turn(lambda: [(job, _processor(run, job, settings, data, warm)) for job in jobs(settings, run)])
        in_turn(lambda: _remember(run, data))
        records = []
        configs = in_turn(lambda: [_tried(job, processor, data, warm) for job, processor in planned])
        for (job, processor), config in zip(planned, configs, strict=True):
            pairs = data.collator(processor, config, own=job.folder == run)
            records += _train_job(Workshop(job, run, data, processor, pairs, chosen, tuple(callbacks)), warm)
        notes = [("runs in", precision(chosen, settings.train.bf16))]
        notes += [
            (f"{job.name} starts with", note)
            for (job, processor), config in zip(planned, configs, strict=True)
            for note in start_notes(job.model, config, settings.data)
        ]
        if warm is not None:
            notes = notes[:1] + list(warm.notes(data, settings, planned[0][1]))
        if chosen.type == "cuda":
            notes.append(("peak memory of the GPU", f"{torch.cuda.max_memory_allocated(chosen) / 1e6:,.0f} MB"))
        most = largest(peak.bytes)
    return TrainSummary(tuple(records), tuple(notes), most)


def _remember(run: Path, data: TrainingData) -> None:
    if not (run / SEEN_FILE).is_file():
        data.seen().write(run)


def _fresh(job: Job, processor: SmarProcessor, warm: WarmStart | None) -> SmarModel:
    """The model that a job's first stage begins with."""
    torch.manual_seed(job.settings.train.seed)
    return new_model(job.settings, job.model, processor) if warm is None else warm.model(job, processor)


def _tried(job: Job, processor: SmarProcessor, data: TrainingData, warm: WarmStart | None) -> SmarConfig:
    """Configuration of a job's model; what starts from pretrained weights is tried from encoding to export first."""
    first = job.folder / next(iter(job.stages))
    if (first / "manifest.json").is_file():
        saved: SmarConfig = SmarConfig.from_pretrained(first)
        return saved
    model = _fresh(job, processor, warm)
    if any(tower.pretrained for tower in job.model.towers.values()):
        console.print(f"{job.name}: trying the line from the first batch to the exported query tower")
        try_line(Encoder(model, processor, bf16=job.settings.train.bf16), data.dataset, data.queries)
    config: SmarConfig = model.config
    return config


def open_run(dataset: Dataset, run: Path, settings: Settings, parent: Parent | None = None) -> None:
    """Start `run`, or check that it is the same run as before."""
    pictures = dataset.manifest.counts["images_packed"]
    manifest = RunManifest(dataset=dataset.digest, pictures=pictures, parent=parent)
    run.mkdir(parents=True, exist_ok=True)
    if {file.name for file in run.iterdir()} <= {CONFIG_FILE, "manifest.json.partial"}:
        save_settings(settings, run / CONFIG_FILE)
        manifest.write(run)
        return
    begun = RunManifest.read(run, "smar train")
    if begun.dataset != manifest.dataset:
        raise InputError(f"{run} was trained on another dataset than {dataset.path}: choose another --out.")
    if begun.parent != parent:
        names = [f"{of.name} (model {of.fingerprint})" if of else "nothing" for of in (begun.parent, parent)]
        raise InputError(
            f"{run} began from {names[0]}, now it is to begin from {names[1]}: give the same --from, or another --out."
        )
    before, now = (s.model_dump(include={"data", "model", "train"}) for s in (run_settings(run), settings))
    if changed := differences(before, now):
        raise InputError(
            f"{run} was started with another configuration ({', '.join(changed.values())}): choose another --out."
        )


def _processor(run: Path, job: Job, settings: Settings, data: TrainingData, warm: WarmStart | None) -> SmarProcessor:
    """The run's processor, or a baseline's own; made before any training, so that a wrong path is told at once."""
    shared = processor_parts(job.model) == processor_parts(settings.model)
    folder = (run if shared else job.folder) / "processor"
    if not folder.is_dir():
        partial = folder.with_name("processor.partial")
        made = new_processor(settings, data, job.model) if warm is None else warm.processor(job, data)
        made.save_pretrained(partial)
        partial.replace(folder)
    processor: SmarProcessor = SmarProcessor.from_pretrained(folder)
    return processor


def _train_job(workshop: Workshop, warm: WarmStart | None) -> list[StageRecord]:
    job = workshop.job
    records: list[StageRecord] = []
    start: Path | None = None
    for name in job.stages:
        folder = job.folder / name
        if (folder / "manifest.json").is_file():
            records.append(StageRecord.read(folder, "smar train"))
        else:
            torch.manual_seed(job.settings.train.seed)
            model = _fresh(job, workshop.processor, warm) if start is None else Encoder.from_pretrained(start).model
            before = start_digest(model, job.model) if start is None and warm is None else None
            if start is None and warm is None:
                for bag in bags(model):
                    weigh(bag, workshop.pairs.items)
            model = model.to(workshop.device)
            records.append(_train_stage(workshop, name, model, before))
        barrier()
        start = folder
    return records


def _train_stage(workshop: Workshop, name: str, model: SmarModel, start: str | None) -> StageRecord:
    job, settings = workshop.job, workshop.settings
    stage, folder, label = job.stages[name], job.folder / name, f"{job.name} {name}"
    resume = in_turn(lambda: latest(folder) if folder.is_dir() else None)
    if resume:
        console.print(f"{label}: going on from {resume[0].name}")
    spent, started, cpu = resume[1] if resume else Spent(), time.perf_counter(), time.process_time()
    examples = workshop.examples(name, model)
    # patch states are a part of what the stage costs
    spent = Spent(spent.seconds + time.perf_counter() - started, spent.cpu_seconds + time.process_time() - cpu)
    count = len(examples.items if isinstance(examples, WordCollator) else examples.rows)
    arguments = _arguments(stage, folder, settings, count, workshop.device, _picture_bytes(examples))
    clock, board = StageCallback(label, spent), TensorBoardCallback()  # which reads its folder from the environment
    validation = workshop.validation(name, board)
    if resume and validation:
        validation.resume(resume[0])
    trainer = workshop.trainer(
        name,
        model,
        examples,
        args=arguments,
        callbacks=[
            *(board, *([validation] if validation else []), clock),
            *of_stage(workshop.callbacks, job.name, name),
        ],
    )
    trainer.optimizer = optimizer(trainer.model, job, stage)
    trainer.remove_callback(PrinterCallback)
    if stage.steps:
        trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
        Heap().trim()  # what the steps left, before the gate's fits take theirs
    validated = validation.finish(model) if validation else None
    merge_adapters(model)
    if name == "stage2" and job.folder == workshop.run and rank() == 0:
        finish_gate(Encoder(model, workshop.processor, bf16=settings.train.bf16), workshop.data, settings, folder)
    steps, spent = trainer.state.global_step, clock.spent() if stage.steps else Spent()
    pairs = steps * arguments.per_device_train_batch_size * world()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    record = StageRecord(
        kind=job.name,
        stage=name,
        steps=steps,
        pairs=pairs,
        seconds=spent.seconds,
        loss=losses[-1] if losses else None,
        cpu_seconds=spent.cpu_seconds,
        pairs_per_second=pairs / spent.seconds if spent.seconds else None,
        processes=world(),
        validated=validated,
        start=start,
    )
    if rank() == 0:
        _save_stage(workshop, folder, model, record)
    return record


def _save_stage(workshop: Workshop, folder: Path, model: SmarModel, record: StageRecord) -> None:
    """The finished stage, its manifest last; what only an unfinished stage needs goes."""
    vars(model.config).pop("use_cache", None)  # the Trainer's, lost by a copy, which would get another fingerprint
    model.save_pretrained(folder)
    workshop.processor.save_pretrained(folder)
    with torch.no_grad():
        parent = RunManifest.read(workshop.run, "smar train").parent
        write_card(
            folder, record, workshop.data, workshop.settings, float(model.temperature()), parent, workshop.device
        )
    record.write(folder)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    (folder / BEST_FILE).unlink(missing_ok=True)


def _picture_bytes(examples: Collator | WordCollator) -> int:
    """Of one picture, or its patch states."""
    return 0 if examples.images is None or not len(examples.images) else examples.images[0].nbytes


def _arguments(
    stage: Schedule, folder: Path, settings: Settings, pairs: int, device: torch.device, picture_bytes: int = 0
) -> TrainingArguments:
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / "logs")
    if pairs < 2 * world():
        raise InputError(f"{pairs} training pairs are too few for {world()} processes: each needs two in a batch.")
    on_cpu = device.type == "cpu"
    # several processes make every batch of the pairs of all of them, which a reader does not know
    readers = readers_beside(device, stage.steps, stage.batch_size * picture_bytes) if world() == 1 else 0
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=max(stage.steps, 1),
        per_device_train_batch_size=min(stage.batch_size, pairs // world()),
        dataloader_drop_last=True,
        dataloader_num_workers=readers,
        dataloader_prefetch_factor=AHEAD if readers else None,
        learning_rate=stage.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(stage.warmup * stage.steps),
        max_grad_norm=1.0,
        bf16=settings.train.bf16 and knows_bf16(device),
        use_cpu=on_cpu,
        ddp_backend="gloo" if on_cpu and world() > 1 else None,
        seed=settings.train.seed,
        save_strategy="steps",
        save_steps=settings.train.save_steps,
        save_total_limit=2,
        logging_steps=min(20, max(stage.steps, 1)),
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=[],
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process would split its batch over all cards by itself
    return arguments
