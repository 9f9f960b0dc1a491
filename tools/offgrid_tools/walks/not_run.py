"""The one list of what README and guides tell to type and nothing types, with the reason of each."""

from __future__ import annotations

NOT_RUN = {
    "the-tests": "is this very run",
}
