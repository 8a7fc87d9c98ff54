"""One file fetched, for `bench_downloads.py`: a request on stdin; seconds and peak memory in bytes on stdout."""

from __future__ import annotations

import resource
import sys
import time

import checkout  # noqa: F401 - makes the next ones importable

from kolosal.downloads.address import parse_url
from kolosal.downloads.fetch import fetch
from kolosal.downloads.messages import FetchRequest, request_adapter
from kolosal.downloads.net import Reach

request = request_adapter().validate_json(sys.stdin.buffer.read())
assert isinstance(request, FetchRequest)  # noqa: S101 - it is made so
(file,) = request.plan.files
began = time.perf_counter()
fetch(file, Reach.of(parse_url(file.url), request.trusted_hosts))
took_s = time.perf_counter() - began
print(took_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
