from __future__ import annotations

import sys
from pathlib import Path

# The helpers of browser tests are those of the report's.
sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
