"""`python -m offgrid_tools.reference`: writes docs/reference anew."""

from __future__ import annotations

import sys

from offgrid_tools.reference import write

if __name__ == "__main__":
    for path in write():
        sys.stdout.write(f"written: docs/reference/{path.name}\n")
