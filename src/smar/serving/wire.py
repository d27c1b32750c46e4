"""How values and addresses travel: JSON has no NaN and no dates, and an item id may hold any character."""

import math
from typing import Any
from urllib.parse import quote


def picture_url(item_id: str) -> str:
    """Address of an item's picture."""
    return f"/v1/items/{quote(item_id, safe='')}/picture"


def plain(value: Any) -> Any:
    """A payload value as JSON can hold it: NaN becomes null, dates ISO 8601, bytes their length."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
