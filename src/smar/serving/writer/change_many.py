"""Many changes in one request: JSON lines in, a result a line out."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from smar.serving.writer.encode_item import Kept, Prepared
from smar.serving.writer.item_check import RefusedItem
from smar.serving.writer.service import ModelWorker
from smar.serving.writer.upload import Upload, json_object, upload_of

Action = Literal["put", "patch", "delete"]
Described = Callable[[Exception], tuple[int, dict[str, Any]]]


class UnknownItem(RefusedItem):
    """There is no item of that id."""

    def __init__(self, item_id: str) -> None:
        super().__init__("unknown_item", f"there is no item {item_id[:100]!r} in this index.")


async def change_all(
    worker: ModelWorker, action: Action, lines: Sequence[bytes], first: int, described: Described
) -> list[dict[str, Any]]:
    """Make the changes of some lines, those of one item in their order; returns once all are durable or refused.

    A line is an item as PUT takes it with its `item_id` (put), an `item_id` and the columns to change (patch), or an
    `item_id` (delete). `first` is the number of the first line; blank lines count, and have no result. A result has
    `line`, `item_id`, `status` and what the request of this one change would answer; `described` gives status and
    error of a failure.
    """
    numbers = [number for number, line in enumerate(lines, start=first) if line.strip()]
    checked = await worker.changes.do(lambda _: [_checked(worker, action, line) for line in lines if line.strip()])
    tasks = []
    for item_id, change in checked:
        if isinstance(change, Upload):  # decoded before what follows, which may be of the same item
            change = await _decoded(worker, str(item_id), change)
        tasks.append(asyncio.create_task(_changed(worker, action, str(item_id), change)))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    results = []
    for number, (item_id, _), outcome in zip(numbers, checked, outcomes, strict=True):
        if isinstance(outcome, dict):
            status, body = 200, outcome
        elif isinstance(outcome, Exception):
            status, body = described(outcome)
        else:
            raise outcome
        results.append({"line": number, "item_id": item_id, "status": status} | body)
    return results


Checked = tuple[str | None, "Prepared | Kept | Upload | Exception | None"]


def _checked(worker: ModelWorker, action: Action, line: bytes) -> Checked:
    """The item's id and what is to become of it; an upload has a picture yet to be decoded."""
    item_id = None
    try:
        columns = json_object(line, "the line")
        item_id = columns.get("item_id")
        if item_id is None and isinstance(columns.get("item"), dict):
            item_id = columns["item"].get("item_id")
        if not isinstance(item_id, str):
            item_id = None
            raise RefusedItem("invalid_item", 'the line has no item_id, such as {"item_id": "id-1"}.')
        if action == "delete":
            return item_id, None
        if action == "patch":
            return item_id, worker.check_patch(item_id, columns)
        upload = worker.check_upload(upload_of(columns))
        return item_id, worker.check_row(item_id, upload) or upload
    except Exception as error:
        return item_id, error


async def _decoded(worker: ModelWorker, item_id: str, upload: Upload) -> Prepared | Kept | Exception:
    try:
        return await worker.check(item_id, upload)
    except Exception as error:
        return error


async def _changed(
    worker: ModelWorker, action: Action, item_id: str, change: Prepared | Kept | Exception | None
) -> dict[str, Any]:
    if isinstance(change, Exception):
        raise change
    if change is None:
        if not await worker.delete(item_id):
            raise UnknownItem(item_id)
        return {"deleted": True}
    if action == "patch" and isinstance(change, Kept):
        if not await worker.patch(item_id, change):
            raise UnknownItem(item_id)
        return {"updated": True}
    return asdict(await worker.write(item_id, change))
