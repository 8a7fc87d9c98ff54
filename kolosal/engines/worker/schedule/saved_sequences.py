"""SavedSequences: what sequences without cells have left in host memory and in files, and which of it serves a prompt.

Pure: states are opaque bytes, made and used by whoever asks. Matching is by exact tokens within one scope, as in the prefix cache.
What goes first where the bytes are used up is GreedyDual-Size with frequency, as there: a token is worth as much as its sequence
is long, more where it was of use, and what was dropped last raises the worth of all that come later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kolosal.engines.worker.backend import Reuse
from kolosal.engines.worker.schedule.prefix_cache import common_prefix
from kolosal.engines.worker.schedule.sequence import Sequence

LEAST_TOKENS = 256
"""What has fewer is computed again in a moment."""

LEAST_GAIN_TOKENS = 64
"""So many tokens more than the cells that are there have must be found, and a sixteenth of those that are restored for it."""

_TOKEN_BYTES = 8
"""What an entry of a list takes; the numbers themselves are shared with others or few."""

_WEIGHT = 0.2
"""Of the newest measurement in the moving averages."""


@dataclass(slots=True, eq=False)
class Saved:
    """The cells of one sequence."""

    tokens: list[int]
    scope: str
    state: memoryview | None = None
    """What `Backend.save` gave, where it is in host memory."""
    path: Path | None = None
    """Its file, where it has one."""
    is_moving: bool = False
    """Whether it is being written to a file, or read from one."""
    worth: float = 0.0
    used: bool = False

    @property
    def n_bytes(self) -> int:
        """What it takes in host memory, its tokens included."""
        return 0 if self.state is None else _TOKEN_BYTES * len(self.tokens) + self.state.nbytes


class SavedSequences:
    """The saved sequences of one engine, of `max_bytes` of host memory in all; with 0 none are saved there."""

    def __init__(self, max_bytes: int, reuse: Reuse, *, least_tokens: int = LEAST_TOKENS) -> None:
        self._max_bytes = 0 if reuse is Reuse.NONE else max_bytes
        self._reuse = reuse
        self._least_tokens, self._least_gain = least_tokens, min(least_tokens, LEAST_GAIN_TOKENS)
        self._delete: Callable[[Path], None] | None = None
        self._saved: list[Saved] = []
        self._inflation = 0.0
        self._bytes_per_token = self._seconds_per_token = 0.0  # learned
        self.n_bytes = 0
        """Bytes in use."""

    def __len__(self) -> int:
        return len(self._saved)

    def __iter__(self) -> Iterator[Saved]:
        return iter(self._saved)

    def begin(self, tokens: list[int], scope: str, within_s: float) -> Saved | None:
        """An entry for a sequence whose cells are about to go; None where it is not to be saved: it is short, saved already, takes
        too many bytes, or longer than `within_s`."""
        if len(tokens) * self._bytes_per_token > self._max_bytes or not self._max_bytes:
            return None
        return self._begin(tokens, scope, within_s)

    def begin_file(self, tokens: list[int], scope: str, within_s: float) -> Saved | None:
        """The same for one that keeps its cells, and is to have a file; ends with `written`."""
        return None if self._delete is None else self._begin(tokens, scope, within_s)

    def _begin(self, tokens: list[int], scope: str, within_s: float) -> Saved | None:
        if len(tokens) < self._least_tokens or len(tokens) * self._seconds_per_token > within_s:
            return None
        if self._has(tokens, scope):
            return None
        saved = Saved(list(tokens), scope)
        self._saved.append(saved)
        return saved

    def seconds_of(self, n_tokens: int) -> float | None:
        """What it takes to save so many tokens and to restore them, as far as that is known; None where they are not saved."""
        if not self._max_bytes or n_tokens < self._least_tokens:
            return None
        if n_tokens * self._bytes_per_token > self._max_bytes:
            return None
        return 2 * n_tokens * self._seconds_per_token

    def commit(self, saved: Saved, state: memoryview, seconds: float) -> None:
        """Note the state of an entry, and how long it took to save. What it makes superfluous goes, then what is worth least."""
        self.observe(saved, state, seconds)
        if saved not in self._saved:  # another one of the same step has made it superfluous
            return
        saved.state = state
        self.n_bytes += saved.n_bytes
        self._revalue(saved)
        self._supersede(saved)
        self._shrink()

    def observe(self, saved: Saved, state: memoryview, seconds: float) -> None:
        """Learn what a state takes."""
        n_tokens, weight = len(saved.tokens), _WEIGHT if self._seconds_per_token else 1
        self._bytes_per_token = state.nbytes / n_tokens
        self._seconds_per_token += weight * (seconds / n_tokens - self._seconds_per_token)

    def drop(self, saved: Saved) -> None:
        """Forget an entry, and its file. Idempotent."""
        if saved in self._saved:
            self._saved.remove(saved)
            self.n_bytes -= saved.n_bytes
        if saved.path is not None and self._delete is not None:
            self._delete(saved.path)

    # --- files ---

    def keep_files(self, delete: Callable[[Path], None]) -> None:
        """From now on entries may have files; `delete` removes one that is of no use any more."""
        self._delete = None if self._reuse is Reuse.NONE else delete

    def found(self, tokens: list[int], scope: str, path: Path) -> None:
        """Note a file that an earlier worker wrote."""
        self._saved.append(Saved(tokens, scope, path=path))

    @property
    def unwritten(self) -> Saved | None:
        """An entry in host memory that has no file yet, where files are kept."""
        if self._delete is None:
            return None
        return next((each for each in self._saved if each.path is None and each.state is not None), None)

    def written(self, saved: Saved, path: Path | None) -> None:
        """Note the file that an entry has now; None where it could not be written."""
        saved.is_moving, saved.path = False, path
        if saved.state is None and path is None:
            self.drop(saved)
        elif saved in self._saved:
            self._supersede(saved)
        else:  # it has become superfluous meanwhile
            self.drop(saved)
        self._shrink()

    def fetched(self, saved: Saved, state: memoryview | None) -> None:
        """Note the state that was read from the file of an entry; None where that is gone or damaged. It stays in host memory, beyond
        the bound where need be, until it was of use."""
        saved.is_moving = False
        if state is None:
            self.drop(saved)
        elif saved in self._saved:
            self._shrink()
            saved.state = state
            self.n_bytes += saved.n_bytes

    def _supersede(self, newer: Saved) -> None:
        """Give up what another entry serves as well for; files only for a file."""
        for older in [*self._saved]:
            contained = newer.scope == older.scope and newer.tokens[: len(older.tokens)] == older.tokens
            if older is not newer and contained and not older.is_moving:
                self._leave_memory(older, entirely=newer.path is not None)

    def _shrink(self) -> None:
        while self.n_bytes > self._max_bytes:
            held = [each for each in self._saved if each.state is not None]
            least = min(held, key=lambda each: each.worth)
            self._inflation = max(self._inflation, least.worth)
            self._leave_memory(least)

    def _leave_memory(self, saved: Saved, *, entirely: bool = False) -> None:
        if saved.path is None or entirely:
            self.drop(saved)
        else:
            self.n_bytes -= saved.n_bytes
            saved.state = None

    def match(self, sequence: Sequence, n_found: int) -> tuple[Saved, int] | None:
        """The entry that has most of a prompt, and how many tokens of it; None where none is worth restoring for a sequence that
        sees `n_found` cells already. At least the prompt's last token is left to be computed."""
        best: tuple[Saved, int] | None = None
        if not sequence.use_cache or sequence.prompt_logprobs:
            return None
        for saved in self._saved:
            if saved.scope != sequence.cache_scope or (saved.state is None and saved.path is None):
                continue
            common = common_prefix(sequence.tokens, saved.tokens, len(sequence.tokens) - 1)
            if self._reuse is not Reuse.PREFIX and common < len(saved.tokens):
                continue
            if common - n_found >= max(self._least_gain, len(saved.tokens) // 16) and (
                best is None or common > best[1]
            ):
                best = saved, common
        return best

    def touch(self, saved: Saved) -> None:
        """Note that an entry was of use."""
        saved.used = True
        self._revalue(saved)
        self._shrink()

    def _revalue(self, saved: Saved) -> None:
        saved.worth = self._inflation + len(saved.tokens) * (1 + saved.used)

    def _has(self, tokens: list[int], scope: str) -> bool:
        """Whether an entry serves as well as one of these tokens would."""
        return any(
            each.scope == scope
            and (len(each.tokens) == len(tokens) or self._reuse is Reuse.PREFIX)
            and each.tokens[: len(tokens)] == tokens
            for each in self._saved
        )
