"""The one list of what README and guides tell to type and nothing types, with the reason of each."""

from __future__ import annotations

NOT_RUN = {
    "installs": "installs from a package index; tests/e2e and `bundle` install wheels without one",
    "the-tests": "is this very run",
    "stage": "what it starts is there already: the stage of the walk started it",
    "loses-a-disk": "asks for recovery words at a terminal; tests/e2e/test_restore*.py lose disks",
}
