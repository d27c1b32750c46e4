"""A small pair goes from `train` to `search`, and what cannot is refused before the first step."""

import pytest

from checkpoints import checkpoint
from tiny_line import found, prepare_shop, smar

SHORT = ["train.threads=1", "train.evaluate_steps=0", "train.baselines=[]", "model.dim=null"]
SIZES = [f"train.stage{stage}.{key}" for stage in (1, 2) for key in ("steps=1", "batch_size=16")]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop")
    assert prepare_shop(root, items=80, searches=600).code == 0
    return root


def train(shop, run, *assignments):
    sets = [word for text in (*SHORT, *SIZES, *assignments) for word in ("--set", text)]
    return smar("train", shop / "dataset", "--out", run, "--config", shop / "tiny.yaml", *sets)


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_a_pair_goes_from_train_to_search(shop, tmp_path, name):
    folder = checkpoint(name, tmp_path)
    done = train(shop, tmp_path / "run", f"model.pretrained={folder}", "model.text_length=100")
    assert done.code == 0, done.err
    assert "trying the line" in done.out + done.err
    assert f"(model.text_length is 100, the encoder has places for {77 if name == 'clip' else 16})" in " ".join(
        (done.out + done.err).split()
    )
    assert len(found(tmp_path / "run", shop / "dataset", tmp_path, "red dress")) == 3
    again = train(shop, tmp_path / "run", f"model.pretrained={folder}", "model.text_length=100")
    assert again.code == 0, again.err  # finished already


def test_what_would_fail_after_training_fails_before_it(shop, tmp_path):
    towers = [f"model.{tower}.pretrained={checkpoint('qwen3', tmp_path)}" for tower in ("query", "text")]
    refused = train(shop, tmp_path / "run", *towers, "model.pooling=cls")
    assert refused.code == 2
    assert refused.says("gives different texts the same vector", "model.pooling=own, last or mean")
    assert not (tmp_path / "run" / "stage1").exists()
