"""What a grammar may cost. For the worker and for the process that compiles first: `check_process.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kolosal.engines.worker.sandbox.limits import ProcessLimits

if TYPE_CHECKING:
    from llguidance import LLParserLimits

LIMITS: Final = ProcessLimits(cpu_s=1.0, memory_bytes=512 * 1024 * 1024, answer_bytes=32 * 1024 * 1024)
"""Processor time of compiling a grammar; 2,000 optional properties take 0.4 s. Memory is counted as addresses, of which Python,
llguidance and their threads have 150 MiB. An answer is the grammar as llguidance reads it, as JSON."""

CHECK_STACK_BYTES: Final = 4 * 1024 * 1024
"""Stack of the thread that compiles first. A chain of 1,500 references fits."""

MATCH_STACK_BYTES: Final = 64 * 1024 * 1024
"""Stack of the worker's threads that compile, and follow, what fitted above: addresses, not memory."""

MAX_IDLE_S: Final = 60.0
"""How long the process that compiles first lives on when there is nothing new to compile."""

MAX_CACHED: Final = 64
"""Compiled grammars that are kept, and those that were refused."""

MAX_CACHED_CPU_S: Final = 1.0
"""Processor time that compiling all of those took: their memory grows with it, some 100 MiB a second."""

MATCH_CPU_S: Final = 0.5
"""Processor time that following one grammar may take, of the engine thread, for which all its sequences wait…"""

MATCH_CPU_S_PER_TOKEN: Final = 0.01
"""…and as much again for each token of the text. Ordinary ones take 0.0003."""


def parser_limits() -> LLParserLimits:
    """llguidance's own, for compiling and for each step.

    Its row of 2,000 items is full with 500 optional properties; ours has room for 5,000. Its fuel for building lexers, which
    also bounds what a single step may build, would be two seconds; ours is a fifth, and real schemas of 2,000 properties
    need less.
    """
    from llguidance import LLParserLimits  # noqa: PLC0415 - most workers never need it

    return LLParserLimits(
        max_items_in_row=20_000,
        step_max_items=200_000,
        initial_lexer_fuel=250_000,
        step_lexer_fuel=200_000,
        max_lexer_states=50_000,
        verbose_errors=False,
    )
