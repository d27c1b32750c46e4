"""The real catalogue with its simulated log, where it is at hand: the log in full, pictures of a few items."""

from datetime import date
from pathlib import Path

import duckdb
import pytest
from shop_tables import read

from smar.core.sections.data import DataSettings
from smar.data.dataset import Dataset
from smar.data.prepare import prepare

MYNTRA = Path(__file__).parents[3] / "shared/data/myntra"
SETTINGS = DataSettings(slice_columns=("master_category",), drop_columns=("group",), image_fit="squash")


@pytest.mark.real
@pytest.mark.skipif(not MYNTRA.is_dir(), reason="the real catalogue (../shared/data/myntra) is not here")
def test_real_catalogue(tmp_path: Path) -> None:
    few = []
    for name in ("images-224", "images-60x80"):
        few.append(str(tmp_path / f"{name}.parquet"))
        duckdb.execute(f"COPY (SELECT * FROM '{MYNTRA / name}.parquet' LIMIT 150) TO '{few[-1]}'")
    paths = [[str(MYNTRA / f"{name}.parquet")] for name in ("items", "clicks", "queries")]
    summary = prepare(SETTINGS, paths[0], paths[1], few, paths[2], date(2026, 9, 27), tmp_path / "out")
    counts = summary.counts
    assert (counts["items"], counts["log_rows"], counts["clicks"]) == (44_072, 1_485_273, 231_005)
    assert (counts["clicks_test"], counts["queries"], counts["rejects"]) == (11_531, 19_757, 0)
    assert len({row["query"] for row in read(tmp_path, "qrels.parquet")}) == 3_054
    assert summary.image_status["ok"] == 300
    assert Dataset.open(tmp_path / "out").images.shape == (300, 64, 64, 3)
