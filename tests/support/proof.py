"""How much is tried: ``NFSDICT_PROOF=10`` multiplies the cases of the long tests by ten,
and tries all versions of NFS."""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("NFSDICT_PROOF", "1"))

# On versions 4.0 and 4.1 only calls are counted by default (``test_nfs_rpcs.py``): what clients see
# depends on the server's change attribute, which is the same in all versions 4.
VERSIONS = ("3", "4.0", "4.1", "4.2") if FACTOR > 1 else ("3", "4.2")
