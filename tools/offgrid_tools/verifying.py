"""Checks receipts' files with real signatures, for `offgrid job verify-receipt`: no node, no mesh, no network."""

from __future__ import annotations

from offgrid_node.keys import verify
from offgrid_node.protocol.jobs.evidence import FILE_BYTES_MAX, MESH_CHARS_MIN, Verdict, check_file, facts_of
from offgrid_node.protocol.mesh.token import PREFIX

__all__ = ["FILE_BYTES_MAX", "Verdict", "check", "facts_of", "mesh_named"]


def mesh_named(text: str) -> str:
    """The beginning of a mesh id, from such a beginning or from an invite token, which has it behind "og1:".

    Raises ValueError for what is neither.
    """
    compact = "".join(text.split()).lower()
    if compact.startswith(PREFIX):
        compact = compact.removeprefix(PREFIX).partition("@")[0].replace("-", "")[:MESH_CHARS_MIN]
    if len(compact) < MESH_CHARS_MIN or not set(compact) <= set("abcdefghijklmnopqrstuvwxyz234567"):
        raise ValueError(
            f"{text!r} names no mesh: `offgrid status` shows its id, of which {MESH_CHARS_MIN} characters or more will "
            "do, as will an invite token of it"
        )
    return compact


def check(data: bytes, *, mesh: str = "", result: bytes | None = None) -> Verdict:
    """As `evidence.check_file`."""
    return check_file(data, verify, mesh=mesh, result=result)
