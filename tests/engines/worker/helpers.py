"""What the worker's tests share: configurations, requests, and a worker without its process."""

from __future__ import annotations

import io
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any, cast

from kolosal.engines.ipc.calls import Call
from kolosal.engines.ipc.messages import (
    Abort,
    Failed,
    FromWorker,
    Ping,
    SequenceOutput,
    StepOutputs,
    Submit,
    UnaryCall,
    encode,
)
from kolosal.engines.parameters import FittedConfig, FittedParameters
from kolosal.engines.worker.backend import Backend
from kolosal.engines.worker.loop import EngineLoop
from kolosal.engines.worker.preprocessor import Preprocessor
from kolosal.engines.worker.schedule.plan import Chunk
from kolosal.engines.worker.templates.renderer import TemplateRenderer
from kolosal.engines.worker.templates.template import ChatTemplate
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Message,
    TextPrompt,
    TokenLogprobs,
    Usage,
)
from tests.fake_worker.backend import FakeBackend, FakeSampler, Faults

RENDERER = TemplateRenderer()
"""Renders for all tests of the worker that run no worker process. `conftest.py` starts and ends it."""

OPEN_WORKERS: list[InProcessWorker] = []
"""Those of the test at hand; `conftest.py` closes them."""

MAX_STEPS = 20_000
"""Steps after which a loop that does not come to its end is taken for one that never will."""


def engine_config(path: str = "fake.gguf", **parameters: Any) -> FittedConfig:
    return FittedConfig("test", path, FittedParameters(**parameters))


def fake_backend(*faults: str, **parameters: Any) -> FakeBackend:
    return FakeBackend(engine_config(**parameters), lambda _: None, Faults.parse(faults))


def ask(text: str, **sampling: Any) -> GenerateRequest:
    """A greedy request with a raw prompt."""
    return GenerateRequest(TextPrompt(text), SamplingParams(**{"temperature": 0.0} | sampling))


def ask_chat(*contents: str, **sampling: Any) -> GenerateRequest:
    messages = tuple(Message("user", content) for content in contents)
    return GenerateRequest(ChatPrompt(messages), SamplingParams(**{"temperature": 0.0} | sampling))


class Answer:
    """What a client would have seen of one request."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.stop: str | None = None
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.error: Failed | None = None
        self.endings = 0

    def add(self, output: SequenceOutput) -> None:
        delta = output.delta
        assert not self.endings, "output after the end"
        self.text += delta.text
        self.tokens += delta.tokens
        self.logprobs += delta.logprobs
        self.stop = delta.stop
        self.finish_reason, self.usage = delta.finish_reason, delta.usage
        self.endings += delta.finish_reason is not None

    def fail(self, frame: Failed) -> None:
        self.error = frame
        self.endings += 1

    @property
    def ended(self) -> bool:
        return self.endings > 0


class InProcessWorker:
    """Preprocessor and engine loop over a backend, on this thread; its frames are kept."""

    def __init__(
        self,
        backend: Backend,
        *,
        chat_template: str | None = None,
        speculation: bool = True,
        after_step: Callable[[], None] = lambda: None,
        target_step_s: float = 0.15,
        saved_bytes: int = 0,
        open_files: Any = None,
    ) -> None:
        self.backend = backend
        self.answers: dict[int, Answer] = {}
        self.frames: list[FromWorker] = []
        for slot in range(backend.n_slots):
            backend.release(slot)  # of a worker before this one
        self.loop = EngineLoop(
            backend, self.put, target_step_s=target_step_s, saved_bytes=saved_bytes, open_files=open_files
        )
        template = ChatTemplate(backend, chat_template, RENDERER)
        self._preprocessor = Preprocessor(backend, template, self.loop, self.put, speculation=speculation)
        self._after_step = after_step
        OPEN_WORKERS.append(self)

    def put(self, frame: FromWorker) -> None:
        self.frames.append(frame)
        match frame:
            case StepOutputs(outputs=outputs):
                for output in outputs:
                    self.answers[output.request_id].add(output)
            case Failed(request_id=request_id) if request_id in self.answers:
                self.answers[request_id].fail(frame)
                self.loop.ping(Ping(0))  # a loop that waits for the sequence of a grammar hears of it

    def submit(
        self,
        request: GenerateRequest,
        request_id: int | None = None,
        generated: Seq[int] = (),
        n_logged: int = 0,
    ) -> int:
        """`generated` and `n_logged` are what another worker has sent of it before."""
        request_id = len(self.answers) + 1 if request_id is None else request_id
        self.answers[request_id] = Answer()
        self._send(encode(Submit(request_id, request, tuple(generated), n_logged)))
        return request_id

    def ask(self, call: Call, request_id: int = 1) -> None:
        """Start a unary call; its result is among the frames."""
        self._send(encode(UnaryCall(request_id, call)))

    def close(self, timeout_s: float) -> bool:
        """Free what unary calls and grammars have needed."""
        return self._preprocessor.close(timeout_s)

    def abort(self, request_id: int) -> None:
        self._send(encode(Abort(request_id)))

    def _send(self, line: bytes) -> None:
        self._preprocessor.serve(io.BufferedReader(cast(io.RawIOBase, io.BytesIO(line))))

    @property
    def busy(self) -> bool:
        return any(not answer.ended for answer in self.answers.values())

    def step(self) -> None:
        self.loop.step()
        self._after_step()

    def run(self) -> None:
        """Step until every request has ended."""
        for _ in range(MAX_STEPS):
            if not self.busy:
                return
            self.step()
        raise AssertionError("the loop makes no progress")

    def check_idle(self) -> None:
        """Let the idle loop compare its books with the backend, as it does before it sleeps."""
        self.loop.stop()
        self.loop.step()

    def answer(self, request: GenerateRequest) -> Answer:
        """One request alone, from start to end."""
        request_id = self.submit(request)
        self.run()
        return self.answers[request_id]


class CountingSampler(FakeSampler):
    """Counts its closes: a native sampler closed once too often is freed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.closes = 0

    def close(self) -> None:
        super().close()
        self.closes += 1


class RecordingBackend(FakeBackend):
    """A fake that remembers which requests were in each batch and how often each sampler was closed."""

    def __init__(self, *faults: str, **parameters: Any) -> None:
        super().__init__(engine_config(**parameters), lambda _: None, Faults.parse(faults))
        self.batches: list[set[int]] = []
        self.counting_samplers: list[CountingSampler] = []

    def new_sampler(self, params: SamplingParams, prompt: Seq[int]) -> FakeSampler:
        super().new_sampler(params, prompt)
        self.counting_samplers.append(CountingSampler())
        return self.counting_samplers[-1]

    def decode(self, chunks: Seq[Chunk]) -> None:
        self.batches.append({chunk.sequence.request_id for chunk in chunks})
        super().decode(chunks)

    @property
    def closes(self) -> list[int]:
        return [sampler.closes for sampler in self.counting_samplers]


def counting(start: int, count: int) -> str:
    """What the fake says to `…start:` in `count` characters."""
    text = ""
    while len(text) < count:
        start += 1
        text += f"{start} "
    return text[:count]
