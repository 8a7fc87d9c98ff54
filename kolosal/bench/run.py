"""A whole benchmark: find the model, run the chosen workloads in order, tell progress, hand the report over."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import SystemRandom
from urllib.parse import urlsplit

import httpx

from kolosal.bench import prompts
from kolosal.bench.client import Client, Target
from kolosal.bench.errors import BenchError, Skipped
from kolosal.bench.measures import Measures
from kolosal.bench.processes import rss_bytes, server_pids
from kolosal.bench.progress import BenchProgress
from kolosal.bench.report import Report, Result, Status, print_json, print_table
from kolosal.bench.workloads import WORKLOADS, Workload

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells report for a program that Ctrl-C ended."""
MODELS_TIMEOUT_S = 10.0
"""Bounds the question which models there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the user asked for."""

    target: Target
    """Its URL may lack a path, which is then /v1; without a model it is the first that the server lists."""
    only: Sequence[str] = ()
    """Names of workloads; empty: all."""
    repeat: int = 1
    seed: int | None = None
    """The same seed makes the same prompts, which a server may then have cached. None draws a fresh one."""
    as_json: bool = False
    pids: Sequence[int] = ()


def run_bench(options: BenchOptions) -> int:
    """Run, print the table or the JSON to stdout and progress to stderr, and return the exit status."""
    try:
        workloads = chosen(options.only)
        with BenchProgress(sys.stderr) as progress:
            report = asyncio.run(_bench(options, workloads, progress))
    except BenchError as exc:
        sys.stderr.write(f"Error: {exc}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Stopped\n")
        return EXIT_INTERRUPTED
    (print_json if options.as_json else print_table)(report)
    return EXIT_FAILED if report.failed else 0


def list_workloads() -> None:
    """Print the names and titles of all workloads, one a line."""
    for workload in WORKLOADS:
        sys.stdout.write(f"{workload.name:<22}{workload.title}\n")


def chosen(names: Sequence[str]) -> list[Workload]:
    """The workloads of these names in their usual order, without names all but the longest; each name may itself be a list with
    commas."""
    wanted = {name.strip() for text in names for name in text.split(",") if name.strip()}
    known = [workload.name for workload in WORKLOADS]
    unknown = sorted(wanted - set(known))
    if unknown:
        raise BenchError(f"--only: there is no workload {', '.join(unknown)}; there is: {', '.join(known)}")
    return [each for each in WORKLOADS if each.name in wanted or not (wanted or each.by_name_only)]


def api_base(url: str) -> str:
    """The address of the API; a server's bare address means its /v1."""
    base = url.rstrip("/")
    return base if urlsplit(base).path else f"{base}/v1"


async def run_once(workload: Workload, client: Client, seed: str, pids: Sequence[int] = ()) -> Measures:
    """One run of one workload with the prompts of `seed`.

    Raises:
        BenchError: a request failed.
        Skipped: it does not apply to this server.
    """
    measured = await workload.run(client, prompts.generator(f"{seed}/{workload.name}"))
    return replace(measured, rss_bytes=await asyncio.to_thread(rss_bytes, pids))


async def _bench(options: BenchOptions, workloads: Sequence[Workload], progress: BenchProgress) -> Report:
    target = replace(options.target, url=api_base(options.target.url))
    client = Client(target, progress.answered)  # says what is wrong with the address, before anything is sent
    if not target.model:
        client = Client(replace(target, model=await _first_model(target)), progress.answered)
    await client.probe()
    pids = await asyncio.to_thread(server_pids, target.url, options.pids)
    seed = SystemRandom().randrange(2**32) if options.seed is None else options.seed
    report = Report(target.url, client.target.model, seed, options.repeat, datetime.now(UTC))
    progress.begin(len(workloads) * options.repeat)
    for workload in workloads:
        result = await _repeated(workload, client, report, pids, progress)
        report.results.append(result)
    return report


async def _repeated(
    workload: Workload, client: Client, report: Report, pids: Sequence[int], progress: BenchProgress
) -> Result:
    """All runs of one workload; the first that fails or does not apply is the last."""
    result = Result(workload.name, workload.title)
    for number in range(report.repeat):
        progress.start(workload.name, number + 1, report.repeat)
        try:
            result.runs.append(await run_once(workload, client, f"{report.seed}/{number}", pids))
        except Skipped as exc:
            result.status, result.reason = Status.SKIPPED, str(exc)
        except BenchError as exc:
            result.status, result.reason = Status.FAILED, str(exc)
        if result.status is not Status.OK:
            break
    progress.finish(result, report.repeat)
    return result


async def _first_model(target: Target) -> str:
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    try:
        async with httpx.AsyncClient(timeout=MODELS_TIMEOUT_S, trust_env=False, headers=headers) as http:
            answer = await http.get(f"{target.url}/models")
            return str(answer.raise_for_status().json()["data"][0]["id"])
    except httpx.TransportError as exc:
        raise BenchError(f"nothing answers at {target.url} ({exc})") from exc
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as exc:
        raise BenchError(f"{target.url}/models lists no model: name one with --model") from exc
