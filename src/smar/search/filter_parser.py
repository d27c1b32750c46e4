"""The filter language's parser: text and column types in, a `Filter` or a message with the position out."""

import re
from dataclasses import dataclass

import pyarrow as pa

from smar.core.errors import InputError
from smar.search.column_values import Kind, inner_kind, kind_of
from smar.search.filters import Both, Comparison, Exists, Filter, Holds, Node, Not, literal

MAX_LENGTH = 4000
MAX_DEPTH = 16
MAX_VALUES = 200
MAX_ALL = 16  # each of them is a pass over all lists
EXAMPLE = 'price<50 and brand in (Nike, "Le Coq")'

_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
          |(?P<op><=|>=|!=|<>|==|=|<|>)
          |(?P<mark>[(),])
          |(?P<word>[^\s()<>=!,"']+))""",
    re.VERBOSE | re.DOTALL,
)
_SPELLING = {"==": "=", "<>": "!="}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text."""

    kind: str  # quoted | op | mark | word | end
    text: str
    position: int

    def is_word(self, word: str) -> bool:
        """Whether it is this word, in any case."""
        return self.kind == "word" and self.text.lower() == word


def parse_filter(text: str, schema: pa.Schema) -> Filter:
    """Parse `text` against the columns of `schema`.

    Raises:
        InputError: a syntax error, an unknown column, a value or operator that does not fit its column, or a
        filter that
            is too long or too deep; the message names the character, the columns and an example.
    """
    check_length(text)
    return Filter(Parser(text, schema).parse())


def check_length(text: str) -> None:
    """Raise InputError when the text of a filter is too long to be looked at."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"the filter has {len(text):,} characters; at most {MAX_LENGTH:,} are allowed.")


class Parser:
    """Recursive descent, one method per level of the grammar.

    `token` cuts the text into pieces, `what` it is called in messages, with an `example`.
    """

    token, what, example = _TOKEN, "filter", EXAMPLE

    def __init__(self, text: str, schema: pa.Schema) -> None:
        self.text = text
        self.schema = schema
        self.values = 0
        self.tokens = self._split()
        self.at = 0

    def _split(self) -> list[Token]:
        tokens, end = [], 0
        stop = len(self.text.rstrip())
        while end < stop:
            match = self.token.match(self.text, end)
            if match is None:
                position = end + len(self.text[end:]) - len(self.text[end:].lstrip())
                raise self.error(position, f"{self.text[position]!r} is not expected here (an open quote?)")
            kind = match.lastgroup or ""
            value, position = match.group(kind), match.start(kind)
            if kind == "quoted":
                value = re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
            tokens.append(Token(kind, _SPELLING.get(value, value) if kind == "op" else value, position))
            end = match.end()
        return [*tokens, Token("end", "the end", len(self.text))]

    def error(self, position: int, what: str) -> InputError:
        """The error at a position."""
        said = f"{self.what}, character {position + 1}: {what}"
        return InputError(f"{said}. Columns: {', '.join(self.schema.names)}. Example: {self.example}")

    @property
    def next(self) -> Token:
        """What comes next."""
        return self.tokens[self.at]

    def take(self) -> Token:
        """What comes next, which is done with."""
        token = self.next
        self.at += token.kind != "end"
        return token

    def expect(self, mark: str) -> None:
        """Take a mark."""
        token = self.take()
        if token.kind != "mark" or token.text != mark:
            raise self.error(token.position, f"expected {mark!r}, found {token.text!r}")

    def is_mark(self, mark: str) -> bool:
        """Whether this mark comes next."""
        return self.next.kind == "mark" and self.next.text == mark

    def parse(self) -> Node:
        """The whole text."""
        node = self.any_of(0)
        if self.next.kind != "end":
            raise self.error(self.next.position, f"expected 'and' or 'or', found {self.next.text!r}")
        return node

    def any_of(self, depth: int) -> Node:
        """Terms between ``or``."""
        terms = [self.all_of(depth)]
        while self.next.is_word("or"):
            self.take()
            terms.append(self.all_of(depth))
        return _joined(terms, any_of=True)

    def all_of(self, depth: int) -> Node:
        """Terms between ``and``."""
        terms = [self.term(depth)]
        while self.next.is_word("and"):
            self.take()
            terms.append(self.term(depth))
        return _joined(terms, any_of=False)

    def term(self, depth: int) -> Node:
        """A term, maybe negated."""
        self.check_depth(depth)
        if self.next.is_word("not"):
            self.take()
            return Not(self.term(depth + 1))
        if self.is_mark("("):
            self.take()
            node = self.any_of(depth + 1)
            self.expect(")")
            return node
        follows = self.tokens[min(self.at + 1, len(self.tokens) - 1)]
        if self.next.is_word("exists") and follows.text == "(" and follows.kind == "mark":
            return self.exists()
        return self.comparison()

    def check_depth(self, depth: int) -> None:
        """Refuse what is nested too deeply."""
        if depth > MAX_DEPTH:
            raise self.error(self.next.position, f"more than {MAX_DEPTH} levels of parentheses and 'not'")

    def exists(self) -> Node:
        """``exists(column)``."""
        self.take()
        self.expect("(")
        column, _ = self.column()
        self.expect(")")
        return Exists(column)

    def column(self) -> tuple[str, Kind]:
        """A column and its kind."""
        token = self.take()
        if token.kind not in ("word", "quoted"):
            raise self.error(token.position, f"expected a column, found {token.text!r}")
        if token.text not in self.schema.names:
            raise self.error(token.position, f"unknown column {token.text!r}")
        return token.text, kind_of(self.schema.field(token.text).type)

    def comparison(self) -> Node:
        """A column and what it is compared with."""
        position = self.next.position
        column, kind = self.column()
        token = self.take()
        if kind is Kind.OTHER:
            raise self.error(position, f"{column} holds {kind}; only exists({column}) is possible")
        if kind is Kind.LIST:
            return self.held(column, token)
        if token.kind == "op" and token.text in ("=", "!="):
            return Comparison(column, kind, "in" if token.text == "=" else "not in", (self.value(column, kind),))
        if token.kind == "op":
            if kind in (Kind.TEXT, Kind.FLAG):
                raise self.error(
                    token.position, f"{column} holds {kind}, which {token.text} does not compare; use = or in"
                )
            return Comparison(column, kind, token.text, (self.value(column, kind),))
        negated = token.is_word("not")
        token = self.take() if negated else token
        if not token.is_word("in"):
            raise self.error(token.position, f"expected = != < <= > >= or in after {column}, found {token.text!r}")
        return Comparison(column, kind, "not in" if negated else "in", self.value_list(column, kind))

    def held(self, column: str, token: Token) -> Node:
        """What is asked of lists; `token` follows the column."""
        inner = inner_kind(self.schema.field(column).type)
        assert inner is not None
        if token.kind == "op" and token.text in ("=", "!="):
            node: Node = Holds(column, inner, (self.value(column, inner),), every=False)
            return Both((Not(node), Exists(column)), any_of=False) if token.text == "!=" else node
        negated = token.is_word("not")
        token = self.take() if negated else token
        if not (token.is_word("in") or (token.is_word("all") and not negated)):
            raise self.error(token.position, f"expected = != [not] in or all after {column}, found {token.text!r}")
        values, every = self.value_list(column, inner), token.is_word("all")
        if every and len(values) > MAX_ALL:
            raise self.error(token.position, f"all with more than {MAX_ALL} values")
        node = Holds(column, inner, values, every)
        return Both((Not(node), Exists(column)), any_of=False) if negated else node

    def value_list(self, column: str, kind: Kind) -> tuple[object, ...]:
        """Values in parentheses."""
        self.expect("(")
        values = [self.value(column, kind)]
        while self.is_mark(","):
            self.take()
            values.append(self.value(column, kind))
        self.expect(")")
        return tuple(values)

    def value(self, column: str, kind: Kind) -> object:
        """A value as it compares with a column."""
        token = self.take()
        if token.kind not in ("word", "quoted"):
            raise self.error(token.position, f"expected a value for {column}, found {token.text!r}")
        self.values += 1
        if self.values > MAX_VALUES:
            raise self.error(token.position, f"more than {MAX_VALUES} values")
        try:
            return literal(token.text, kind)
        except ValueError as error:
            raise self.error(token.position, f"{column} holds {kind}: {error}, found {token.text!r}") from None


def _joined(terms: list[Node], any_of: bool) -> Node:
    """Terms as one; all ``=`` of a column between ``or`` are one ``in``, all ``!=`` between ``and`` one ``not in``."""
    op = "in" if any_of else "not in"
    kept: dict[object, Node] = {}
    for term in terms:
        if isinstance(term, Comparison) and term.op == op:
            before = kept.get(term.column)
            values = (*before.values, *term.values) if isinstance(before, Comparison) else term.values
            kept[term.column] = Comparison(term.column, term.kind, op, tuple(dict.fromkeys(values)))
        else:
            kept[term] = term
    return Both(tuple(kept.values()), any_of) if len(kept) > 1 else next(iter(kept.values()))
