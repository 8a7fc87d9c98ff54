from __future__ import annotations

from typing import Any, get_type_hints

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kolosal.engines.ipc.calls import (
    Detokenize,
    Embed,
    Embedded,
    Rank,
    Ranked,
    Render,
    Rendered,
    Tokenize,
    Tokenized,
)
from kolosal.engines.ipc.messages import (
    MAX_FRAME_BYTES,
    Abort,
    EngineInfo,
    Failed,
    Fatal,
    FrameError,
    FromWorker,
    Hello,
    Ping,
    Pong,
    Progress,
    Ready,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    ToWorker,
    UnaryCall,
    UnaryResult,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from kolosal.engines.parameters import FittedConfig, FittedParameters, FlashAttention, SplitMode
from kolosal.sampling import SamplingParams
from kolosal.schema import (
    ChatPrompt,
    FinishReason,
    GenerateRequest,
    Message,
    TextPrompt,
    TokenDelta,
    TokensPrompt,
    Usage,
)

ids = st.integers(0, 2**63 - 1)
counts = st.integers(0, 2**40)
texts = st.text(st.characters(codec="utf-8"), max_size=30)


def reals(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


parameters = st.builds(
    FittedParameters,
    n_ctx=st.integers(1, 1_000_000),
    n_gpu_layers=st.integers(-1, 1000),
    split_mode=st.sampled_from(SplitMode),
    tensor_split=st.lists(reals(0, 1e6), max_size=16).map(tuple),
    kv_pool_tokens=st.none() | st.integers(1_000_000, 256_000_000),
    cache_type_k=st.sampled_from(["f16", "q8_0", "iq4_nl"]),
    flash_attn=st.sampled_from(FlashAttention),
    warmup=st.booleans(),
    chat_template=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=30),
    seed=st.none() | st.integers(0, 2**32 - 1),
)
samplings = st.builds(
    SamplingParams,
    temperature=reals(0, 5),
    top_p=reals(0.001, 1),
    presence_penalty=reals(-2, 2),
    seed=st.none() | st.integers(0, 2**32 - 1),
    max_tokens=st.none() | st.integers(0, 1_000_000),
    stop=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), max_size=4).map(tuple),
    ignore_eos=st.booleans(),
)
turns = st.builds(Message, role=texts, content=texts, name=st.none() | texts)
prompts = st.builds(TextPrompt, texts) | st.builds(ChatPrompt, st.lists(turns, max_size=4).map(tuple))
token_ids = st.lists(counts, max_size=4).map(tuple)
calls = st.one_of(
    st.builds(Tokenize, texts, st.booleans(), st.booleans(), st.booleans()),
    st.builds(Detokenize, token_ids),
    st.builds(Render, prompts),
    st.builds(
        Embed,
        st.lists(
            st.builds(TextPrompt, texts) | st.builds(TokensPrompt, st.tuples(counts)), min_size=1, max_size=4
        ).map(tuple),
        st.none() | st.integers(1, 65_536),
        ids,
    ),
    st.builds(Rank, texts, st.lists(texts, min_size=1, max_size=4).map(tuple)),
)
answers = st.one_of(
    st.builds(Tokenized, token_ids, st.lists(texts, max_size=4).map(tuple)),
    st.builds(Rendered, texts, counts),
    st.builds(Embedded, st.lists(texts, max_size=4).map(tuple), token_ids),
    st.builds(Ranked, st.lists(reals(-1e30, 1e30), max_size=4).map(tuple), counts),
)
to_worker = st.one_of(
    st.builds(Hello, st.builds(FittedConfig, st.just("engine 1"), texts, parameters)),
    st.builds(
        Submit, ids, st.builds(GenerateRequest, prompts, samplings), token_ids, st.integers(0, 1_000_000)
    ),
    st.builds(UnaryCall, ids, calls),
    st.builds(Abort, ids),
    st.builds(Ping, ids),
    st.just(Shutdown()),
)
deltas = st.builds(
    TokenDelta,
    texts,
    st.lists(counts, max_size=4).map(tuple),
    st.none() | st.sampled_from(FinishReason),
    st.none() | st.builds(Usage, counts, counts, counts),
)
_hints = get_type_hints(EngineInfo)
infos = st.builds(
    EngineInfo,
    **dict.fromkeys([name for name, hint in _hints.items() if hint is str], texts),
    **dict.fromkeys([name for name, hint in _hints.items() if hint is int], counts),
)
from_worker = st.one_of(
    st.builds(Ready, infos),
    st.builds(Progress, reals(0, 1)),
    st.builds(StepOutputs, st.lists(st.builds(SequenceOutput, ids, deltas), max_size=4).map(tuple)),
    st.builds(UnaryResult, ids, answers),
    st.builds(Failed, ids, texts, texts, st.none() | texts),
    st.builds(Pong, ids),
    st.builds(Fatal, texts),
)

