"""Known answers of addresses, for other implementations too: ``README.md`` tells what each file holds.

    python -m tests.vectors mnist-projgan:5      # write a version's images to exact.json, once and for ever
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def read(name: str) -> Any:
    """The content of ``name``.json."""
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
