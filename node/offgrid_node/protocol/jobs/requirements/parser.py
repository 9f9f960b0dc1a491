"""From words to a tree, with every type checked; errors say where, what is wrong and what is allowed there.

either     = both { "or" both }
both       = one { "and" one }
one        = "not" one | "(" either ")" | operand sign operand
operand    = name | number | text | "[" (text | number) { "," … } "]"
sign       = == != < <= > >= in "not in"
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.protocol.jobs.requirements.attributes import Attribute, Kind, allowed, find, suggestion
from offgrid_node.protocol.jobs.requirements.nodes import Both, Comparison, Either, Literal, Node, Not, Operand
from offgrid_node.protocol.jobs.requirements.tokens import Token, Word, tokens_of, wrong

DEPTH_MAX = 16  # of brackets and "not"s within each other: a tree is walked by recursion
COMPARISONS_MAX = 64
LIST_MAX = 64
KEYWORDS = frozenset({"and", "or", "not", "in"})
EQUAL, ORDER, MEMBER = frozenset({"==", "!="}), frozenset({"<", "<=", ">", ">="}), frozenset({"in", "not in"})
# What may stand on either side of which signs; whatever is not here is an error.
TYPES: dict[tuple[Kind, Kind], frozenset[str]] = {
    (Kind.NUMBER, Kind.NUMBER): EQUAL | ORDER,
    (Kind.TEXT, Kind.TEXT): EQUAL,
    (Kind.NAME, Kind.TEXT): EQUAL,
    (Kind.NUMBER, Kind.NUMBERS): MEMBER,
    (Kind.TEXT, Kind.TEXTS): MEMBER,
    (Kind.NAME, Kind.TEXTS): MEMBER,
}


def parse_tree(text: str, field: str) -> Node | None:
    """None for an empty text. Raises InvalidRequest."""
    tokens = tokens_of(text, field)
    if tokens[0].word == Word.END:
        return None
    return _Parser(tokens, field).whole()


class _Parser:
    def __init__(self, tokens: list[Token], field: str) -> None:
        self._tokens, self._field = tokens, field
        self._next, self._depth, self._comparisons = 0, 0, 0

    def whole(self) -> Node:
        tree = self._either()
        if self._token.word != Word.END:
            raise self._wrong(f"{self._token.text!r} stands where 'and', 'or' or the end is expected")
        return tree

    # ---- the grammar

    def _either(self) -> Node:
        parts = self._joined("or", self._both)
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Node:
        parts = self._joined("and", self._one)
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _joined(self, keyword: str, part: Callable[[], Node]) -> list[Node]:
        parts = [part()]
        while self._accept(keyword):
            parts.append(part())
        return parts

    def _one(self) -> Node:
        start = self._token
        if start.text not in ("not", "(") or start.word not in (Word.NAME, Word.SIGN):
            return self._comparison()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self._wrong(f"brackets and 'not' are nested more than {DEPTH_MAX} deep")
        self._next += 1
        if start.text == "not":
            node: Node = Not(self._one())
        else:
            node = self._either()
            self._expect(")")
        self._depth -= 1
        return node

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > COMPARISONS_MAX:
            raise self._wrong(f"more than {COMPARISONS_MAX} comparisons")
        start = self._token
        left = self._operand()
        at = self._token
        sign = self._sign(left)
        right = self._operand()
        if not isinstance(left, Attribute) and not isinstance(right, Attribute):
            raise wrong(self._field, start.at, f"nothing is asked of the host; one side is one of: {allowed()}")
        if sign not in TYPES.get((left.kind, right.kind), ()):
            raise wrong(self._field, at.at, _mismatch(left, sign, right))
        return Comparison(left, sign, right)

    def _operand(self) -> Operand:
        token = self._token
        if token.word == Word.NUMBER or token.word == Word.TEXT:
            return self._literal()
        if token.word == Word.NAME and token.text not in KEYWORDS:
            self._next += 1
            return self._attribute(token)
        if self._accept("["):
            return self._list(token)
        what = f"{token.text!r} stands" if token.text else "the text ends"
        raise self._wrong(f"{what} where a name, a number, a text in quotes or a list is expected")

    def _attribute(self, token: Token) -> Attribute:
        found = find(token.text)
        if found is None:
            meant = suggestion(token.text)
            hint = f"did you mean {meant!r}? " if meant else ""
            raise wrong(self._field, token.at, f"{token.text[:80]!r} is not known; {hint}allowed: {allowed()}")
        return found

    def _literal(self) -> Literal:
        token = self._token
        if token.word not in (Word.NUMBER, Word.TEXT):
            what = repr(token.text) if token.text else "the end"
            raise self._wrong(f"{what} stands where a number or a text in quotes is expected")
        self._next += 1
        return Literal(Kind.NUMBER if token.word == Word.NUMBER else Kind.TEXT, token.value)

    def _list(self, start: Token) -> Literal:
        entries = [self._literal()]
        while self._accept(","):
            entries.append(self._literal())
        self._expect("]")
        kinds = {entry.kind for entry in entries}
        if len(kinds) > 1:
            raise wrong(self._field, start.at, "a list holds numbers or texts, not both")
        if len(entries) > LIST_MAX:
            raise wrong(self._field, start.at, f"{len(entries)} entries; a list holds at most {LIST_MAX}")
        kind = Kind.NUMBERS if kinds == {Kind.NUMBER} else Kind.TEXTS
        return Literal(kind, tuple(entry.value for entry in entries))

    def _sign(self, left: Operand) -> str:
        token = self._token
        if token.word == Word.SIGN and token.text in EQUAL | ORDER:
            self._next += 1
            return token.text
        if self._accept("in"):
            return "in"
        if self._accept("not"):
            self._expect("in")
            return "not in"
        what = f"{token.text!r} stands" if token.text else "the text ends"
        raise self._wrong(f"{what} where a comparison is expected; allowed here: {_signs_of(left)}")

    # ---- words

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _accept(self, text: str) -> bool:
        token = self._token
        if token.text != text or token.word not in (Word.NAME, Word.SIGN):
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            what = f"{self._token.text!r} stands" if self._token.text else "the text ends"
            raise self._wrong(f"{what} where {text!r} is expected")

    def _wrong(self, why: str) -> Exception:
        return wrong(self._field, self._token.at, why)


def _signs_of(left: Operand) -> str:
    """As the table of types has them, in a fixed order."""
    order = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
    known = frozenset[str]().union(*(signs for (one, _), signs in TYPES.items() if one == left.kind))
    return ", ".join(sign for sign in order if sign in known) or "none: a list stands behind 'in'"


def _mismatch(left: Operand, sign: str, right: Operand) -> str:
    rights = [kind.value for (one, kind), signs in TYPES.items() if one == left.kind and sign in signs]
    said = f"{_said(left)} {sign} {_said(right)}: these types are not compared so"
    if rights:
        return f"{said}; {sign!r} here wants a {' or a '.join(rights)} on its right"
    return f"{said}; a {left.kind.value} knows {_signs_of(left)}"


def _said(operand: Operand) -> str:
    name = operand.name if isinstance(operand, Attribute) else str(operand)[:40]
    return f"{name} (a {operand.kind.value})"