EXAMPLES: list[FromWorker] = [
    Progress(0.5),
    StepOutputs((SequenceOutput(1, TokenDelta("x", (1,), FinishReason.STOP, Usage(1, 1))),)),
    UnaryResult(1, Ranked((0.5,), 3)),
    Failed(1, "GenerationFailed", "no"),
    Fatal("no"),
]


@given(to_worker)
def test_frame_to_the_worker_survives_the_trip(frame: ToWorker) -> None:
    assert decode_to_worker(encode(frame)) == frame


@given(from_worker)
def test_frame_from_the_worker_survives_the_trip(frame: FromWorker) -> None:
    assert decode_from_worker(encode(frame)) == frame


@given(to_worker | from_worker)
def test_frame_is_one_line(frame: ToWorker | FromWorker) -> None:
    line = encode(frame)

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"this is no frame\n",
        b"null",
        b"[]",
        b"5",
        b"{}",
        b'{"tag":"unknown"}',
        b'{"tag":5}',
        b'{"tag":null}',
        b'{"tag":["fatal"]}',
        b'{"tag":"fatal"}',
        b'{"tag":"fatal","message":5}',
        b'{"tag":"fatal","message":null}',
        b'{"tag":"fatal","message":"\\ud800"}',
        b'{"tag":"fatal","message":"\xff"}',
        b'\xef\xbb\xbf{"tag":"fatal","message":"x"}',
        b'{"tag":"fatal","message":"x"}{"tag":"fatal","message":"x"}',
        b'{"tag":"progress","fraction":NaN}',
        b'{"tag":"progress","fraction":Infinity}',
        b'{"tag":"progress","fraction":1e999}',
        b'{"tag":"progress","fraction":"0.5"}',
        b'{"tag":"failed","request_id":"5","error":"x","message":"y"}',
        b'{"tag":"failed","request_id":true,"error":"x","message":"y"}',
        b'{"tag":"failed","request_id":1.5,"error":"x","message":"y"}',
        b'{"tag":"failed","request_id":' + b"9" * 5000 + b',"error":"x","message":"y"}',
        b'{"tag":"step","outputs":[{"request_id":1}]}',
        b'{"tag":"step","outputs":[{"request_id":1,"delta":{"text":"x","finish_reason":"bored"}}]}',
        b'{"tag":"step","outputs":{"1":"x"}}',
        b'{"tag":"shutdown"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=lambda line: line[:40],
)
def test_line_that_is_no_frame_is_a_frame_error(line: bytes) -> None:
    with pytest.raises(FrameError):
        decode_from_worker(line)


