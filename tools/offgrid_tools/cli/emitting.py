"""What `--json` prints: one document a line, in the form of offgrid.json_form."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
from google.protobuf.message import Message

from offgrid.json_form import json_of


def emit(document: Message | Mapping[str, Any]) -> None:
    """Prints one document on one line, at once."""
    plain = json_of(document) if isinstance(document, Message) else document
    click.echo(json.dumps(plain, ensure_ascii=False))
    sys.stdout.flush()
