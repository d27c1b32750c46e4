"""How a service is run: addresses, limits, keys. The supervisor hands them to its workers."""

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from smar.core.errors import InputError
from smar.core.overrides import overridden

P = TypeVar("P", Path, Path | str)
KEYS_VARIABLE = "SMAR_API_KEYS"
USUAL = ("category", "brand", "price")
"""Columns to filter by where nothing is said, of those that the index has."""
_SHORTEST_KEY = 16
DEFAULT = "default"
"""Name of an index that was given none."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[^/?#\s]+", re.ASCII)
_PREFIX = re.compile(r"(/[\w.~-]+)+", re.ASCII)


def _names(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class ServiceOptions(BaseModel):
    """Everything that `smar serve` can be told; sizes in bytes, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int = Field(1, ge=1, le=256, description="processes that answer queries")
    keys: tuple[str, ...] = Field((), repr=False, description="API keys; without any nothing can be written over HTTP")
    protect_reads: bool = Field(False, description="searching needs a key, too")
    queue: int = Field(256, ge=1, description="searches that may wait in a worker; then 429")
    batch: int = Field(32, ge=1, description="searches encoded at once")
    cache_bytes: int = Field(64 << 20, ge=0, description="answers that each worker keeps; 0 for none")
    rate: float = Field(0.0, ge=0, description="requests a second and client, over all workers; 0 for no limit")
    burst: int = Field(50, ge=1, description="requests that a client may send at once before the rate counts")
    connections: int = Field(2000, ge=1, description="open connections of a worker; then 503")
    body_bytes: int = Field(64 << 10, ge=1024, description="largest body of a search")
    upload_bytes: int = Field(20 << 20, ge=1024, description="largest item or picture")
    hang: float = Field(30.0, gt=0, description="a worker that shows no sign of life for so long is killed")
    deadline: float = Field(2.0, gt=0, description="time that an engine behind a URL has for an answer; then 503")
    patience: float = Field(15.0, gt=0, description="time for a client to send its request")
    facets: Names = Field(USUAL, description="columns that the page offers to filter by, in this order")
    sort: Names = Field((), description="columns that the page offers to sort by, a minus before those downwards")
    collapse: str = Field("", description="COLUMN or COLUMN:NOUN: the page shows one card for each of its values")
    log: Literal["errors", "requests", "queries"] = Field(
        "errors", description="errors only; a line for each request; the same with the query's text"
    )
    events: Path | None = Field(None, description="folder for events of shoppers; none are taken without")
    events_sessions: bool = Field(False, description="events keep hashes of the ids of session and client")
    events_rate: float = Field(100.0, ge=0, description="events a second and client, over all workers; 0 for no limit")
    events_burst: int = Field(1000, ge=1, description="events that a client may send at once before the rate counts")
    events_part_bytes: int = Field(16 << 20, ge=1024, description="size at which a journal of events becomes a part")
    events_part_seconds: float = Field(3600.0, gt=0, description="age at which a journal of events becomes a part")
    cors: tuple[str, ...] = Field((), description="origins whose pages may call the service; * for any")
    root_path: str = Field("", description="where a proxy shows the service, such as /search")
    split: tuple[tuple[str, float], ...] = Field((), description="share of the sessions that each index answers")
    interleave: tuple[str, ...] = Field((), description="two indexes whose rankings are interleaved")
    trusted_proxies: str = Field("127.0.0.1", description="addresses whose X-Forwarded-For is believed")
    rules: Path | None = Field(None, description="file of rules that is followed")
    shared: Path | None = Field(None, description="private folder of one service's processes")
    writer: bool = Field(False, description="whether a model worker listens in that folder")

    @field_validator("cors")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin; give scheme and host, such as https://shop.example")
        return origins

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, path: str) -> str:
        if path and not _PREFIX.fullmatch(path):
            raise ValueError(f"{path!r} is no prefix; give it with a slash at its beginning only, such as /search")
        return path

    @property
    def kept_rules(self) -> Path | None:
        """Where the service keeps the rules that were right last."""
        return None if self.shared is None else self.shared / "rules.yaml"

    @property
    def variants(self) -> tuple[str, ...]:
        """The indexes that an experiment compares."""
        return self.interleave or tuple(name for name, _ in self.split)


_OWN = {"workers", "keys", "cors", "root_path", "rules", "facets", "sort", "collapse", "shared", "writer"}
_OWN |= {"events", "events_sessions", "split", "interleave"}
_SETTABLE = sorted(set(ServiceOptions.model_fields) - _OWN)


def service_options(assignments: Sequence[str] = (), **named: object) -> ServiceOptions:
    """Options by name, then ``name=value`` texts.

    Raises:
        InputError: a name is unknown or a value not allowed.
    """
    changes = dict(named)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or name not in _SETTABLE:
            raise InputError(f"--set {text}: give name=value; the names are {', '.join(_SETTABLE)}.")
        changes[name] = value
    try:
        return overridden(ServiceOptions(), changes)
    except ValueError as error:
        raise InputError(f"the service cannot be run so: {error}") from None


def named_paths(given: Sequence[tuple[str | None, P]], unnamed: str = DEFAULT) -> dict[str, P]:
    """Paths, or URLs of engines, by the names that they were given, `unnamed` for the one without.

    Raises:
        InputError: a name is none, or given twice.
    """
    paths: dict[str, P] = {}
    for said, path in given:
        name = unnamed if said is None else said
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name!r} is no name; up to 32 letters, digits, - and _ are allowed, such as shop={path}."
            )
        if name in paths:
            raise InputError(f"{paths[name]} and {path} would both be {name!r}; give each a name: NAME={path}.")
        paths[name] = path
    return paths


def check_names(indexes: Sequence[str], runs: Iterable[str], options: ServiceOptions) -> None:
    """Raise InputError where a model or an experiment is of an index that is not served, or the latter makes none."""
    shares, compared = [share for _, share in options.split], options.variants
    for name in (*runs, *compared):
        if name not in indexes:
            raise InputError(f"there is no index {name!r}; served are {', '.join(indexes)}.")
    if options.split and options.interleave:
        raise InputError("--split and --interleave are two ways to compare; give one of them.")
    if len(set(compared)) < len(compared) or len(compared) == 1 or len(options.interleave) > 2:
        raise InputError(
            f"{', '.join(compared)} cannot be compared; --interleave takes two indexes, --split two or more."
        )
    if any(not 0 < share < math.inf for share in shares):
        raise InputError("--split: shares are numbers above 0, such as a:50,b:50.")


def read_keys(path: Path | None) -> tuple[str, ...]:
    """API keys: one a line in a file (# starts a comment), or separated by commas in the environment.

    Raises:
        InputError: the file cannot be read, or a key is too short to be one.
    """
    try:
        lines = os.environ.get(KEYS_VARIABLE, "").split(",") if path is None else path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--keys {path} cannot be read: {error}") from None
    keys = [key for line in lines if (key := line.split("#")[0].strip())]
    if path is not None and not keys:
        raise InputError(f"--keys {path} holds no key; write one a line, such as `openssl rand -hex 24` makes.")
    for number, key in enumerate(keys, start=1):
        if len(key) < _SHORTEST_KEY or not key.isascii():
            raise InputError(
                f"API key {number} has {len(key)} characters or other than ASCII ones; at least {_SHORTEST_KEY} are "
                "needed, such as `openssl rand -hex 24` makes."
            )
    return tuple(keys)