@pytest.mark.parametrize(
    "line",
    [
        b'{"tag":"ready"}',
        b'{"tag":"submit","request_id":1}',
        b'{"tag":"submit","request_id":1,"request":{"prompt":{"kind":"image"},"sampling":{}}}',
        b'{"tag":"call","request_id":1}',
        b'{"tag":"call","request_id":1,"call":{"kind":"sing","text":"x"}}',
        b'{"tag":"call","request_id":1,"call":{"kind":"detokenize","tokens":[-1]}}',
        b'{"tag":"call","request_id":1,"call":{"kind":"embed","inputs":[]}}',
        b'{"tag":"call","request_id":1,"call":{"kind":"rank","query":"x","documents":[]}}',
        b'{"tag":"abort","request_id":null}',
        b'{"tag":"hello","config":{"engine_id":"a/..","model_path":"m","parameters":{}}}',
        b'{"tag":"hello","config":{"engine_id":"a","model_path":"m","parameters":{"unknown":1}}}',
        b'{"tag":"hello","config":{"engine_id":"a","model_path":"m","parameters":{"n_ctx":9,"kv_pool_tokens":5}}}',
    ],
    ids=lambda line: line[:40],
)
def test_line_that_is_no_frame_to_a_worker_is_a_frame_error(line: bytes) -> None:
    with pytest.raises(FrameError):
        decode_to_worker(line)


SAMPLING_OUT_OF_BOUNDS: list[dict[str, Any]] = [
    {"temperature": -0.1}, {"temperature": 5.1}, {"top_p": -0.1}, {"top_p": 1.1}, {"top_k": -2}, {"top_k": 2**31},
    {"min_p": -1.0}, {"repeat_penalty": 0.0}, {"repeat_last_n": -2}, {"seed": 2**63},
    {"max_tokens": -1}, {"max_tokens": 10**9}, {"stop": ["x"] * 65}, {"stop": ["x" * 1025]},
    {"presence_penalty": 2.1}, {"frequency_penalty": -2.1}, {"temperature": None}, {"ignore_eos": 1},
]  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLING_OUT_OF_BOUNDS, ids=lambda sampling: str(sampling)[:40])
def test_sampling_out_of_bounds_never_reaches_a_worker(sampling: dict[str, Any]) -> None:
    request = {"prompt": {"kind": "text", "text": "x"}, "sampling": sampling}
    with pytest.raises(FrameError):
        decode_to_worker(orjson.dumps({"tag": "submit", "request_id": 1, "request": request}))


def test_not_a_number_never_reaches_a_worker() -> None:
    line = encode(Submit(1, GenerateRequest(TextPrompt("x"), SamplingParams(temperature=0.123))))
    with pytest.raises(FrameError):
        decode_to_worker(line.replace(b"0.123", b"NaN"))


def test_oversized_line_is_a_frame_error() -> None:
    with pytest.raises(FrameError, match="bytes"):
        decode_from_worker(b'{"tag":"fatal","message":"' + b"x" * MAX_FRAME_BYTES + b'"}')


def test_key_given_twice_counts_once() -> None:
    frame = decode_from_worker(b'{"tag":"fatal","message":"a","message":"b"}')

    assert frame == Fatal("b")


def test_unknown_field_is_ignored() -> None:
    """A worker of a newer minor version may say more."""
    assert decode_from_worker(b'{"tag":"fatal","message":"a","colour":"red"}') == Fatal("a")


def test_message_of_a_frame_error_is_short() -> None:
    with pytest.raises(FrameError) as error:
        decode_from_worker(b'{"tag":"' + b"x" * 1_000_000 + b'"}')

    assert len(str(error.value)) < 1000


@given(st.binary(max_size=200))
def test_random_bytes_are_a_frame_error(line: bytes) -> None:
    with pytest.raises(FrameError):
        decode_from_worker(line)


@given(st.sampled_from(EXAMPLES), st.data())
def test_damaged_frame_is_a_frame_or_a_frame_error(frame: FromWorker, data: st.DataObject) -> None:
    line = bytearray(encode(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_from_worker(bytes(line))
    except FrameError:
        return

    assert isinstance(decoded, FromWorker)
