"""Constrained output: which tokens a grammar allows next.

Owns the translation of a request's grammar and tools to llguidance (https://github.com/guidance-ai/llguidance), which does the
work. It is imported with the first constrained request: others do not pay for it.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kolosal.chat.grammar import TurnFacts, TurnGrammar
from kolosal.chat.schemas import ANSWER, JSON_SPACING, tool_param, tool_schema
from kolosal.engines.worker.grammars import limits
from kolosal.engines.worker.grammars.checker import CheckGrammar, GrammarRefused, check_here
from kolosal.engines.worker.grammars.llguidance_text import GrammarPart, GrammarTask
from kolosal.engines.worker.grammars.run_limits import RunLimits, RunVocabulary
from kolosal.errors import InvalidRequest
from kolosal.schema import Grammar, GrammarKind, ToolUse

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_FORCED_TOKENS = 64
"""Forced tokens (llguidance's "fast-forward" ones) appended at once; the rest follows with the next step."""


@dataclass(frozen=True, slots=True)
class WantedTurn:
    """What a chat's next turn must be: its thoughts are free, its calls fit the tools, the rest is `answer`."""

    tool_use: ToolUse
    answer: Grammar | None
    facts: TurnFacts


Wanted: TypeAlias = Grammar | WantedTurn
"""What a text must conform to."""


class ConstraintFailed(Exception):
    """A constraint cannot say what may follow, so its text ends here. `error` is for the client."""

    def __init__(self, error: InvalidRequest) -> None:
        super().__init__(error.message)
        self.error = error


class Constraint:
    """The state of one constrained sequence: each token is accepted once, in order. Used by one thread at a time.

    llguidance says of a failure what it says of an end, that nothing may follow: here it is `ConstraintFailed`. Its limits
    count what it builds, and not how long that takes, so the time it takes is counted too.
    """

    def __init__(self, matcher: LLMatcher, name: str, param: str | None, runs: RunLimits | None) -> None:
        """`name` and `param`: of the grammar, for errors; `runs`: where the text is JSON, see there."""
        self._matcher = matcher
        self._name, self._param = name, param
        self._runs = runs
        self._left_s = limits.MATCH_CPU_S

    @property
    def finished(self) -> bool:
        """Nothing may follow: the text is complete."""
        return self._matcher.is_stopped()

    def mask(self) -> bytes:
        """One bit per token of the vocabulary, lowest bit first; 1 is allowed.

        Raises:
            ConstraintFailed: llguidance cannot say.
        """
        mask = self._counted(self._matcher.compute_bitmask)
        return mask if self._runs is None else self._runs.limited(mask)

    def allows(self, token: int) -> bool:
        """Whether a token may come next. Raises as `mask`."""
        return bool(self.mask()[token // 8] >> token % 8 & 1)

    def accept(self, token: int) -> None:
        """Go on by a token.

        Raises:
            ConstraintFailed: the grammar does not allow it, or llguidance cannot say.
        """
        self._left_s = min(self._left_s + limits.MATCH_CPU_S_PER_TOKEN, limits.MATCH_CPU_S)
        self._counted(self._matcher.consume_token, token)
        if self._runs is not None:
            self._runs.extend([token])

    def forced(self) -> list[int]:
        """The tokens that must follow, accepted already: nothing else is allowed, so none of them is sampled.

        Raises:
            ConstraintFailed: llguidance cannot say.
        """
        tokens: list[int] = self._counted(self._matcher.compute_ff_tokens)[:MAX_FORCED_TOKENS]
        if tokens:
            self._counted(self._matcher.consume_tokens, tokens)
            if self._runs is not None:
                self._runs.extend(tokens)
        return tokens

    def _counted(self, step: Callable[..., Any], *arguments: Any) -> Any:
        started_s = time.thread_time()
        result = step(*arguments)
        self._left_s -= time.thread_time() - started_s
        if self._matcher.is_error():
            self._fail(_shorten(self._matcher.get_error()))
        if self._left_s < 0:
            self._fail(
                "what it allows takes too long to find out: it may be ambiguous, or allow too much at once"
            )
        return result

    def _fail(self, reason: str) -> None:
        message = f"The {self._name} could not be followed to its end: {reason}"
        raise ConstraintFailed(InvalidRequest(message, param=self._param))


class _Compiled(NamedTuple):
    """A grammar that was compiled, or refused."""

    matcher: LLMatcher | None
    refusal: InvalidRequest | None
    cpu_s: float


class ConstraintCompiler:
    """Compiles grammars for one vocabulary, and remembers them. Used by any thread."""

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._make_tokenizer = make_tokenizer
        self._compiled: OrderedDict[bytes, _Compiled] = OrderedDict()
        self._lock = threading.Lock()

    def ready(self, wanted: Wanted) -> Constraint | None:
        """The constraint of a new sequence where its grammar was compiled before; None where it was not.

        Raises:
            InvalidRequest: it was refused before.
        """
        return self._found(_digest(wanted), wanted)

    def compile(self, wanted: Wanted, check: CheckGrammar = check_here) -> Constraint:
        """The constraint of a new sequence. `check` sees what compiling costs before it is done here.

        Raises:
            InvalidRequest: the grammar is not valid, and the message says where, or costs more than it may.
        """
        digest = _digest(wanted)
        found = self._found(digest, wanted)
        if found is not None:
            return found
        started_s = time.thread_time()
        try:
            matcher = self._matcher(wanted, check)
        except InvalidRequest as exc:
            self._keep(digest, _Compiled(None, exc, 0.0))
            raise
        self._keep(digest, _Compiled(matcher, None, time.thread_time() - started_s))
        return self._constraint(matcher.deep_copy(), wanted)

    def vocabulary(self) -> dict[str, Any]:
        """What `check_process.py` needs to know of it."""
        tokenizer = self._tokenizer
        special = filter(tokenizer.is_special_token, range(tokenizer.vocab_size))
        return {
            "n_vocab": tokenizer.vocab_size,
            "special": {token: tokenizer.decode_str([token]) for token in special},
            "eos": list(tokenizer.eos_tokens),
        }

    # --- what was compiled ---

    def _found(self, digest: bytes, wanted: Wanted) -> Constraint | None:
        with self._lock:
            found = self._compiled.get(digest)
            if found is None:
                return None
            self._compiled.move_to_end(digest)
            if found.refusal is not None:
                raise InvalidRequest(found.refusal.message, param=found.refusal.param)
            assert found.matcher is not None  # noqa: S101 - one of the two
            return self._constraint(found.matcher.deep_copy(), wanted)

    def _keep(self, digest: bytes, compiled: _Compiled) -> None:
        """Remember it instead of those that were not asked for the longest."""
        with self._lock:
            self._compiled[digest] = compiled
            total_s = sum(each.cpu_s for each in self._compiled.values())
            while len(self._compiled) > limits.MAX_CACHED or total_s > limits.MAX_CACHED_CPU_S:
                _, oldest = self._compiled.popitem(last=False)
                total_s -= oldest.cpu_s
                if not self._compiled:
                    return

    def _constraint(self, matcher: LLMatcher, wanted: Wanted) -> Constraint:
        match wanted:
            case Grammar(kind=kind, param=param):
                runs = self._run_limits() if kind is GrammarKind.JSON_SCHEMA else None
                return Constraint(matcher, kind, param, runs)
            case WantedTurn(answer=answer):
                param = "tools" if answer is None else answer.param
                return Constraint(matcher, "grammar of tools and answer", param, self._run_limits())

    def _run_limits(self) -> RunLimits:
        return RunLimits(self._run_vocabulary)

    @cached_property
    def _run_vocabulary(self) -> RunVocabulary:
        tokenizer = self._tokenizer
        return RunVocabulary(lambda token: tokenizer.decode_bytes([token]), tokenizer.vocab_size)

    # --- compiling ---

    def _matcher(self, wanted: Wanted, check: CheckGrammar) -> LLMatcher:
        match wanted:
            case Grammar():
                return self._own(wanted, check, renew=True)
            case WantedTurn():
                return self._turn(wanted, check)

    def _own(self, grammar: Grammar, check: CheckGrammar, *, renew: bool) -> LLMatcher:
        try:
            return self._checked(_task({ANSWER: grammar}), check, renew=renew)
        except GrammarRefused as exc:
            reason = f"The {grammar.kind} is not valid: {_shorten(str(exc))}"
            raise InvalidRequest(reason, param=grammar.param) from exc

    def _turn(self, turn: WantedTurn, check: CheckGrammar) -> LLMatcher:
        """A turn's matcher. A tool whose schema is refused takes any object, unless it is strict: it may never be called."""
        try:
            return self._with_tools(turn, check)
        except GrammarRefused as exc:
            reason = str(exc)
        try:
            return self._with_tools(turn, check, self._refused_tools(turn, check))
        except GrammarRefused:
            raise InvalidRequest(f"The tools are not valid: {_shorten(reason)}", param="tools") from None

    def _with_tools(
        self, turn: WantedTurn, check: CheckGrammar, open_tools: Collection[int] | None = None
    ) -> LLMatcher:
        """`open_tools`: positions of those that take any object; None in the first try.

        Raises:
            GrammarRefused: the grammar is refused.
        """
        rules = TurnGrammar(
            turn.tool_use,
            turn.answer,
            turn.facts,
            self._special_token,
            tuple(self._tokenizer.eos_tokens),
            open_tools or (),
        )
        source = rules.source()
        parts = rules.texts if turn.answer is None else rules.texts | {ANSWER: turn.answer}
        try:
            return self._checked(_task(parts, source), check, renew=open_tools is None)
        except GrammarRefused:
            for part in parts.values() if open_tools is None else ():
                self._own(part, check, renew=False)
            raise

    def _refused_tools(self, turn: WantedTurn, check: CheckGrammar) -> Collection[int]:
        """Positions of the tools that make a turn's grammar invalid: of all that are not strict, where none does alone.

        Raises:
            InvalidRequest: one of them is strict.
        """
        refused = []
        for position, tool in enumerate(turn.tool_use.tools):
            schema = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(tool_schema(position, tool)))
            try:
                self._checked(_task({ANSWER: schema}), check, renew=False)
            except GrammarRefused as exc:
                if tool.strict:
                    param = tool_param(position, tool)
                    reason = f"Field {param} is not valid: {_shorten(str(exc))}"
                    raise InvalidRequest(reason, param=param) from exc
                refused.append(position)
        tools = enumerate(turn.tool_use.tools)
        return refused or [position for position, tool in tools if not tool.strict]

    def _checked(self, task: GrammarTask, check: CheckGrammar, *, renew: bool) -> LLMatcher:
        """The matcher of what was found to cost no more than it may.

        Raises:
            GrammarRefused: it is not valid, or costs more.
        """
        from llguidance import LLMatcher  # noqa: PLC0415 - most workers never need it

        text = check(task, renew)
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=limits.parser_limits())
        if matcher.is_error():
            raise GrammarRefused(matcher.get_error())
        return matcher

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return self._make_tokenizer()

    def _special_token(self, marker: str) -> int | None:
        """The one token that a marker is, where llguidance holds it for none of text."""
        tokens = self._tokenizer.tokenize_str(marker, parse_special=True)
        return tokens[0] if len(tokens) == 1 and self._tokenizer.is_special_token(tokens[0]) else None


def _digest(wanted: Wanted) -> bytes:
    return hashlib.sha256(repr(wanted).encode(errors="surrogatepass")).digest()


def _task(grammars: dict[str, Grammar], turn: str | None = None) -> GrammarTask:
    parts = [GrammarPart(name, str(each.kind), each.source) for name, each in grammars.items()]
    return GrammarTask(parts, turn, JSON_SPACING)


def _shorten(reason: str) -> str:
    words, _, _ = reason.partition("\n<backtrace>")
    return words.removesuffix("<non-verbose/>").strip()[:500]
