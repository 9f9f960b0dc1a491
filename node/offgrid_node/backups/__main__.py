"""`python -m offgrid_node.backups`: see errand.py."""

from __future__ import annotations

from offgrid_node.backups.errand import main

if __name__ == "__main__":
    main()
