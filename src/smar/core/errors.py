"""Errors that the user can mend: the command line prints them as one message and exits with 2."""

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

E = TypeVar("E", bound=StrEnum)
_STARTS = {
    b"\x1f\x8b": "compressed with gzip; send it as it is",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; send it as it is",
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark (EF BB BF); leave the mark out",
    b"\xff\xfe": "UTF-16 or UTF-32 (it begins with the byte order mark FF FE); send UTF-8",
    b"\xfe\xff": "UTF-16 (it begins with the byte order mark FE FF); send UTF-8",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
}
"""First bytes of what is sent in place of JSON, and what it is."""


class InputError(ValueError):
    """The user's input is wrong. The message says what was seen, what is allowed and what to do.

    >>> str(one_of("read", ["red", "blue"], "the colour"))
    "the colour is 'read'; allowed: blue, red."
    """


class TrainingError(RuntimeError):
    """Training cannot go on. The message names the step, the batch and what to do."""


def one_of(seen: str, allowed: Iterable[str], what: str, advice: str = "") -> InputError:
    """Build the error for a name that is not among the allowed ones."""
    names = ", ".join(sorted(allowed))
    return InputError(f"{what} is {seen!r}; allowed: {names}.{' ' + advice if advice else ''}")


def member(kind: type[E], value: str, what: str) -> E:
    """The member of an enumeration that is, or is called, `value`; raises InputError that lists the allowed ones."""
    try:
        return kind(value)
    except ValueError:
        raise one_of(value, kind, what) from None


def not_json(body: bytes, problem: str, content_type: str = "", what: str = "the body") -> str:
    """What a body is that a JSON parser refused with `problem`: one of the usual mistakes, or where it broke off."""
    if not body.strip():
        return f"{what} is empty; a JSON object is wanted"
    for start, seen in _STARTS.items():
        if body.startswith(start):
            return f"{what} is not JSON but {seen}"
    if b"\0" in body[:4]:
        return f"{what} is not JSON in UTF-8: it holds zero bytes, as UTF-16 and UTF-32 do; send UTF-8"
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = body[error.start : error.start + 2]
        kind = "a lone UTF-16 surrogate" if wrong >= b"\xed\xa0" and wrong < b"\xee" else "no UTF-8 character"
        return f"{what} is not JSON in UTF-8: byte {error.start + 1} ({wrong[:1].hex().upper()}) begins {kind}"
    kind = content_type.partition(";")[0].strip().lower()
    sent = f" (it was sent as {kind[:100]})" if kind and not kind.endswith("json") else ""
    return f"{what} is not JSON{sent}: {problem[:200]}"
