"""Files, assignments and a dataset's own settings become one configuration, or a message that names the key."""

from pathlib import Path

import pytest
import yaml

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.core.settings import load_settings, save_settings

CONFIGS = Path(__file__).parents[1] / "configs"


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"no stemmer for 'klingon'; allowed: arabic, .*turkish.*, auto for a guess"):
        load_settings(None, ["data.language=klingon"])
    assert load_settings(None, ["data.language=german"]).data.language == "german"


def write(folder: Path, **sections: object) -> Path:
    path = folder / "shop.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


def prepared(**changes: object) -> dict[str, object]:
    return DataSettings.model_validate(changes).model_dump(mode="json")


def test_settings_survive_a_round_trip(tmp_path: Path) -> None:
    settings = load_settings(
        write(tmp_path, train={"stage1": {"steps": 7}}), ["train.seed=3", "data.text_fields=[title]"]
    )
    save_settings(settings, tmp_path / "copy.yaml")
    assert load_settings(tmp_path / "copy.yaml") == settings
    assert (settings.train.stage1.steps, settings.train.seed, settings.data.text_fields) == (7, 3, ("title",))


def test_a_partial_weight_keeps_the_others() -> None:
    weights = load_settings(None, ["train.stage1.weights.image=0.25"]).train.stage1.weights
    assert (weights.text, weights.image, weights.multimodal) == (1.0, 0.25, 1.0)


def test_the_datasets_settings_stand_and_a_file_may_repeat_them(tmp_path: Path) -> None:
    data = prepared(image_size=32, columns={"items": {"item_id": "sku"}})
    same = write(tmp_path, data={"image_size": 32, "columns": {"items": {"item_id": "sku"}}, "workers": 1})
    assert load_settings(same, data=data).data == load_settings(None, data=data).data
    assert load_settings(None, data=data).data.image_size == 32


def test_a_file_that_contradicts_the_dataset_is_refused_unless_overridden(tmp_path: Path) -> None:
    file = write(tmp_path, data={"image_size": 64})
    with pytest.raises(InputError, match=r"data\.image_size is 64, in the dataset 32"):
        load_settings(file, data=prepared(image_size=32))
    assert load_settings(file, ["data.image_size=32"], data=prepared(image_size=32)).data.image_size == 32


def test_baselines_survive_a_round_trip(tmp_path: Path) -> None:
    entries = "[{kind: dpsr}, {name: concat, model: {fusion: concat, vision: {hidden: 64}}, steps: [3, 1]}]"
    settings = load_settings(None, [f"train.baselines={entries}"])
    save_settings(settings, tmp_path / "copy.yaml")
    assert load_settings(tmp_path / "copy.yaml") == settings


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_example_configurations_are_valid(path: Path) -> None:
    assert load_settings(path) != load_settings()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.stage1.stepz=3", r"train\.stage1\.stepz"),
        ("data.image_size=big", r"data\.image_size"),
        ("model.vision={kind: vit, patch: 7}", "multiple"),
        ("model.text.layers=5", "share_text"),
        ("model.query.heads=5", "multiple of heads"),
        ("train.seed", "section.key=value"),
        ("model={fusion: gated, fusion_layers: 2}", "counts attention layers; gated has none"),
        ("model.vision.frozen=true", r"give pretrained.*train\.stage1\.freeze_image"),
        ("train.baselines=[{steps: [1, 1]}]", "needs a name"),
        ("train.baselines=[{kind: smar}]", "needs a name"),
        ("train.baselines=[{name: dpsr, model: {fusion: merge}}]", "another model dpsr"),
        ("train.baselines=[{name: multimodal, kind: dpsr}]", "another model multimodal"),
        ("train.baselines=[{name: ../x, kind: dpsr}]", r"baselines\.0\.name"),
        ("train.baselines=[{kind: dpsr}, {kind: dpsr, steps: [1, 1]}]", "two models are called dpsr"),
        ("model.kind=dpsr", r"two models are called dpsr.*train\.baselines=\[\]"),
        ("train.baselines=[{name: a, model: {kind: dpsr}}]", "kind beside name"),
        ("train.baselines=[{name: a, model: {fusio: both}}]", r"train\.baselines, a: model\.fusio: Extra"),
        ("train.baselines=[{name: a, model: {query: {layers: 5}}}]", "train.baselines, a: model: .*share_text"),
        ("train.baselines=[{name: a, model: {vision: {kind: vit, patch: 7}}}]", "train.baselines, a: .*multiple"),
        ("train.stage1.freeze_image=true", "random weights"),
        ("model.vision.stages=1", r"model\.vision\.stages"),
    ],
)
def test_wrong_settings_are_named(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_settings(None, [assignment])


def test_a_frozen_encoder_and_stage_0_contradict_each_other() -> None:
    pretrained = "model.vision.pretrained=folder"
    with pytest.raises(InputError, match=r"train\.stage0 trains the image encoder"):
        load_settings(None, [pretrained, "model.vision.frozen=true", "train.stage0.steps=5"])
    load_settings(None, [pretrained, "train.stage0.steps=5", "train.stage1.freeze_image=true"])
