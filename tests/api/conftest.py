from __future__ import annotations

import sys
from pathlib import Path

# What the tests of this folder share.
sys.path.insert(0, str(Path(__file__).parent))
