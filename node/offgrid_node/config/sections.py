"""What each section of the configuration is: one table of TOML, and the bound that several share."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

RESERVED: dict[str, Any] = {"reserved": True}
"""Marks a key that is checked but that nothing reads yet; the template says so."""

YEAR_S = 31_536_000


class Section(BaseModel):
    """One table: frozen, strict about types, closed to unknown keys; defaults pass the same rules."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


def section_of(info: FieldInfo) -> type[Section] | None:
    """The section behind a field that is one."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def row_section_of(info: FieldInfo) -> type[Section] | None:
    """The section that each row of an array of tables is; None where the field is none."""
    kind = get_args(info.annotation)[0] if get_origin(info.annotation) is tuple else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None
