"""Grammars that cost the stack, the time or the memory of whoever compiles or follows them."""

from __future__ import annotations

import json
from typing import Final

from kolosal.schema import Grammar, GrammarKind


def schema(value: object) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value), "response_format")


def ref_chain(n: int) -> dict[str, object]:
    """A schema whose references lead to one another, through arrays: a mere chain the daemon would follow itself."""
    chain: dict[str, object] = {
        f"a{index}": {"type": "array", "items": {"$ref": f"#/$defs/a{index + 1}"}} for index in range(n)
    }
    return {"$ref": "#/$defs/a0", "$defs": chain | {f"a{n}": {"type": "null"}}}


def rule_chain(n: int) -> str:
    """A Lark grammar of rules that lead to one another."""
    return "start: r0\n" + "".join(f'r{index}: "a" r{index + 1}\n' for index in range(n)) + f'r{n}: "b"\n'


def gbnf_rules(n: int) -> str:
    rules = "".join(f'r{index} ::= "a" r{index + 1} | [a-z]{{1,9}}\n' for index in range(n))
    return f'root ::= r0\n{rules}r{n} ::= "b"\n'


def optional_properties(n: int) -> dict[str, object]:
    properties = {f"p{index}": {"type": "string"} for index in range(n)}
    return {"type": "object", "properties": properties, "additionalProperties": False}


DEEP: Final = {
    "ref-chain": schema(ref_chain(3000)),
    "lark-chain": Grammar(GrammarKind.LARK, rule_chain(8000), "lark"),
    "lark-terminals": Grammar(
        GrammarKind.LARK, rule_chain(8000).replace("r", "R").replace("staRt", "start"), "lark"
    ),
    "negations": Grammar(
        GrammarKind.LARK,
        "start: R0\n" + "".join(f"R{i}: ~(R{i + 1}) & /[a-z]*/\n" for i in range(6000)) + "R6000: /b+/\n",
        "lark",
    ),
}
"""Overflow a stack of ordinary size."""

SLOW: Final = {
    "gbnf-8000": Grammar(GrammarKind.GBNF, gbnf_rules(8000), "grammar"),
    "properties-7000": schema(optional_properties(7000)),
    "multiple-of": schema({"type": "integer", "multipleOf": 1_000_003}),
}
"""Take seconds to compile."""


def alternatives(count: int) -> Grammar:
    """One of so many words."""
    words = " | ".join(f'"w{index}"' for index in range(count))
    return Grammar(GrammarKind.GBNF, f"root ::= {words}", "grammar")


FAILING: Final = {
    "regex-rep": Grammar(GrammarKind.REGEX, "(a{1000}){1000}", "regex"),
    "lark-rep": Grammar(GrammarKind.LARK, 'start: a{1000}\na: b{1000}\nb: "x"\n', "lark"),
    "gbnf-alternatives": alternatives(20_000),
}
"""Run into a limit of llguidance after they were compiled; so many alternatives take nearly all the time that compiling has."""

AMBIGUOUS: Final = Grammar(GrammarKind.LARK, "start: e\ne: e e | e e e | e e e e | /[a-z]/\n", "lark")
"""Costs more with each character, and runs into no limit of llguidance."""
