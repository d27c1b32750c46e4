"""Events as they are reported, in the layout of User Behavior Insights (UBI 1.3), and as lines of a journal."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from smar.data.journals import ACTIONS
from smar.serving.events_hash import Hasher
from smar.serving.question import RequestError

EARLY, LATE = 300, 2 * 86_400
"""Seconds by which an event's time may be ahead of this machine's, and behind it."""
_CALLED = {
    "view": "impression",
    "click_through": "click",
    "watch": "click",
    "add_to_cart": "cart",
    "purchase": "order",
    **dict(zip(ACTIONS, ACTIONS, strict=True)),
}
Text = Annotated[str, Meta(max_length=100)]
Id = Annotated[str, Meta(min_length=1, max_length=1000)]


class XY(Struct, forbid_unknown_fields=True):
    """Where on the screen; not kept."""

    x: float
    y: float


class Position(Struct, forbid_unknown_fields=True):
    """Where in the list, from 1, pages counted on."""

    ordinal: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    xy: XY | None = None


class Thing(Struct, forbid_unknown_fields=True):
    """The item. `object_id_type` and `internal_id` are not kept."""

    object_id: Id | int
    object_id_field: Text | None = None
    object_id_type: Text | None = None
    internal_id: Id | int | None = None


class Attributes(Struct, forbid_unknown_fields=True):
    """What the event is about; `variant` is the index or the team that brought the item in."""

    object: Thing
    position: Position | None = None
    variant: Text | None = None


class Event(Struct, forbid_unknown_fields=True):
    """One event of UBI; `user_id` is never kept, `session_id` and `client_id` as hashes where that was asked for."""

    action_name: Text
    query_id: Annotated[str, Meta(min_length=1, max_length=100)]
    event_attributes: Attributes
    timestamp: Annotated[datetime, Meta(tz=True)] | None = None
    session_id: Text | None = None
    client_id: Text | None = None
    user_id: Text | None = None
    application: Text | None = None
    message_type: Text | None = None
    message: Annotated[str, Meta(max_length=1024)] | None = None
    user_query: Annotated[str, Meta(max_length=1000)] | None = None


class _Row(Struct, omit_defaults=True):
    """An event as a line of the journal; names and order of `smar.data.journals.EVENTS`."""

    timestamp: int
    action_name: str
    query_id: str
    session_id: str | None
    client_id: str | None
    object_id: str
    position: int | None = None
    query: str | None = None
    variant: str | None = None
    application: str | None = None
    message_type: str | None = None
    message: str | None = None
    object_id_field: str | None = None


class Wrong(ValueError):
    """An event that cannot be taken; the message says why."""


_encode = msgspec.json.Encoder().encode_lines
_one, _many = msgspec.json.Decoder(Event), msgspec.json.Decoder(list[Event])
_pieces = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_events(body: bytes) -> "Iterator[Event | Wrong]":
    """The events of a body: one object, an array of them, or JSON lines; what is no event is why it is none.

    >>> body = b'{"action_name": "click", "query_id": "a", "event_attributes": {"object": {"object_id": "1"}}}'
    >>> [event.action_name for event in read_events(body)]
    ['click']
    """
    text = body.strip()
    array = text.startswith(b"[")
    try:
        yield from (_many.decode(text) if array else _one.decode_lines(text))
        return
    except msgspec.MsgspecError:  # one of them at least
        pass
    for piece in _pieces_of(text, array):
        try:
            yield _one.decode(piece)
        except msgspec.MsgspecError as error:
            yield Wrong(str(error))


def _pieces_of(text: bytes, array: bool) -> "list[msgspec.Raw] | list[bytes]":
    if array:
        try:
            return _pieces(text)
        except msgspec.DecodeError as error:
            raise RequestError("invalid_request", f"the body is no JSON array of events: {error}.") from None
    try:
        msgspec.json.decode(text)  # one object, over several lines
    except msgspec.DecodeError:
        return [line for line in text.split(b"\n") if line.strip()]
    return [text]


class Taken:
    """Events of one request, checked: the lines for the journal, and what is wrong with the others."""

    def __init__(self, body: bytes, hasher: "Hasher | None") -> None:
        now = time.time()
        self._hasher, self._early, self._late = hasher, now + EARLY, now - LATE
        self.now = int(now * 1e6)
        rows, self.rejected = [], list[tuple[int, Wrong]]()
        for number, event in enumerate(read_events(body), start=1):
            try:
                rows.append(self._row(event))
            except Wrong as wrong:
                self.rejected.append((number, wrong))
        self.accepted, self.lines = len(rows), _encode(rows)

    def _row(self, event: Event | Wrong) -> _Row:
        if isinstance(event, Wrong):
            raise event
        action = _CALLED.get(event.action_name)
        if action is None:
            raise Wrong(f"action_name is {event.action_name!r}; allowed: {', '.join(_CALLED)}.")
        told, hasher = event.event_attributes, self._hasher
        return _Row(
            self._time(event.timestamp),
            action,
            event.query_id,
            hasher("session", event.session_id) if hasher else None,
            hasher("client", event.client_id) if hasher else None,
            str(told.object.object_id),
            told.position.ordinal if told.position else None,
            event.user_query,
            told.variant,
            event.application,
            event.message_type,
            event.message,
            told.object.object_id_field,
        )

    def _time(self, moment: datetime | None) -> int:
        """Microseconds since 1970."""
        if moment is None:
            return self.now
        seconds = moment.timestamp()
        if not self._late <= seconds <= self._early:
            clock = datetime.fromtimestamp(self.now // 1_000_000, UTC).isoformat()
            raise Wrong(
                f"timestamp is {moment.isoformat()}, here it is {clock}; allowed: up to {EARLY} s ahead and "
                f"{LATE // 3600} h behind."
            )
        return round(seconds * 1e6)
