"""A saved stage is a folder as model hubs know it."""

import subprocess
import sys

import numpy as np
import pytest
import yaml

from smar.model.encoder import Encoder
from smar.model.run import StageRecord
from tiny_line import Line

QUERIES = ["red dress", "striped sweater"]
LOAD = """
import sys
import numpy as np
import torch
from transformers import AutoModel
import smar.model.modeling
from smar.model.encoder import Encoder
folder, out, queries = sys.argv[1], sys.argv[2], sys.argv[3:]
encoder = Encoder.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()
ids, mask = encoder._pad(encoder.processor.token_ids(queries, model.config.query_length))
pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
with torch.inference_mode():
    query = model.encode_query_ids(ids, mask)
    item = model.encode_item_ids(ids[:1], mask[:1], pixels, torch.tensor([True]))
print(type(model).__name__)
np.savez(out, own=encoder.encode_query(queries).embedding, auto=query.embedding, p=query.image_probability,
         multimodal=item.multimodal, text=item.text, image=item.image)
"""


def test_a_fresh_process_gives_the_same_vectors(line: Line, tmp_path):
    import torch

    folder, out = line.run / "stage2", tmp_path / "vectors.npz"
    words = [sys.executable, "-c", LOAD, str(folder), str(out), *QUERIES]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.split() == ["SmarModel"]
    fresh, encoder = np.load(out), Encoder.from_pretrained(folder)
    ids, mask = encoder._pad(encoder.processor.token_ids(QUERIES, encoder.config.query_length))
    query = encoder.encode_query(QUERIES)
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        item = encoder.model.encode_item_ids(ids[:1], mask[:1], pixels, torch.tensor([True]))
    assert np.abs(fresh["own"] - query.embedding.numpy()).max() < 1e-6
    assert np.abs(fresh["auto"] - query.embedding.numpy()).max() < 1e-6
    assert np.abs(fresh["p"] - query.image_probability.numpy()).max() < 1e-6
    for name in ("text", "image", "multimodal"):
        assert np.abs(fresh[name] - getattr(item, name).numpy()).max() < 1e-6


@pytest.mark.parametrize("stage", ["stage1", "stage2", "baselines/dpsr/stage2"])
def test_card_says_what_the_run_knows(line: Line, stage):
    card = (line.run / stage / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    tags = yaml.safe_load(front)
    assert tags["library_name"] == "transformers"
    assert tags["pipeline_tag"] == "feature-extraction"
    assert {"license", "tags"} <= tags.keys()
    record = StageRecord.read(line.run / stage, "smar train")
    assert record.kind in tags["tags"]
    for part in ("## Data", "## Training", "## Metrics", "## Limits", "## Use"):
        assert part in body
    assert f"R@50 on validation clicks: {record.validated.recall:.3f} after step {record.validated.step:,}" in body
    assert f"{record.steps:,} steps, {record.pairs:,} pairs" in body
    assert "300 items" in body
    assert record.cpu_seconds > 0
    assert record.pairs_per_second == pytest.approx(record.pairs / record.seconds)
