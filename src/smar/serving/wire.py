"""How values and addresses travel: JSON has no NaN and no dates, and an item id may hold any character."""

from urllib.parse import quote

from smar.index.ready import plain

__all__ = ["picture_url", "plain"]


def picture_url(item_id: str) -> str:
    """Address of an item's picture."""
    return f"/v1/items/{quote(item_id, safe='')}/picture"
