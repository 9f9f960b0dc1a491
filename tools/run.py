#!/usr/bin/env python3
"""The project's one entry from a fresh checkout: makes its own environment, then runs what was asked.

    python3 tools/run.py demo | test | lint | check | soak | sim | bench | docs | lock | clean

Standard library only. This file must parse on any Python 3, so that an old one gets a sentence and not a traceback;
what it does lives in offgrid_tools/checkout/.
"""

import sys

OLDEST = (3, 11)


def main():  # type: () -> int
    if sys.version_info < OLDEST:
        needed, found = ".".join(map(str, OLDEST)), ".".join(map(str, sys.version_info[:2]))
        sys.stderr.write("This needs Python %s or newer; this is %s (%s).\n" % (needed, found, sys.executable))  # noqa: UP031
        return 2
    from offgrid_tools.checkout.commands import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
