"""Numbers as people write them -> plain numbers: currency, groups of digits, decimal point or comma.

One value such as 1,299 leaves two readings; a column mostly leaves one, which its values are then read by.
"""

import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

from smar.core.errors import InputError
from smar.data.database import Connection, literal, once

NumberFormat: TypeAlias = Literal["1,234.56", "1.234,56"]
"""Blanks and apostrophes group digits in both."""
POINT: NumberFormat = "1,234.56"
COMMA: NumberFormat = "1.234,56"

_DIGITS = [character for character in map(chr, range(128, 1 << 17)) if unicodedata.category(character) == "Nd"]
_ASCII = "".join(str(unicodedata.digit(character)) for character in _DIGITS)
_MARKS, _PLAIN_MARKS = "’٬٫−–—", "'',---"
_WORD = r"[$A-Za-z\x{80}-\x{10ffff}]"
_SIGN = rf"(?:{_WORD}{{1,4}}(?:\.{_WORD}{{1,3}})?\.?)"  # a currency: $, US$, kr., CHF
_NUMBER = r"(?:[0-9][0-9 .,']*[0-9]|[.,]?[0-9]+[.,]?)(?:[.,]? ?-{1,2})?"
_AMOUNT = rf"[-+]? ?(?:{_SIGN} ?[-+]? ?{_NUMBER}|{_NUMBER} ?{_SIGN}?)"
_AROUND = rf"{_WORD}+(?:\.{_WORD}+)*\.?|\+|[.,]? ?-{{1,2}}(?: ?{_WORD}[^0-9]*)?$"
"""What is no part of the number: the currency, and dashes for no cents."""
_FORMS = {
    POINT: (
        r"-?([0-9]+|[1-9][0-9]{0,2}((,[0-9]{3})+|([ '][0-9]{3})+)|[1-9][0-9]?(,[0-9]{2})+,[0-9]{3})?(\.[0-9]*)?",
        "translate(bare, ' '',', '')",
    ),
    COMMA: (
        r"-?([0-9]+|[1-9][0-9]{0,2}((\.[0-9]{3})+|([ '][0-9]{3})+))?(,[0-9]*)?",
        "replace(translate(bare, ' ''.', ''), ',', '.')",
    ),
}
"""What a number looks like, and SQL for it without groups and with a point."""


def _bare(text: str) -> str:
    """SQL: sign, digits and what stands between them; null where there is more than a number with a currency."""
    digits = f"translate({text}, {literal(''.join(_DIGITS))}, '{_ASCII}')"
    same = f"CASE WHEN regexp_matches({text}, '[0-9]') THEN {text} ELSE {digits} END"
    same = f"translate({same}, {literal(_MARKS)}, {literal(_PLAIN_MARKS)})"
    same = f"trim(regexp_replace({same}, '[\\s\\x{{a0}}\\x{{2000}}-\\x{{200a}}\\x{{202f}}]+', ' ', 'g'))"
    cut = f"regexp_replace(regexp_replace(same, {literal(_AROUND)}, '', 'g'), '^ *(-?) *(.*?) *$', '\\1\\2')"
    return once(same, "same", f"CASE WHEN regexp_full_match(same, {literal(_AMOUNT)}) THEN {cut} END")


def plain_amount(text: str, number_format: NumberFormat) -> str:
    """SQL for a text, such as 1.299,00 €, as a plain number; null where it is none in this format.

    Args:
        text: SQL for the text.
        number_format: how the column is written.
    """
    form, plain = _FORMS[number_format]
    matched = f"CASE WHEN regexp_full_match(bare, {literal(form)}) THEN {plain} END"
    read = once(once(_bare(text), "bare", matched), "number", "plain_form(number)")
    return f"CASE WHEN is_plain({text}) THEN {text} ELSE {read} END" if number_format == POINT else read


def find_format(con: Connection, scan: str, column: str, name: str) -> tuple[NumberFormat | None, str | None]:
    """How a column of texts writes its numbers, None where no value tells; and what the user should know.

    Args:
        con: the database.
        scan: SQL for the rows.
        column: SQL for the text.
        name: where it is, for the message.

    Raises:
        InputError: the values leave two readings, or some leave only the one and some only the other.
    """
    point, comma = plain_amount("text", POINT), plain_amount("text", COMMA)
    ways = """CASE WHEN is_plain(text) AND regexp_full_match(text, '-?[1-9][0-9]{0,2}\\.[0-9]{3}') THEN 'plain'
        WHEN is_plain(text) THEN CASE WHEN contains(text, '.') THEN 'point' ELSE 'either' END
        WHEN p IS NOT DISTINCT FROM c THEN 'either'
        WHEN c IS NULL THEN 'point' WHEN p IS NULL THEN 'comma' ELSE 'open' END"""
    rows = con.execute(
        f"""SELECT {ways} AS way, list(text ORDER BY text)[:3] FROM (
            SELECT text, CASE WHEN NOT is_plain(text) THEN {point} END AS p,
                   CASE WHEN NOT is_plain(text) THEN {comma} END AS c
            FROM (SELECT DISTINCT trim({column}) AS text FROM {scan} WHERE {column} IS NOT NULL)
        ) GROUP BY way"""
    ).fetchall()
    seen: dict[str, list[str]] = dict(rows)
    if "point" in seen and "comma" in seen:
        raise _unclear(name, [*seen["point"][:2], *seen["comma"][:2]], "write their decimals in two ways")
    if "open" in seen and not ("point" in seen or "comma" in seen):
        raise _unclear(name, seen["open"], "leave two readings")
    if "point" in seen or "comma" in seen:
        return (POINT if "point" in seen else COMMA), None
    if "plain" in seen:
        first = seen["plain"][0]
        large = first.replace(".", "")
        return None, f"{name}: {first!r} is read as {first}; if it is {large}, set data.number_format to '{COMMA}'"
    return None, None


def _unclear(name: str, examples: Sequence[str], how: str) -> InputError:
    return InputError(
        f"{name}: numbers such as {', '.join(map(repr, examples))} {how}: is a comma or a point before the decimals? "
        f"Set data.number_format to '{POINT}' or '{COMMA}'."
    )
