import json
import subprocess
import sys
from pathlib import Path

import pytest
from shop_tables import items, log, picture, run

from smar.core.errors import InputError
from smar.core.files import sha256
from smar.data.dataset import Dataset


def test_reader(tmp_path: Path) -> None:
    rows = [
        {**row, "brand": brand, "tags": ["a", "b"]} for row, brand in zip(items(), ["x", None, "", "y"], strict=True)
    ]
    run(tmp_path, rows, log(), queries=[{"query": "hat", "needs_image": 1.0}])
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.fields(("brand", "tags")) == [["x", "", "", "y"], ["a b"] * 4]
    assert dataset.pairs("train").num_rows == dataset.manifest.counts["pairs_train"]
    assert dataset.qrels().column_names == ["query", "item_id", "relevance"]
    queries = dataset.queries()
    assert queries is not None
    assert queries.to_pylist() == [{"query": "hat", "needs_image": 1.0}]
    assert dataset.rejects().num_rows == 0
    assert dataset.manifest.image_size == 16
    with pytest.raises(InputError, match="an item column is 'colour'; allowed: brand"):
        dataset.fields(["colour"])


def test_manifest_lists_every_file_with_its_checksum(tmp_path: Path) -> None:
    run(tmp_path, items(), log())
    out = tmp_path / "out"
    manifest = Dataset.open(out).manifest
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {"manifest.json"}
    assert set(manifest.files) == files
    assert all(entry.sha256 == sha256(out / name) for name, entry in manifest.files.items())
    assert Dataset.open(out).queries() is None
    first = (out / "manifest.json").read_bytes()
    run(tmp_path, items(), log())
    assert (out / "manifest.json").read_bytes() == first


def test_damaged_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="was not made by `smar prepare`"):
        Dataset.open(tmp_path)
    run(tmp_path, items(), log())
    out = tmp_path / "out"
    with (out / "pairs/train.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"train.parquet has .* bytes instead of"):
        Dataset.open(out)
    (out / "pairs/train.parquet").unlink()
    with pytest.raises(InputError, match=r"train.parquet is missing"):
        Dataset.open(out)
    (out / "manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="is not a manifest"):
        Dataset.open(out)


def test_a_dataset_is_replaced_and_anything_else_left_alone(tmp_path: Path) -> None:
    run(tmp_path, items(), log())
    run(tmp_path, items(6), log())
    assert Dataset.open(tmp_path / "out").items.num_rows == 6
    with pytest.raises(InputError):
        run(tmp_path, items(), [])
    assert Dataset.open(tmp_path / "out").items.num_rows == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.parquet", "items.parquet", "out"]
    other = tmp_path / "other"
    (other / "out").mkdir(parents=True)
    (other / "out/precious.txt").write_text("keep")
    with pytest.raises(InputError, match="is no smar dataset; it is left alone"):
        run(other, items(), log())
    assert (other / "out/precious.txt").read_text() == "keep"


def test_a_stale_partial_folder_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "out.partial/work").mkdir(parents=True)
    (tmp_path / "out.partial/work/left-over").write_text("x")
    summary = run(tmp_path, [{**row, "image": picture()} for row in items()], log())
    assert not (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out/work").exists()
    lines = dict(summary.rows())
    assert lines["items"] == 4
    assert lines["items with picture ok"] == 4
    assert lines["seconds for pairs"] == summary.seconds["pairs"]


def test_data_imports_without_torch() -> None:
    code = "import smar.data.prepare, smar.data.dataset, sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
