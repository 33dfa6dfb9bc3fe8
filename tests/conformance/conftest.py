"""Servers for the conformance tests live in ``right_server``; this makes it importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
