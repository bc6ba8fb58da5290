"""How much is tried: ``NFSDICT_PROOF=10`` multiplies the cases of the long tests by ten."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("NFSDICT_PROOF", "1"))
