"""Each answer of a search has an id of its own, by which events name it, and is noted where events are taken."""

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from smar.data.journals import SEARCHED
from smar.serving.question import Question

if TYPE_CHECKING:
    from smar.serving.events import Events

SESSION = "x-session-id"
"""Header of a search by which a client may tell its session."""


class _Total(msgspec.Struct):
    value: int


class _Answer(msgspec.Struct):
    """What is noted of an answer."""

    hits: list[msgspec.Raw] = msgspec.field(default_factory=list)
    total: _Total | None = None
    image_probability: float = 0.0
    routed: bool = False
    variant: str | None = None


_read, _encode = msgspec.json.Decoder(_Answer).decode, msgspec.json.Encoder().encode


def identified(answer: bytes) -> tuple[str, bytes]:
    """A new id, and the answer, a JSON object that is not empty, with it as `query_id`."""
    query_id = os.urandom(16).hex()
    return query_id, b'%b,"query_id":"%b"}' % (answer[:-1], query_id.encode())


def note_search(events: "Events | None", query_id: str, asked: Question, answer: bytes) -> None:
    """Note a search and its answer, beside the events that will name it; takes a microsecond where it is called."""
    if events is None:
        return
    hashed = events.hasher("session", asked.session[:100]) if events.hasher is not None and asked.session else None
    told = {"action_name": SEARCHED, "timestamp": time.time_ns() // 1000, "query_id": query_id, "session_id": hashed,
            "query": asked.query, "mode": asked.mode.value, "filter": asked.filter,
            "offset": asked.offset}  # fmt: skip
    events.journal.note(partial(_line, told, answer))


def _line(told: dict[str, object], answer: bytes) -> bytes:
    seen = _read(answer)
    total = None if seen.total is None else seen.total.value
    found = {"hits": len(seen.hits), "total": total, "image_probability": seen.image_probability,
             "routed": seen.routed, "variant": seen.variant}  # fmt: skip
    return _encode(told | found) + b"\n"
