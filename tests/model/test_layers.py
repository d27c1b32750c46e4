"""What is trained of a pretrained encoder: its last layers, adapters, at rates that fall towards the first layer."""

from pathlib import Path

import pytest
import torch

from checkpoints import SIDE, TEXTS, VISIONS, checkpoint
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.model.layers import add_adapters, checkpoint_activations, depths, layers_of, merge_adapters
from smar.model.pretrained import load_parts
from smar.model.processing import build_processor
from smar.model.start import freeze, new_model
from smar.training.jobs import jobs
from smar.training.rates import optimizer


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def pair(root, *assignments):
    folder = checkpoint("clip", root)
    settings = load_settings(None, [f"model.pretrained={folder}", f"data.image_size={SIDE}", *assignments])
    model = new_model(settings, settings.model, build_processor(settings.model, SIDE, []))
    freeze(model, settings.model)
    return model, settings


def encoder_of(root, name):
    towers = ("vision",) if name in VISIONS else ("query", "text")
    chosen = [f"model.{tower}.pretrained={checkpoint(name, root)}" for tower in towers]
    settings = load_settings(None, [*chosen, f"data.image_size={SIDE}"])
    return next(iter(load_parts(settings.model, SIDE).values())).encoder


@pytest.mark.parametrize("name", ["minilm", "qwen3", "t5", "deberta-v2", "siglip-vision", "dinov3"])
def test_layers_are_found_in_any_encoder(root, name):
    encoder = encoder_of(root, name)
    assert len(layers_of(encoder)) == 2
    found = depths(encoder)
    assert set(found) == set(encoder.parameters())
    assert sorted(set(found.values()))[:3] == [0, 1, 2]


def test_only_the_last_layers_train(root):
    model, _ = pair(root, *(f"model.{tower}.unfreeze_last=1" for tower in ("query", "text", "vision")))
    trained = {name for name, p in model.query_tower.encoder.named_parameters() if p.requires_grad}
    assert {name.rpartition(".")[0] for name in trained if "layers" not in name} == {"final_layer_norm"}
    assert {name.split(".")[2] for name in trained if "layers" in name} == {"1"}
    assert model.query_tower.projection.weight.requires_grad
    with pytest.raises(InputError, match=r"model.vision.unfreeze_last is 3, and the encoder has 2 layers"):
        pair(root, "model.vision.unfreeze_last=3")


def test_rates_fall_towards_the_first_layer_and_an_own_projection_is_pretrained(root):
    decay = [f"model.{tower}.layer_decay=0.5" for tower in ("query", "text")]
    model, settings = pair(root, *decay)
    job = jobs(settings, Path("run"))[0]
    groups = optimizer(model, job, job.stages["stage1"]).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    encoder, gentle, fresh = model.query_tower.encoder, 5e-5, 6e-4
    assert rate[id(encoder.final_layer_norm.weight)] == gentle
    assert rate[id(encoder.encoder.layers[1].mlp.fc1.weight)] == gentle / 2
    assert rate[id(encoder.encoder.layers[0].mlp.fc1.weight)] == gentle / 4
    assert rate[id(encoder.embeddings.token_embedding.weight)] == gentle / 8
    assert rate[id(model.image_tower.encoder.encoder.layers[0].mlp.fc1.weight)] == gentle
    assert rate[id(model.query_tower.projection.weight)] == gentle
    assert rate[id(model.multimodal_projection.weight)] == fresh


@pytest.mark.parametrize("name", ["minilm", "qwen3", "t5", "siglip-vision"])
def test_merged_adapters_give_the_same_states_as_beside_the_weights(root, name):
    pytest.importorskip("peft", reason="test extra peft is not installed")
    encoder = encoder_of(root, name)
    given = (
        {"input_ids": torch.tensor([[5, 6, 7]])} if name in TEXTS else {"pixel_values": torch.rand(1, 3, SIDE, SIDE)}
    )
    names, before = set(encoder.state_dict()), encoder(**given).last_hidden_state
    add_adapters(encoder, 2, "model.query")
    assert torch.equal(encoder(**given).last_hidden_state, before)  # they begin as nothing
    for key, parameter in encoder.named_parameters():
        assert parameter.requires_grad == ("lora_" in key)
        if "lora_B" in key:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        beside = encoder(**given).last_hidden_state
        merge_adapters(encoder)
        merged = encoder(**given).last_hidden_state
    assert not torch.allclose(beside, before, atol=1e-2)
    assert torch.allclose(beside, merged, atol=1e-4, rtol=1e-4)
    assert set(encoder.state_dict()) == names


def test_checkpointed_activations_give_the_same_gradient(root):
    encoder = encoder_of(root, "minilm").train()
    ids = torch.tensor([[5, 6, 7, 8]])
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder(input_ids=ids).last_hidden_state.square().sum().backward()
        found.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
        encoder.zero_grad()
        checkpoint_activations([encoder])
    assert encoder.is_gradient_checkpointing
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-6) for name in found[0])


def test_one_way_to_train_a_part_at_a_time(root):
    with pytest.raises(InputError, match="give one of them"):
        pair(root, "model.vision.lora=2", "model.vision.unfreeze_last=1")
    with pytest.raises(InputError, match="and pretrained"):
        load_settings(None, ["model.vision.lora=2"])
