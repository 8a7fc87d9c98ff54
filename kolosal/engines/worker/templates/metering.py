# ruff: noqa: N802 - the visitor's methods are named by the classes of nodes
"""Puts the budget into a template: its syntax tree in, the same one that asks before it does anything large out.

The hooks are filters, which compile to plain function calls. Their names are no names of Jinja's, so that templates
have none like them.
"""

from __future__ import annotations

from typing import Any, Final

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from kolosal.engines.worker.templates.budget import MAX_CHAR_BYTES

BODY: Final = "!body"
"""Spends what one pass through a body makes."""
WEIGHED: Final = "!weighed"
"""The value, which is about to be read to its end."""
COPIED: Final = "!copied"
"""The value, which was just made."""
COUNTED: Final = "!counted"
"""Items, each of which is work and makes so much."""
JOINED: Final = "!joined"
"""Values as one text: the operator `~`."""

_REPEATED: Final = (nodes.Template, nodes.Block, nodes.For, nodes.Macro, nodes.CallBlock)
_BUFFERS: Final = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock)
"""What keeps the text within it; other text is put out at once, and counted there.

A recursive loop and a block that is called by its name would keep theirs too: both are refused.
"""

_MACROS: Final = (nodes.Macro, nodes.CallBlock)

_MAX_MACRO_NAME_CHARS: Final = 128
"""A macro is written as its name, wherever it is one of many items."""

_NODE_BYTES = 4
"""For the time that a node takes, more than for what it makes."""
_LIST_BYTES, _ITEM_BYTES, _MEMBER_BYTES = 64, 8, 112
_LOOP_BYTES, _MACRO_BYTES = 512, 1024


def metered(template: nodes.Template) -> nodes.Template:
    """The template with hooks.

    Raises:
        TemplateSyntaxError: it uses what cannot be metered and what no chat template needs.
    """
    _Metering(_n_names(template)).visit(template)
    return template


class _Metering(NodeTransformer):
    def __init__(self, n_names: int) -> None:
        self._n_names = n_names
        self._in_buffer = False

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Let each body that can come more than once begin with what a pass through it makes."""
        outer, self._in_buffer = self._in_buffer, self._in_buffer or isinstance(node, _BUFFERS)
        n_bytes = 0
        if isinstance(node, _REPEATED):
            passed = [*node.body, *node.defaults] if isinstance(node, _MACROS) else node.body
            n_bytes = sum(self._bytes_of(child, in_buffer=self._in_buffer) for child in passed)
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, _REPEATED):
            spend = _hook(BODY, nodes.Const(n_bytes, lineno=node.lineno))
            node.body.insert(0, nodes.ExprStmt(spend, lineno=node.lineno))
        self._in_buffer = outer
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """What a loop leaves out does not pass through its body."""
        if node.recursive:  # it would join what all its passes have put out
            raise TemplateSyntaxError("a chat template cannot have a recursive loop", node.lineno)
        n_bytes = 0 if node.test is None else self._bytes_of(node.test, in_buffer=False)
        self.generic_visit(node)
        if node.test is not None:
            node.iter = _hook(COUNTED, node.iter, nodes.Const(n_bytes, lineno=node.lineno))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Its name is not weighed."""
        if len(node.name) > _MAX_MACRO_NAME_CHARS:
            raise TemplateSyntaxError(
                f"the name of a macro has {len(node.name)} characters, more than {_MAX_MACRO_NAME_CHARS}",
                node.lineno,
            )
        self.generic_visit(node)
        return node

    def visit_Name(self, node: nodes.Name) -> nodes.Name:
        """`self` calls blocks by their names, which joins what they have put out."""
        if node.name == "self":
            raise TemplateSyntaxError("a chat template cannot use the name 'self'", node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Joined texts can double with each pass."""
        self.generic_visit(node)
        return _hook(JOINED, *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Comparing reads both sides, unless one is short."""
        is_cheap = _is_cheap(node)
        self.generic_visit(node)
        if not is_cheap:
            node.expr = _weighed(node.expr)
            for operand in node.ops:
                operand.expr = _weighed(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """A slice is a copy, and a key is read to be found."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _hook(COPIED, node)
        node.arg = _weighed(node.arg)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        """So is the key of a new member."""
        self.generic_visit(node)
        node.key = _weighed(node.key)
        return node

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        """A call has as many arguments as are written there."""
        return self._without_stars(node)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """So has a filter."""
        return self._without_stars(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """And a test."""
        return self._without_stars(node)

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:
        """Escaping would happen after what is written was weighed."""
        raise TemplateSyntaxError("a chat template cannot escape by itself", node.lineno)

    def _without_stars(self, node: nodes.Call | nodes.Filter | nodes.Test) -> nodes.Expr:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise TemplateSyntaxError("a chat template cannot unpack arguments with stars", node.lineno)
        self.generic_visit(node)
        return node

    def _bytes_of(self, node: nodes.Node, *, in_buffer: bool) -> int:
        """What a statement makes each time: lists, and text where it is kept; not what it repeats."""
        n_bytes = _NODE_BYTES
        match node:
            case nodes.TemplateData() if in_buffer:
                n_bytes += MAX_CHAR_BYTES * len(node.data)  # one wide character makes all that is joined wide
            case nodes.List() | nodes.Tuple():
                n_bytes += _LIST_BYTES + _ITEM_BYTES * len(node.items)
            case nodes.Dict():
                n_bytes += _LIST_BYTES + _MEMBER_BYTES * len(node.items)
            case nodes.For():
                n_bytes += _LOOP_BYTES
            case nodes.Call() | nodes.Filter() | nodes.Test():
                n_bytes += _ITEM_BYTES * len(node.args) + _MEMBER_BYTES * len(node.kwargs)
            case nodes.Macro() | nodes.CallBlock():
                n_bytes += _MACRO_BYTES + _ITEM_BYTES * self._n_names  # each may be kept from outside
        in_buffer = in_buffer or isinstance(node, _BUFFERS)
        children = node.iter_child_nodes(exclude=("body",) if isinstance(node, _REPEATED) else None)
        return n_bytes + sum(self._bytes_of(child, in_buffer=in_buffer) for child in children)


def _hook(name: str, value: nodes.Node, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def _weighed(value: nodes.Expr) -> nodes.Expr:
    return value if isinstance(value, nodes.Const) else _hook(WEIGHED, value)


def _is_cheap(node: nodes.Compare) -> bool:
    """Whether something is compared with what the template itself has, which is read as far as that is long."""
    operand = node.ops[0]
    if len(node.ops) > 1:
        return False
    if operand.op in ("eq", "ne"):
        return isinstance(node.expr, nodes.Const) or isinstance(operand.expr, nodes.Const)
    series = operand.expr
    return isinstance(series, nodes.List | nodes.Tuple) and all(
        isinstance(item, nodes.Const) for item in series.items
    )


def _n_names(template: nodes.Template) -> int:
    """How many names it has."""
    names: set[str] = set()
    pending: list[nodes.Node] = [template]
    while pending:
        node = pending.pop()
        if isinstance(node, nodes.Name):
            names.add(node.name)
        pending += node.iter_child_nodes()
    return len(names)
