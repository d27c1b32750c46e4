"""The parser of ranking expressions: the filter's, with numbers between its comparisons and its names."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.search.column_values import Kind, kind_of
from smar.search.filter_parser import Parser, Token
from smar.search.filters import Filter, Node, columns_of
from smar.search.local.expressions import SCORES, Call, Expression, Matches, Name, Number, Term

MAX_LENGTH = 1000
MAX_NODES = 100
EXAMPLE = "score * (1 + 0.2 * log1p(sold)) - 0.3 * not(in_stock)"

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
          |(?P<op><=|>=|!=|<>|==|=|<|>)
          |(?P<mark>[-+*/(),])
          |(?P<word>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])|[^\s()<>=!,"'+*/-]+))""",
    re.VERBOSE | re.DOTALL,
)
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log1p": (1, np.log1p),
    "sqrt": (1, np.sqrt),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "pow": (2, np.power),
}
_MARKS: dict[str, Callable[..., Any]] = {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide}
_COMPARED: dict[str, Callable[..., Any]] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def parse_expression(text: str, schema: pa.Schema) -> Expression:
    """Parse `text` against the columns of `schema`.

    Raises:
        InputError: a syntax error, an unknown name, a column that does not fit, or an expression that is too long or
            too deep; the message names the character, the names that there are, and an example.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(f"the rank has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed.")
    return Expression(text, _Parser(text, schema).expression())


def _truth(value: Any) -> Any:
    return np.not_equal(value, 0).astype(np.float64)


def _all(*terms: Any) -> Any:
    return np.prod(np.broadcast_arrays(*map(_truth, terms)), axis=0)


def _any(*terms: Any) -> Any:
    return np.max(np.broadcast_arrays(*map(_truth, terms)), axis=0)


class _Parser(Parser):
    """The filter's parser with numbers between its comparisons and its names."""

    token, what, example = _TOKEN, "rank", EXAMPLE

    def __init__(self, text: str, schema: pa.Schema) -> None:
        super().__init__(text, schema)
        self.nodes = 0

    def expression(self) -> Term:
        """The whole text."""
        term = self.either(0)
        if self.next.kind != "end":
            raise self.error(self.next.position, f"expected an operator, found {self.next.text!r}")
        return term

    def call(self, name: str, apply: Callable[..., Any], *terms: Term) -> Term:
        """A node; their number is bounded."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.error(self.next.position, f"more than {MAX_NODES} operations")
        return Call(name, apply, terms)

    def either(self, depth: int) -> Term:
        """Terms between ``or``."""
        terms = [self.both(depth)]
        while self.next.is_word("or"):
            self.take()
            terms.append(self.both(depth))
        return self.call("or", _any, *terms) if len(terms) > 1 else terms[0]

    def both(self, depth: int) -> Term:
        """Terms between ``and``."""
        terms = [self.compared(depth)]
        while self.next.is_word("and"):
            self.take()
            terms.append(self.compared(depth))
        return self.call("and", _all, *terms) if len(terms) > 1 else terms[0]

    def compared(self, depth: int) -> Term:
        """A comparison: of a column as the filter does it, else of numbers."""
        self.check_depth(depth)
        if self.next.is_word("not") and not self.follows("("):
            self.take()
            return self.call("not", lambda value: 1 - _truth(value), self.compared(depth + 1))
        if self.compares_column():
            return self.matches(self.comparison())
        left = self.sum(depth)
        if self.next.kind != "op":
            return left
        op = self.take().text
        return self.call(op, lambda *sides: _COMPARED[op](*sides).astype(np.float64), left, self.sum(depth))

    def compares_column(self) -> bool:
        """Whether a column and what compares it with a value come next; a value follows, no name of a number."""
        if self.next.kind not in ("word", "quoted") or self.next.text not in self.schema.names:
            return False
        op, value = (self.tokens[min(self.at + ahead, len(self.tokens) - 1)] for ahead in (1, 2))
        if op.is_word("in") or op.is_word("all") or (op.is_word("not") and value.is_word("in")):
            return True
        kind = kind_of(self.schema.field(self.next.text).type)
        numbers = kind is Kind.NUMBER and (value.kind == "mark" or self.is_name(value))
        return op.kind == "op" and not numbers

    def is_name(self, token: Token) -> bool:
        """Whether it names a number."""
        return token.text in SCORES or token.text in self.schema.names or token.text in _FUNCTIONS

    def matches(self, node: Node) -> Term:
        """A condition of the filter's."""
        self.nodes += 1
        return Matches(Filter(node), tuple(sorted(columns_of(node))))

    def sum(self, depth: int) -> Term:
        """Terms between ``+`` and ``-``."""
        left = self.product(depth)
        while self.is_mark("+") or self.is_mark("-"):
            sign = self.take().text
            left = self.call(sign, _MARKS[sign], left, self.product(depth))
        return left

    def product(self, depth: int) -> Term:
        """Terms between ``*`` and ``/``."""
        left = self.signed(depth)
        while self.is_mark("*") or self.is_mark("/"):
            sign = self.take().text
            left = self.call(sign, _MARKS[sign], left, self.signed(depth))
        return left

    def signed(self, depth: int) -> Term:
        """A term, maybe with a sign."""
        self.check_depth(depth)
        if self.is_mark("-") or self.is_mark("+"):
            sign, term = self.take().text, self.signed(depth + 1)
            return self.call("minus", np.negative, term) if sign == "-" else term
        return self.atom(depth)

    def atom(self, depth: int) -> Term:
        """Parentheses, a function, a number or a name."""
        if self.is_mark("("):
            self.take()
            term = self.either(depth + 1)
            self.expect(")")
            return term
        if self.next.kind == "word" and self.follows("("):
            return self.function(depth)
        token = self.take()
        if token.kind not in ("word", "quoted"):
            raise self.error(token.position, f"expected a number, a name or a function, found {token.text!r}")
        if token.kind == "word" and re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", token.text):
            return Number(float(token.text))
        return self.name(token)

    def function(self, depth: int) -> Term:
        """A function and what it is of."""
        if self.next.is_word("exists"):
            return self.matches(self.exists())
        token = self.take()
        self.expect("(")
        if token.is_word("not"):
            term = self.either(depth + 1)
            self.expect(")")
            return self.call("not", lambda value: 1 - _truth(value), term)
        if token.text not in _FUNCTIONS:
            raise self.error(token.position, f"unknown function {token.text!r}")
        count, apply = _FUNCTIONS[token.text]
        terms = [self.either(depth + 1)]
        while self.is_mark(","):
            self.take()
            terms.append(self.either(depth + 1))
        self.expect(")")
        if len(terms) != count:
            raise self.error(token.position, f"{token.text} is of {count}, not of {len(terms)}")
        return self.call(token.text, apply, *terms)

    def name(self, token: Token) -> Term:
        """A score or a column."""
        if token.text in SCORES and token.kind == "word":
            return Name(token.text, None)
        if token.text not in self.schema.names:
            raise self.error(token.position, f"unknown name {token.text!r}")
        kind = kind_of(self.schema.field(token.text).type)
        if kind not in (Kind.NUMBER, Kind.FLAG, Kind.MOMENT):
            raise self.error(token.position, f"{token.text} holds {kind}, which is no number; compare it with = or in")
        return Name(token.text, kind)

    def follows(self, mark: str) -> bool:
        """Whether a mark comes after the next token."""
        token = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        return token.kind == "mark" and token.text == mark
