"""BackendServer: the frames of a daemon → the generations of a backend → frames. One event loop, which is the backend's too."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import sys
import threading
import traceback
from collections.abc import Callable

from kolosal.backends.interface import BackendInterfaceBase
from kolosal.backends.worker.answer import BackendAnswer
from kolosal.backends.worker.calls import call_result
from kolosal.backends.worker.threads_kept import KeptContexts
from kolosal.backends.worker.turns import Turns
from kolosal.engines.ipc.messages import (
    Abort,
    EngineInfo,
    FrameError,
    FromWorker,
    Hello,
    Ping,
    Pong,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    ToWorker,
    UnaryCall,
)
from kolosal.engines.worker.pipes import STOP_TIMEOUT_S, read_frame
from kolosal.engines.worker.result_frames import failed, result_frame
from kolosal.errors import GenerationFailed, KolosalError
from kolosal.schema import FinishReason, TokenDelta


class BackendServer:
    """Serves one loaded backend. Each generation ends with exactly one frame that says so, also where it was aborted."""

    def __init__(
        self, interface: BackendInterfaceBase, info: EngineInfo, emit: Callable[[FromWorker], None]
    ) -> None:
        self._interface = interface
        self._info = info
        self._emit_now = emit
        self._contexts = KeptContexts(interface)
        self._turns = Turns(info.n_parallel)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._outputs: list[SequenceOutput] = []
        self._stopping = False

    async def serve(self, pipe: io.BufferedReader) -> None:
        """Handle frames until told to shut down; ends the process where the daemon is gone.

        Raises:
            FrameError: the daemon sent what is no frame.
        """
        frames: asyncio.Queue[ToWorker | FrameError] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        reader = threading.Thread(
            target=_read, args=(pipe, loop, frames.put_nowait), name="frames", daemon=True
        )
        reader.start()
        while not isinstance(frame := await frames.get(), Shutdown):
            if isinstance(frame, FrameError):
                raise frame
            self._handle(frame)
        self._stopping = True
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=STOP_TIMEOUT_S)

    def _handle(self, frame: ToWorker) -> None:
        match frame:
            case Submit(request_id=request_id):
                answer = BackendAnswer(frame, self._interface, self._contexts, self._info.n_ctx)
                task = self._running[request_id] = asyncio.create_task(self._generate(frame, answer))
                task.add_done_callback(functools.partial(self._ended, request_id, answer))
            case Abort(request_id=request_id):
                if running := self._running.get(request_id):
                    running.cancel()
            case UnaryCall(request_id=request_id, call=call):
                try:
                    result = call_result(call, self._interface, self._contexts, self._info.n_vocab)
                    self._emit(result_frame(request_id, result))
                except Exception as exc:  # noqa: BLE001 - a defect must cost one call, and not the engine
                    self._emit(failed(request_id, exc))
            case Ping(number=number):
                self._emit(Pong(number))
            case Hello():
                raise FrameError("a second hello")
            case Shutdown():
                pass

    async def _generate(self, submit: Submit, answer: BackendAnswer) -> None:
        request_id = submit.request_id
        try:
            async with self._turns.turn(submit.request.priority):
                async for delta in answer.deltas():
                    self._put(SequenceOutput(request_id, delta))
        except KolosalError as exc:
            self._emit(failed(request_id, exc))
        except Exception as exc:  # noqa: BLE001 - it is the backend's, and must cost one request only
            traceback.print_exc(file=sys.stderr)
            words = f"The backend '{self._interface.args.backend}' failed: {type(exc).__name__}; the engine's log says where"
            self._emit(failed(request_id, GenerationFailed(words)))

    def _ended(self, request_id: int, answer: BackendAnswer, task: asyncio.Task[None]) -> None:
        del self._running[request_id]
        if task.cancelled() and not self._stopping:  # perhaps before it had begun
            end = TokenDelta("", finish_reason=FinishReason.ABORT, usage=answer.usage)
            self._put(SequenceOutput(request_id, end))

    # --- frames ---

    def _put(self, output: SequenceOutput) -> None:
        """Send an output with those of the same turn of the event loop, in one frame."""
        if not self._outputs:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outputs.append(output)

    def _flush(self) -> None:
        outputs, self._outputs = self._outputs, []
        if outputs:
            self._emit_now(StepOutputs(tuple(outputs)))

    def _emit(self, frame: FromWorker) -> None:
        self._flush()  # what came first goes first
        self._emit_now(frame)


def _read(
    pipe: io.BufferedReader, loop: asyncio.AbstractEventLoop, put: Callable[[ToWorker | FrameError], None]
) -> None:
    """Hand frames to the event loop, from a thread."""
    try:
        while (frame := read_frame(pipe)) is not None:
            loop.call_soon_threadsafe(put, frame)
            if isinstance(frame, Shutdown):
                return
    except FrameError as exc:
        loop.call_soon_threadsafe(put, exc)
        return
    os._exit(3)  # nobody is left to read
