"""The rows of the fault suite: what goes wrong, and what is demanded then.

A test that shows a row is marked `@pytest.mark.fault("P1")`; `scripts/fault.py` runs them all and prints the table.
"""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One row."""

    fault: str
    demand: str


ROWS: dict[str, Row] = {
    "P1": Row("kill -9 of a worker with 32 streams", "32 go on or end typed; other engines lose nothing"),
    "P2": Row(
        "100 x kill -9 at random times", "none hangs; files, threads, children at baseline; RSS +< 5 MB"
    ),
    "P3": Row("SIGSTOP of a worker", "noticed within the step timeout + 2 s"),
    "P4": Row("a worker that ignores stop", "gone within 6 s, its exit told"),
    "P5": Row("garbage instead of frames", "worker ended, EngineDied, daemon RSS +< 1 MB"),
    "P6": Row("prints on fd 1, 10 MB of stderr", "frames intact, tail <= 8 KiB, no stall"),
    "P7": Row("kill -9 of the daemon with 4 workers", "all gone within 2 s, port free, next start clean"),
    "P8": Row(
        "a worker that crashes whenever it loads", "breaker opens, 503 with the reason, <= 5 starts/min"
    ),
    "P9": Row("SIGTERM with 16 streams", "new ones 503, drained, exit 0; the second forces within 2 s"),
    "P10": Row("a load cancelled at 0, 25, 50, 75, 99 %", "no process left; memory back within 5 % in 5 s"),
    "P11": Row("50 first requests for a cold engine at once", "1 load, 50 answers"),
    "P12": Row("3 engines, room for 2, 500 random requests", "no error but 429; no busy engine evicted"),
    "M1": Row("no memory for a load", "typed; idle engines evicted and tried once more; daemon alive"),
    "M2": Row("the system kills a worker for its memory", "as P1; the reason says so"),
    "M3": Row("KV cache full", "healthy requests wait and end well; a prompt too long is a 400 with numbers"),
    "M4": Row(
        "llama_decode fails at step k, all k <= 200",
        "1: same text; -1, 2, -3: only the affected end; books right",
    ),
    "G1": Row("GGUF cut short anywhere", "refused within 2 s, daemon alive"),
    "G2": Row("200+ corrupt GGUF headers", "daemon never crashes; <= 1 s and <= 64 MB each"),
    "G3": Row(
        "model file cut, replaced, deleted while loaded", "daemon alive; a clear error at the next load"
    ),
    "G4": Row("hostile chat templates", "refused within 2 s, worker RSS +< 256 MB, no code run"),
    "H1": Row(
        "1,000 x connect, stream, disconnect", "all freed within 2 s; files, tasks at baseline; RSS +< 10 MB"
    ),
    "H2": Row("disconnect in a queue, a load, a prefill, at the end", "nothing is generated for the dead"),
    "H3": Row(
        "1,000 slow and 1,000 idle sockets, 200 slow bodies",
        "closed at the deadline; good client's p99 < 2 x",
    ),
    "H4": Row("200 streams that nobody reads", "< 64 KiB each, dropped at the deadline"),
    "H5": Row("headers too long, too many, doubled, malformed", "4xx or closed, RSS +< 5 MB"),
    "H6": Row(
        "bodies too long, packed, of a wrong length", "413 or 415 before more than the limit + 64 KiB is read"
    ),
    "H7": Row("JSON too deep, too wide, with NaN, no UTF-8", "400 within 50 ms, the loop's stall < 20 ms"),
    "H8": Row("parameters out of every range", "400 each; nothing out of range reaches the worker"),
    "H9": Row("empty, huge, special and broken text", "no crash; whole UTF-8; control tokens stay text"),
    "H10": Row(
        "WebSocket: 17 MiB, 10,000 pings, half-closed, 1,000 open", "right close code, bounded memory"
    ),
    "H11": Row("the event loop, all the while", "no callback > 100 ms"),
    "R1": Row(
        "grammars that are deep, huge, ambiguous, in every dialect",
        "400 within 2 s; same worker; a stream beside it goes on; others' first token within 2 s",
    ),
    "R2": Row("a grammar that fails in the middle of its text", "a typed error, streamed too; never stop"),
    "A1": Row("model paths that lead out, are devices, lie", "400 or 403, nothing outside is opened"),
    "A2": Row("URLs that lead inside", "refused before connecting"),
    "A3": Row(
        "10,000 wrong keys; timing of a wrong first or last character", "429 after 10 a minute; no difference"
    ),
    "A4": Row("a browser's attack: Host, Origin, plain-text POST", "403 unless allowed; no ACAO *"),
    "A5": Row("every route without key, with an inference key", "401 or 403 but health and the like"),
    "A6": Row("logs, errors, metrics, worker environment", "no key, no prompt in them"),
    "A7": Row("one key's prompts in another's cache", "not shared where the setting says so"),
    "D1": Row(
        "state and store that cannot be written: disk full at any statement, no folder, silent disk",
        "served; health degraded, counted; written once it can be, else exit 1; store: 507, whole",
    ),
    "D2": Row(
        "leftovers of 200 kills, names that are no UTF-8, damaged files",
        "nothing that was acknowledged is lost, nothing else blocked; the store is whole",
    ),
    "D3": Row(
        "a pipe in place of a model, of engines.json, of keys.json",
        "refused or as before, at once; other requests < 1 s; stops within 5 s",
    ),
    "D4": Row(
        "a download cut, of a wrong length or digest, without ranges; a full disk; two at once",
        "no broken file under a final name; goes on where it was",
    ),
    "D5": Row(
        "kill -9 of the daemon at 20 random points of a download",
        "goes on; < 2 x the bytes; never a broken file",
    ),
    "C1": Row("configuration unknown, mistyped, unreadable", "exit 2 within 1 s, names file and key"),
    "C2": Row("port in use, no driver, no native library, SIGILL", "one line; only the worker ends"),
    "T1": Row("a soak: clients, loads, kills, disconnects", "memory, files, p99 flat; no unexplained 5xx"),
}
"""By the name that tests are marked with; in the order of the table."""

NOT_HERE: dict[str, str] = {}
"""Rows that no test can show here, and why."""
