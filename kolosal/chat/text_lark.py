"""The format of a custom tool → the Lark source of a call's text and what ends it.

A lexer that looks one byte ahead cannot tell the `\\n` that ends a line from the `\\"` within it, nor the end of a text from more of
it. So all rules become one terminal, which llguidance matches as a regular expression: a rule that holds itself is followed to a
depth only, and what is deeper is not written. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from kolosal.chat.text_regex import AS_IS, TextForm, UnreadableFormat, read_escape
from kolosal.schema import Grammar, GrammarKind

MAX_DEPTH = 16
"""How often a rule may hold itself."""

MAX_DEFINITIONS = 2048
"""Rules and terminals, counted for each depth."""

_STRING = r'"(?:\\.|[^"\\\n])*"'
_TOKEN = re.compile(
    rf"""(?P<skip>\s+|//[^\n]*|\#[^\n]*|->\s*\w+|%llguidance\s*\{{[^\n]*\}}|%import\s+common\s*(?=\())
      | (?P<range>{_STRING}\s*\.\.\s*{_STRING})
      | (?P<string>{_STRING})(?P<fold>i\b)?
      | /(?!/)(?P<regex>(?:\\.|[^/\\\n])*)/(?P<flags>[a-z]*)
      | %import\s+common\s*\.\s*(?P<common>\w+)(?:\s*->\s*(?P<alias>\w+))?
      | (?P<ignore>%ignore\b)
      | ~\s*(?P<least>[0-9]+)(?:\s*\.\.\s*(?P<most>[0-9]+))?
      | (?P<operator>[|()?*+\[\]&]|\{{[0-9]*,?[0-9]*\}})
      | (?P<name>\w+)""",
    re.VERBOSE | re.ASCII,
)
_DEFINITION = re.compile(r"^[ \t]*[?!]{0,2}(?P<head>\w+)[ \t]*:", re.MULTILINE | re.ASCII)
_IMPORTS = re.compile(r"%import\s+common\s*\(([\w\s,]*)\)", re.ASCII)

_COMMON = {
    "DIGIT": "[0-9]",
    "HEXDIGIT": "[a-fA-F0-9]",
    "INT": "[0-9]+",
    "SIGNED_INT": "[+-]?[0-9]+",
    "DECIMAL": r"(?:[0-9]+\.[0-9]*|\.[0-9]+)",
    "FLOAT": r"(?:[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+))",
    "SIGNED_FLOAT": r"[+-]?(?:[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+|(?:[0-9]+\.[0-9]*|\.[0-9]+))",
    "NUMBER": r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "SIGNED_NUMBER": r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?",
    "ESCAPED_STRING": r'"(?:[^"\\\n]|\\[^\n])*"',
    "LCASE_LETTER": "[a-z]",
    "UCASE_LETTER": "[A-Z]",
    "LETTER": "[A-Za-z]",
    "WORD": "[A-Za-z]+",
    "CNAME": "[_A-Za-z][_A-Za-z0-9]*",
    "WS_INLINE": r"[ \t]+",
    "WS": r"[ \t\f\r\n]+",
    "CR": r"\r",
    "LF": r"\n",
    "NEWLINE": r"(?:\r?\n)+",
    "SH_COMMENT": r"#[^\n]*",
    "CPP_COMMENT": r"//[^\n]*",
    "C_COMMENT": r"/\*(?:[^*]|\*+[^*/])*\*+/",
    "SQL_COMMENT": r"--[^\n]*",
}
"""Lark's common terminals."""


def text_source(text: Grammar, form: TextForm, end: str) -> str:
    """The Lark source, in llguidance's dialect, of the texts of a format as a call has them, and `end` after them.

    Raises:
        UnreadableFormat: the format has what cannot be written so.
    """
    if text.kind is GrammarKind.REGEX:
        lines = [f"TEXT: /{form.regex(text.source)}/"]
    else:
        lines = _Rules(_IMPORTS.sub(_spread, text.source), form).lines()
    return "\n".join([*lines, "start: WHOLE", f"WHOLE: TEXT {_terminal(AS_IS.literal(end))}", ""])


def _spread(found: re.Match[str]) -> str:
    return "\n".join(f"%import common.{name}" for name in found[1].replace(",", " ").split())


@dataclass(frozen=True, slots=True)
class _Name:
    """A rule or terminal that a body refers to."""

    name: str


@dataclass(slots=True)
class _Body:
    """What is defined by a name: names, and all else as it is to be written."""

    pieces: list[str | _Name] = field(default_factory=list)
    is_rule: bool = False

    def names(self) -> set[str]:
        return {piece.name for piece in self.pieces if isinstance(piece, _Name)}


class _Rules:
    """One grammar, read once."""

    def __init__(self, source: str, form: TextForm) -> None:
        self._form = form
        self._bodies: dict[str, _Body] = {}
        self._ignored: list[_Body] = []
        heads = [*_DEFINITION.finditer(source)]
        starts = [*(head.start() for head in heads), len(source)]
        self._read(source[: starts[0]], None)
        for head, end in zip(heads, starts[1:], strict=True):
            name = head["head"]
            if name in self._bodies:
                raise UnreadableFormat(f"{name!r} is defined twice")
            body = self._bodies[name] = _Body(is_rule=name.islower())
            self._read(source[head.end() : end], body)
        if "start" not in self._bodies:
            raise UnreadableFormat("there is no rule 'start'")
        for body in [*self._bodies.values(), *self._ignored]:
            for name in sorted(body.names() - self._bodies.keys()):
                raise UnreadableFormat(f"{name!r} is not defined")

    # --- reading ---

    def _read(self, text: str, body: _Body | None) -> None:
        at = 0
        while at < len(text):
            token = _TOKEN.match(text, at)
            if token is None:
                raise UnreadableFormat(
                    f"{text[at : at + 20].splitlines()[0]!r} cannot be in a text's grammar"
                )
            at = token.end()
            if token["ignore"] is not None:
                body = _Body()
                self._ignored.append(body)
            elif token["common"] is not None:
                self._import(token["common"], token["alias"] or token["common"])
            elif (piece := _piece(token, self._form)) is not None:
                if body is None:
                    raise UnreadableFormat(f"{token[0][:20]!r} stands before all rules")
                body.pieces.append(piece)

    def _import(self, name: str, alias: str) -> None:
        pattern = _COMMON.get(name)
        if pattern is None:
            raise UnreadableFormat(f"common.{name} is none of {', '.join(sorted(_COMMON))}")
        self._bodies[alias] = _Body([f"/{self._form.regex(pattern)}/"])

    # --- writing ---

    def lines(self) -> list[str]:
        """All terminals; that of whole texts is `TEXT`."""
        nested = self._nested()
        depth = min(MAX_DEPTH, MAX_DEFINITIONS // len(nested)) if nested else 0
        if len(self._bodies) > MAX_DEFINITIONS or (nested and depth < 2):
            raise UnreadableFormat(f"it has more than {MAX_DEFINITIONS} rules")
        lines = [f"TEXT: {_of('start', depth if 'start' in nested else None)}"]
        if self._ignored:
            choices = " | ".join(f"({self._line(body, nested, None)})" for body in self._ignored)
            lines.append(f"IGNORED: ({choices})*")
        for name, body in self._bodies.items():
            levels = range(depth + 1) if name in nested else [None]
            lines += [f"{_of(name, level)}: {self._line(body, nested, level, depth)}" for level in levels]
        return lines

    def _line(self, body: _Body, nested: set[str], level: int | None, depth: int = 0) -> str:
        return " ".join(self._written(piece, body, nested, level, depth) for piece in body.pieces) or '""'

    def _written(
        self, piece: str | _Name, body: _Body, nested: set[str], level: int | None, depth: int
    ) -> str:
        if isinstance(piece, str):
            text, terminal = piece, piece[0] in '"/('
            terminal = terminal and len(piece) > 1
        else:
            terminal = not self._bodies[piece.name].is_rule
            text = self._reference(piece.name, nested, level, depth)
        return f"({text} IGNORED)" if self._ignored and body.is_rule and terminal else text

    def _reference(self, name: str, nested: set[str], level: int | None, depth: int) -> str:
        if name not in nested:
            return _of(name, None)
        if level is None:
            return _of(name, depth)
        return _of(name, level - 1) if level else "/[a&&b]/"  # no character at all

    def _nested(self) -> set[str]:
        """The names that hold themselves, and those between such."""
        names = {name: body.names() for name, body in self._bodies.items()}
        users: dict[str, set[str]] = {name: set() for name in names}
        for name, used in names.items():
            for each in used:
                users[each].add(name)
        return _without_ends(names) & _without_ends(users)


def _without_ends(edges: dict[str, set[str]]) -> set[str]:
    """The names from which one can go on for ever."""
    into: dict[str, list[str]] = {name: [] for name in edges}
    open_ends = {name: len(targets) for name, targets in edges.items()}
    for name, targets in edges.items():
        for target in targets:
            into[target].append(name)
    ends = [name for name, count in open_ends.items() if not count]
    left = set(edges)
    while ends:
        end = ends.pop()
        left.discard(end)
        for name in into[end]:
            open_ends[name] -= 1
            if not open_ends[name]:
                ends.append(name)
    return left


def _of(name: str, level: int | None) -> str:
    """The terminal that a rule or terminal becomes."""
    kind = "RULE" if name.islower() else "TERMINAL"
    return f"{kind}_{name.upper()}" + ("" if level is None else f"_{level}")


def _piece(token: re.Match[str], form: TextForm) -> str | _Name | None:
    """What a token becomes; None for what says nothing of the text."""
    if token["skip"] is not None:
        return None
    if token["name"] is not None:
        return _Name(token["name"])
    if token["range"] is not None:
        first, last = (_text_of(each) for each in re.findall(_STRING, token["range"]))
        if len(first) != 1 or len(last) != 1 or first > last:
            raise UnreadableFormat(f"{token[0][:40]} is no range of characters")
        return f"/{form.range(first, last)}/"
    if token["string"] is not None:
        return _terminal(form.literal(_text_of(token["string"]), fold=token["fold"] is not None))
    if token["regex"] is not None:
        if set(token["flags"]) - set("isu"):
            raise UnreadableFormat(f"a regular expression has the flags {token['flags'][:20]}")
        pattern = form.regex(token["regex"], dot_all="s" in token["flags"])
        return f"/(?i:{pattern})/" if "i" in token["flags"] else f"/{pattern}/"
    if token["least"] is not None:
        return f"{{{token['least']},{token['most'] or token['least']}}}"
    return token["operator"]


def _terminal(pattern: str) -> str:
    """A regular expression as Lark has it, where it has none for nothing."""
    return f"/{pattern}/" if pattern else '""'


def _text_of(quoted: str) -> str:
    """A string of a Lark grammar as the text it is."""
    text, at = "", 1
    while at < len(quoted) - 1:
        char, at = read_escape(quoted, at + 1) if quoted[at] == "\\" else (quoted[at], at + 1)
        text += char
    return text
