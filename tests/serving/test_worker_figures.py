"""The figures of several workers, whose files the library reads while they are written."""

from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from smar.serving import prometheus


def test_a_worker_that_starts_does_not_fail_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    begun = tmp_path / "counter_1.db"
    begun.touch()  # as the library makes it, before it gives it a size

    def goes_on(seconds: float) -> None:
        written = MmapedDict(str(begun))
        written.write_value(mmap_key("smar_started", "smar_started_total", [], [], "help"), 3.0, 0.0)
        written.close()

    monkeypatch.setattr(prometheus.time, "sleep", goes_on)
    assert b"smar_started_total 3.0" in prometheus.exposition()
