"""What a chat template may cost. For the worker and for the process that renders: `jinja.py`."""

from __future__ import annotations

from typing import Final

from kolosal.engines.worker.sandbox.limits import ProcessLimits

MAX_TEMPLATE_CHARS: Final = 262_144
"""Characters of a template. The longest of the field have 17,000."""

LIMITS: Final = ProcessLimits(cpu_s=1.5, memory_bytes=192 * 1024 * 1024, answer_bytes=16 * 1024 * 1024)
"""Processor time of compiling a template, and of all renderings for one request; largest of the field: some milliseconds. Of the
memory 25 MiB are Python and Jinja, and a conversation as long as a frame may be takes some 100 more. An answer is a rendered
conversation, in UTF-8 and as JSON."""
