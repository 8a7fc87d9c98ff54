"""Makes the package of this checkout importable, before anything is installed: setting up shares code with `kolosal.native`.

Imported first by what imports that. Appended, not prepended: what is installed wins.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
