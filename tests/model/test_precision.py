"""What encoding costs: no number format that the processor lacks, no padding of short texts to a batch's longest."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import SIDE, WORDS, checkpoint
from smar.core.settings import load_settings
from smar.model.device import CPU, knows_bf16
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.start import new_model

FLAGS = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not FLAGS.is_file(), reason="needs the flags of an x86 on Linux")
def test_bfloat16_is_taken_where_the_processor_has_instructions_for_it():
    flags = set(FLAGS.read_text().split())
    assert knows_bf16(CPU) == bool({"avx512_bf16", "amx_bf16"} & flags)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_texts_of_like_length_are_encoded_together_and_come_back_in_order(tmp_path, monkeypatch, name):
    folder = checkpoint(name, tmp_path)
    settings = load_settings(None, [f"model.pretrained={folder}", f"data.image_size={SIDE}", "train.baselines=[]"])
    processor = build_processor(settings.model, SIDE, [])
    encoder = Encoder(new_model(settings, settings.model, processor), processor)
    rng, words = np.random.default_rng(0), WORDS.split()
    texts = [" ".join(rng.choice(words, rng.integers(1, 8))) for _ in range(100)]
    places: list[int] = []
    encode = type(encoder.model.query_tower)._encode

    def counted(tower, ids, mask):
        places.append(ids.numel())
        return encode(tower, ids, mask)

    monkeypatch.setattr(type(encoder.model.query_tower), "_encode", counted)
    together, together_places = encoder.encode_queries(texts)[0], sum(places)
    items = encoder.encode_item([texts, texts, texts], np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(100, bool))
    few = [encoder.encode_query(texts[i : i + 10]).embedding for i in range(0, 100, 10)]
    assert np.abs(together - torch.cat(few).numpy()).max() < 1e-6
    alone = encoder.encode_item(
        [[text] for text in texts[7:8] * 3], np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(1, bool)
    )
    assert (items.multimodal[7] - alone.multimodal[0]).abs().max() < 1e-6
    if name == "clip":  # SigLIP's texts are all filled up to one length
        longest = max(map(len, processor.query_ids(texts, encoder.config)))
        assert together_places < 0.8 * longest * len(texts)
