"""Makes the modules of scripts/ importable. Appended, not prepended: scripts/test.py must not hide the standard `test`."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))
