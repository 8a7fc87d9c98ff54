"""The Jinja environment of `jinja.py`: what a template does at run time is asked here what it costs."""

from __future__ import annotations

import datetime as dt
import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinMethodType, MethodType
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, pass_context
from jinja2.ext import Extension
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from kolosal.engines.worker.templates import growth, metering, offer
from kolosal.engines.worker.templates.budget import ITEM_BYTES, MAX_CHAR_BYTES, Budget, OverBudget

_MAX_PATTERN_CHARS: Final = 256
"""Of a date's pattern, which can make 256 times as much."""

_CALL_BYTES: Final = 512
"""What a call or a filter leaves behind at most, beside what it makes."""

_PYTHONS: Final = (str, list, tuple, dict)
"""Types whose methods are asked for."""

_SCOPES: Final = ("_loop_vars", "_block_vars")
"""Arguments of Jinja's own, which it takes away again."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment Hugging Face templates are written for, immutable and on a budget."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self, budget: Budget, extensions: Iterable[type[Extension]]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=tuple(extensions),
            optimized=False,  # which would run parts of the template while it is compiled
            finalize=pass_context(lambda _, value: budget.written(value)),  # and so would one without context
        )
        self.budget = budget
        del self.globals["lipsum"]
        self.globals["dict"] = _dict
        self.globals["namespace"] = _QuietNamespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now
        self._replace_filters()
        self.tests = {
            name: test if name in offer.LIGHT_TESTS else self._weighing(test)
            for name, test in self.tests.items()
        }

    def call_binop(self, _: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`, if it is affordable."""
        if operator == "+" and type(left) is str and type(right) is str:  # by far the most, and short
            self.budget.afford(MAX_CHAR_BYTES * (len(left) + len(right)))
            text = left + right
            self.budget.spend(sys.getsizeof(text))
            return text
        return self._computed(operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805 - as Jinja has it
        """Call a macro, a function of ours, or a method of Python's, if it is affordable."""
        budget = __self.budget
        budget.spend(_CALL_BYTES)
        if isinstance(__obj, BuiltinMethodType | MethodType) and isinstance(__obj.__self__, _PYTHONS):
            named = {name: value for name, value in kwargs.items() if name not in _SCOPES}
            return __self._called(__obj, args, named)
        if not isinstance(__obj, Macro):  # which hands on what it is given
            given = [value for name, value in kwargs.items() if name not in _SCOPES]
            for value in (*args, *given):
                budget.spend(sys.getsizeof(budget.weighed(value)))
        return budget.made(super().call(__context, __obj, *args, **kwargs))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use an attribute."""
        for kinds, names in offer.METHODS:
            if isinstance(obj, kinds):
                return attr in names
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` whose fields count, in place of Python's."""
        if not isinstance(value, BuiltinMethodType) or value.__name__ != "format":
            return None
        text = value.__self__
        return (lambda *args, **named: self._fields(text, args, named)) if type(text) is str else None

    def _replace_filters(self) -> None:
        budget, filters = self.budget, self.filters
        filters |= {"format": self._formatted, "tojson": self._json}
        self.filters = {
            **{name: filters[name] for name in offer.FREE_FILTERS},
            **{name: self._metered(name, filters[name]) for name in offer.FILTERS},
            metering.BODY: self._passed,
            metering.WEIGHED: budget.weighed,
            metering.COPIED: budget.made,
            metering.COUNTED: self._counted,
            metering.JOINED: self._joined,
        }

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that asks before it works."""
        budget = self.budget
        bound = growth.FILTERS.get(name)
        n_context = int(hasattr(function, "jinja_pass_arg"))  # Jinja's own argument comes first
        is_greedy, is_deep = name in offer.GREEDY_FILTERS, name not in offer.SHALLOW_FILTERS
        is_counted = name in offer.COUNTED_FILTERS

        @functools.wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            budget.spend(_CALL_BYTES)
            context, value, rest = args[:n_context], args[n_context], args[n_context + 1 :]
            if is_greedy and isinstance(value, Iterator):
                value = budget.listed(value)
            if is_deep:
                for given in (value, *rest, *kwargs.values()):
                    budget.weighed(given)
            if bound is not None:
                budget.afford(bound(value, *rest, **kwargs))
            if is_counted and value:
                value = budget.metered(value)
            made = budget.made(function(*context, value, *rest, **kwargs))
            if isinstance(made, list):
                budget.spend(ITEM_BYTES * len(made))
            return made

        return metered

    def _weighing(self, test: Any) -> Callable[..., Any]:
        """A test that asks before it compares."""
        weighed = self.budget.weighed

        @functools.wraps(test)
        def weighing(*args: Any) -> Any:
            for value in args:
                weighed(value)
            return test(*args)

        return weighing

    def _computed(self, operator: str, left: Any, right: Any) -> Any:
        budget = self.budget
        budget.afford(growth.of_operator(operator, left, right))
        if operator not in ("+", "*"):  # which do not look into items
            weight = budget.weigh(left) + budget.weigh((right,))  # which may be written as code
            budget.afford(left.count("%") * weight if isinstance(left, str) else 0)
        return budget.made(self.binop_table[operator](left, right))

    def _called(
        self, method: BuiltinMethodType | MethodType, args: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        budget, owner = self.budget, method.__self__
        if not isinstance(owner, dict):
            args = tuple([budget.listed(value) if isinstance(value, Iterator) else value for value in args])
            for value in (owner, *named.values()):
                budget.weighed(value)
        for value in args:
            budget.weighed(value)
        bound = growth.METHODS.get(method.__name__)
        if bound is not None:
            budget.afford(bound(owner, *args, **named))
        made = budget.made(method(*args, **named))
        if isinstance(made, list | tuple):  # pieces of a text
            budget.spend(sys.getsizeof(owner) + ITEM_BYTES * len(made))
        return made

    def _passed(self, n_bytes: int) -> None:
        self.budget.spend(abs(n_bytes))  # `map` finds this filter too, and has any number

    def _counted(self, items: Iterable[Any], n_bytes: int) -> Iterator[Any]:
        return self.budget.metered(items, abs(n_bytes))  # so it does this one

    def _fields(self, text: str, args: tuple[Any, ...], named: dict[str, Any]) -> str:
        return _Formatter(self).vformat(text, args, named)

    def _formatted(self, text: Any, *args: Any, **named: Any) -> str:
        """The filter `format`: the operator `%`."""
        return str(self._computed("%", str(text), named or args))

    def _joined(self, *values: Any) -> str:
        self.budget.afford(sum(map(self.budget.weigh, values)))
        return self.budget.made("".join(map(str, values)))

    def _json(
        self,
        value: object,
        indent: int | str | None = None,
        ensure_ascii: bool = False,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Without Jinja's HTML escapes: the model was trained on plain JSON."""
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
            default=self._listed,
        )
        if indent is None:
            return encoder.encode(value)
        pieces = []
        for piece in encoder.iterencode(value):  # each line is indented as deep as its value lies
            self.budget.spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def _listed(self, value: object) -> list[object]:
        """What filters like `map` give, as JSON has it."""
        if not isinstance(value, Iterator):
            raise TypeError(f"{type(value).__name__} cannot be written as JSON")
        items = self.budget.listed(value)
        self.budget.spend(self.budget.weigh(items))
        return items


class _Formatter(SandboxedFormatter):
    """Fields of `str.format`."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._budget = sandbox.budget

    def format_field(self, value: Any, format_spec: str) -> str:
        """A value as its field shows it."""
        if growth.is_wide(format_spec):
            raise OverBudget(f"a field is wider than {growth.MAX_FIELD_CHARS} characters")
        return self._budget.made(str(super().format_field(self._budget.weighed(value), format_spec)))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        """A value as text, where the field says how."""
        return super().convert_field(self._budget.weighed((value,))[0], conversion)


class _QuietNamespace(Namespace):
    """Not written with all it holds, which could be endless."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _dict(*args: Any, **members: Any) -> dict[Any, Any]:
    return dict(*args, **members)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    if len(pattern) > _MAX_PATTERN_CHARS:
        raise TemplateError(f"the pattern of a date has more than {_MAX_PATTERN_CHARS} characters")
    return dt.datetime.now().astimezone().strftime(pattern)
