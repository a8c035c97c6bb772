from __future__ import annotations

import sys
from pathlib import Path

# The modules of the zoo, which the benchmark imports as well.
sys.path.insert(0, str(Path(__file__).parent))
