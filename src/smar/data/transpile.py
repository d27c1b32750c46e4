"""The SQL of ``sql/`` as Spark runs it. DuckDB's text is the one source: sqlglot turns it, macros are put in.

sqlglot knows GROUP BY ALL, EXCLUDE, FILTER, arg_min, the order of nulls, FROM without SELECT and SEMI JOIN USING. What
it does not know, or turns into something that counts differently, is done here. Texts of users are never read by Spark:
its casts differ from DuckDB's (a cast to TIMESTAMP_NTZ drops +02:00), see `smar.data.spark`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

from smar.data.database import script

FUNCTIONS = ("normalise", "exact", "approximate")
"""Macros and functions that are called in Python: Spark has no normal forms, and rounds decimals otherwise."""
_WHOLE = 2.0**52
"""From here on every double is whole."""


def parse(sql: str) -> list[exp.Expression]:
    """The statements of a script in DuckDB's dialect."""
    return [statement for statement in sqlglot.parse(sql, read="duckdb") if statement is not None]


def spark_sql(statement: exp.Expression, variables: Mapping[str, object]) -> str:
    """A query in Spark's dialect.

        spark_sql(parse("FROM event WHERE part = getvariable('part')")[0], {"part": 0})
        # SELECT * FROM event WHERE part = 0

    Args:
        statement: from `parse`; it stays as it is.
        variables: what ``getvariable`` gives; null where it is not there.

    Raises:
        ValueError: a replacement by a regular expression of the first match only, which Spark lacks.
    """
    tree = _expand(statement.copy(), _macros())
    for node in reversed(list(tree.dfs())):  # inner ones first
        turned = _turn(node, variables)
        if node is tree:
            tree = turned
        elif turned is not node:
            node.replace(turned)
    text: str = tree.sql("spark", comments=False)
    return text


@cache
def _macros() -> dict[str, tuple[list[str], exp.Expression]]:
    """Name -> parameters and body, from ``sql/macros.sql``."""
    return {
        made.this.this.name: ([parameter.name for parameter in made.this.expressions], made.expression)
        for made in parse(script("macros"))
        if made.this.this.name not in FUNCTIONS
    }


def _expand(node: exp.Expression, macros: Mapping[str, tuple[list[str], exp.Expression]]) -> exp.Expression:
    """Put the bodies of macros in the place of their calls, inner calls included."""

    def call(found: exp.Expression) -> exp.Expression:
        if not (isinstance(found, exp.Anonymous) and found.name.lower() in macros):
            return found
        names, body = macros[found.name.lower()]
        given = dict(zip(names, found.expressions, strict=True))
        filled = body.copy().transform(
            lambda part: (
                exp.paren(given[part.name].copy())
                if isinstance(part, exp.Column) and not part.table and part.name in given
                else part
            )
        )
        return exp.paren(_expand(filled, macros))

    return node.transform(call)


def _turn(node: exp.Expression, variables: Mapping[str, object]) -> exp.Expression:
    for kind, turn in _TURNS.items():
        if isinstance(node, kind):
            return turn(node)
    if isinstance(node, exp.Anonymous) and node.name.lower() == "getvariable":
        return typed_literal(variables.get(node.expressions[0].name))
    if isinstance(node, exp.Anonymous) and node.name.lower() == "strlen":
        return exp.func("octet_length", *node.expressions)
    return node


def typed_literal(value: object) -> exp.Expression:
    """A value as SQL of exactly its type: 0.1 alone would be a decimal number in Spark."""
    if isinstance(value, float):
        return exp.cast(exp.Literal.string(repr(value)), "double")
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            raise ValueError(f"{value} has a zone, which TIMESTAMP_NTZ would drop")
        return exp.cast(exp.Literal.string(str(value)), exp.DataType.Type.TIMESTAMPNTZ)
    return exp.convert(value)


def _number(node: exp.Literal) -> exp.Expression:
    whole = node.is_string or node.name.isdecimal()
    return node if whole else typed_literal(float(node.name))


def _floor(node: exp.Floor) -> exp.Expression:
    """Spark's FLOOR of a double is a BIGINT, cut at its limits."""
    value = node.this
    small = exp.cast(exp.Floor(this=value.copy()), "double")
    return exp.case().when(exp.Abs(this=value.copy()) < typed_literal(_WHOLE), small).else_(value.copy())


def _cast(node: exp.Cast) -> exp.Expression:
    """CAST('0x' || digits AS BIGINT) reads hexadecimal digits in DuckDB alone; 2^63 is no BIGINT in DuckDB alone."""
    text = node.this
    if isinstance(node, exp.TryCast) and node.to.is_type("bigint"):
        return exp.case().when(text.copy() < typed_literal(2.0**63), node.copy())
    if isinstance(text, exp.DPipe) and text.this.name == "0x":
        return exp.cast(exp.func("conv", text.expression, exp.convert(16), exp.convert(10)), "bigint")
    return node


def _regexp_replace(node: exp.RegexpReplace) -> exp.Expression:
    if node.args.get("modifiers") is None or "g" not in node.args["modifiers"].name:
        raise ValueError(f"Spark replaces all matches, DuckDB the first: {node.sql('duckdb')}")
    return node


def _read(node: exp.ReadParquet) -> exp.Expression:
    return exp.ReadParquet(expressions=[exp.Literal.string(location(Path(node.expressions[0].name)))])


def location(path: Path) -> str:
    """A path for Spark, whose default file system may be another one."""
    return f"file://{path.absolute()}"


_TURNS: dict[type[exp.Expression], Callable[[Any], exp.Expression]] = {
    exp.Literal: _number,
    exp.Floor: _floor,
    exp.Cast: _cast,
    exp.RegexpReplace: _regexp_replace,
    exp.ReadParquet: _read,
}
