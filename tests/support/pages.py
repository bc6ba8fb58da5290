"""The programs in a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def programs_in(page: str) -> dict[str, str]:
    """Those of this page, a path below the checkout, by the name that the first line has."""
    found = re.findall(r"```python\n(# \w+\.py\n.*?)```", (ROOT / page).read_text(), re.DOTALL)
    return {text.split("\n", 1)[0][2:]: text for text in found}
