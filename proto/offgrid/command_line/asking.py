"""Asks for what is not to be seen: hidden at a terminal, and one line of a pipe."""

from __future__ import annotations

import sys

import click


def secret(what: str, *, twice: bool = False) -> str:
    """Raises Abort where somebody at a terminal gives up, UsageError where a pipe has ended."""
    hidden = sys.stdin is not None and sys.stdin.isatty()
    try:
        if sys.stdin is None:
            raise click.Abort
        text: str = click.prompt(what, hide_input=hidden, confirmation_prompt=twice and hidden, err=True)
    except click.Abort:
        if hidden:
            raise
        raise click.UsageError(f"{what}: it is asked for, and standard input has ended") from None
    return text
