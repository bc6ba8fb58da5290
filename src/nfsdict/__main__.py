"""`python -m nfsdict` is the nfsdict command."""

from __future__ import annotations

import sys

from _nfsdict_command import main

if __name__ == "__main__":
    sys.exit(main())
