"""What a chat template may cost. For the worker and for the process that renders: `jinja.py`."""

from __future__ import annotations

from typing import Final

MAX_TEMPLATE_CHARS: Final = 262_144
"""Characters of a template. The longest of the field have 17,000."""

MAX_CPU_S: Final = 1.5
"""Processor time of compiling a template, and of all renderings for one request. Largest of the field: some milliseconds."""

MAX_MEMORY_BYTES: Final = 192 * 1024 * 1024
"""Of the process. 25 MiB are Python and Jinja, and a conversation as long as a frame may be takes some 100 more."""

MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A rendered conversation, in UTF-8 and as JSON."""

OUT_OF_MEMORY: Final = 12
"""Exit status of a process that would need more than it may: ENOMEM."""
