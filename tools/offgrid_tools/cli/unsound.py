"""What is wrong with a file of a session, as the command line's error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def unsound(hint: str) -> Iterator[None]:
    from offgrid.exports.document import BadExport
    from offgrid.exports.parquet import NoPyarrow

    try:
        yield
    except BadExport as error:
        raise click.BadParameter(str(error), param_hint=hint) from error
    except NoPyarrow as error:
        raise click.UsageError(str(error)) from error
