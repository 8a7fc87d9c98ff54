"""NextTokens: rows of logits → the next tokens of a sequence, the text they show, their log-probabilities, and why it ends, if it does.

Draft tokens are verified here: a row of their own says for each whether it is what comes next.
"""

from __future__ import annotations

from kolosal.engines.worker.backend import Backend, RowLogprobs
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.schedule.scheduler import Scheduler
from kolosal.engines.worker.schedule.sequence import Sequence
from kolosal.schema import FinishReason, TokenDelta, TokenLogprob, TokenLogprobs


class NextTokens:
    """Used on the engine thread, between a decode and the next."""

    def __init__(self, backend: Backend, scheduler: Scheduler) -> None:
        self._backend = backend
        self._scheduler = scheduler

    def advance(self, chunk: Chunk, row: int) -> TokenDelta:
        """What the rows of a sequence say, from `row` on: about its prompt, where that is reported, then its next tokens.

        Raises:
            ConstraintFailed: its grammar has no next token.
        """
        sequence = chunk.sequence
        n_reported = chunk.n_prompt_rows if sequence.prompt_logprobs else 0
        logprobs = self._report_prompt(chunk, row, n_reported) if sequence.prompt_logprobs else []
        if n_reported == chunk.n_outputs:
            return TokenDelta("", logprobs=tuple(logprobs))
        if len(sequence.tokens) >= sequence.max_length:  # nothing but its prompt was asked about
            return TokenDelta("", (), FinishReason.LENGTH, sequence.usage(), tuple(logprobs))
        return self._generate(sequence, range(row + n_reported, row + chunk.n_outputs), logprobs)

    def _report_prompt(self, chunk: Chunk, row: int, n_rows: int) -> list[TokenLogprobs]:
        """The prompt's tokens that stand after rows of a chunk; the first token of all, too."""
        sequence = chunk.sequence
        first = TokenLogprobs(self._token_logprob(sequence.tokens[0], 0.0), (), in_prompt=True)
        reports = [] if sequence.n_logged else [first]  # which nothing predicts
        token_after = chunk.start + len(chunk.tokens) - chunk.n_outputs + 1
        for index in range(n_rows):
            logprobs = self._backend.row_logprobs(row + index, sequence.n_top or 0)
            token = sequence.tokens[token_after + index]
            reports.append(self._token_logprobs(logprobs, token, in_prompt=True))
        sequence.n_logged += len(reports)
        return reports

    def _generate(self, sequence: Sequence, rows: range, logprobs: list[TokenLogprobs]) -> TokenDelta:
        """Sample the next token, and go on while draft tokens are accepted; adds to `logprobs` where they are asked for."""
        draft, n_before = sequence.draft, len(sequence.tokens)
        text, reason = "", None
        for index, row in enumerate(rows):
            row_logprobs = None if sequence.n_top is None else self._backend.row_logprobs(row, sequence.n_top)
            token = self._next_token(sequence, row)
            begins_at = sequence.text.n_chars
            piece, reason = self._extend(sequence, token)
            text += piece
            ends_turn = reason is FinishReason.STOP and self._backend.is_end(token)
            if row_logprobs is not None and not (ends_turn and sequence.reports_shown):
                sequence.unshown.append((begins_at, self._token_logprobs(row_logprobs, token)))
            if reason is not None or index >= len(draft) or draft[index] != token:
                break
        tokens = sequence.tokens[n_before:]
        logprobs += sequence.take_shown()
        if draft:
            self._verify_draft(sequence, n_before, tokens)
        elif sequence.speculator is not None:
            sequence.speculator.extend(tokens)
        if reason is None:  # the first tokens say how long the prompt is, and how much of it was found
            usage = sequence.usage() if n_before == sequence.n_prompt else None
            return TokenDelta(text, tuple(tokens), usage=usage, logprobs=tuple(logprobs))
        stop = sequence.text.stop
        return TokenDelta(text, tuple(tokens), reason, sequence.usage(), tuple(logprobs), stop)

    def _next_token(self, sequence: Sequence, row: int) -> int:
        """The token after a row: sampled, but where a thought is to be closed."""
        thoughts, constraint = sequence.thoughts, sequence.constraint
        forced = None if thoughts is None else thoughts.forced
        if thoughts is None or forced is None:
            return self._backend.sample(sequence.sampler, row, constraint)
        if constraint is not None and not constraint.allows(forced):
            thoughts.give_up()
            return self._backend.sample(sequence.sampler, row, constraint)
        sequence.sampler.accept(forced)
        return forced

    def _verify_draft(self, sequence: Sequence, n_before: int, tokens: list[int]) -> None:
        """Keep the cells of accepted draft tokens, cut off the others, and let the sequence learn from both."""
        n_kept = len(tokens) - 1
        n_accepted = n_kept + (sequence.draft[n_kept : n_kept + 1] == tokens[-1:])
        sequence.n_computed = n_before + n_kept
        n_cells = self._scheduler.trim(sequence)
        if n_cells is not None and sequence.slot is not None:
            self._backend.trim(sequence.slot, n_cells)
        if sequence.speculator is not None:
            sequence.speculator.observe(len(sequence.draft), n_accepted)
            sequence.speculator.extend(tokens)
        sequence.draft = []

    def _extend(self, sequence: Sequence, token: int) -> tuple[str, FinishReason | None]:
        """Add a sampled token, and those the grammar then forces; returns the text to show and why it ends, if it does."""
        constraint = sequence.constraint
        if self._backend.is_end(token) and (constraint is not None or not sequence.ignore_eos):
            sequence.tokens.append(token)
            return sequence.text.flush(), FinishReason.STOP
        tokens = [token]
        if constraint is not None:
            constraint.accept(token)
            if sequence.n_top is None:  # else each is sampled: its log-probability needs a row of its own
                tokens += constraint.forced()
        text = ""
        for index, each in enumerate(tokens):
            sequence.tokens.append(each)
            if index:
                sequence.sampler.accept(each)
            piece = sequence.text.markers.get(each) or self._backend.token_bytes(each)
            text += sequence.text.push(piece)
            if sequence.thoughts is not None:
                sequence.thoughts.push(each, piece)
            if sequence.text.stop is not None:
                return text, FinishReason.STOP
            if len(sequence.tokens) >= sequence.max_length:
                return text + sequence.text.flush(), FinishReason.LENGTH
        if constraint is not None and constraint.finished:
            return text + sequence.text.flush(), FinishReason.STOP
        return text, None

    def _token_logprobs(self, row: RowLogprobs, token: int, *, in_prompt: bool = False) -> TokenLogprobs:
        """A token that stands after a row, with the most probable ones in its place."""
        top = tuple(self._token_logprob(other, logprob) for other, logprob in row.top)
        return TokenLogprobs(self._token_logprob(token, row.of(token)), top, in_prompt)

    def _token_logprob(self, token: int, logprob: float) -> TokenLogprob:
        data = self._backend.token_bytes(token)
        piece = data or self._backend.written(token)
        return TokenLogprob(token, piece.decode("latin-1"), logprob, control=not data)
