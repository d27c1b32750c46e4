"""Figures of the model worker, in the folder of Prometheus files that the query workers of its service expose."""

from prometheus_client import Counter, Gauge

from smar.serving.writer.compaction import CompactionState
from smar.serving.writer.queue import WriteCounts

EVERY_SECONDS = 1.0
CHANGES = Counter("smar_writer_changes", "Changes of items by what became of them", ["result"])
COMPACTIONS = Counter("smar_writer_compactions", "Compactions by how they ended", ["result"])
PENDING = Gauge("smar_writer_queue_depth", "Changes that wait in the model worker", multiprocess_mode="livemax")
CHANGED = Gauge("smar_writer_changed_items", "Items changed since the version was built", multiprocess_mode="livemax")
MEMORY = Gauge("smar_writer_resident_bytes", "Memory of the model worker", multiprocess_mode="livemax")


class Figures:
    """Tells the counters what has been added since the last time."""

    def __init__(self) -> None:
        self._told: dict[tuple[Counter, str], int] = {}

    def tell(
        self, written: WriteCounts, compaction: CompactionState, pending: int, changed: int, resident: int | None
    ) -> None:
        """Everything as it is now; `resident` in bytes, None where the system does not say."""
        self._add(
            CHANGES, written=written.items, patched=written.patched, deleted=written.deleted, failed=written.failed
        )
        self._add(COMPACTIONS, done=compaction.done, failed=compaction.failed)
        PENDING.set(pending)
        CHANGED.set(changed)
        MEMORY.set(resident or 0)

    def _add(self, counter: Counter, **totals: int) -> None:
        for result, total in totals.items():
            counter.labels(result).inc(total - self._told.get((counter, result), 0))
            self._told[counter, result] = total
