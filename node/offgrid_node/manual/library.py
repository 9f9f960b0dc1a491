"""Which documents there are, in which order they are read, and where they lie: in the wheel, or in a checkout."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

PACKAGED = Path(__file__).parent / "pages"
CHECKOUT = Path(__file__).parents[3]
START = "README.md"
ORDER: Mapping[str, tuple[str, ...]] = {
    "Start": (START, "docs/guide/first-mesh.md", "docs/guide/demos.md"),
    "Guides": tuple(
        f"docs/guide/{name}.md"
        for name in (
            "home-lab",
            "jobs",
            "backup-box",
            "lost-disk",
            "llm-farm",
            "ai-agents",
            "radio-mesh",
            "money",
            "community-network",
            "mail",
            "sessions",
            "programs",
            "from-the-prototype",
        )
    ),
    "Running it": tuple(
        f"docs/{name}.md"
        for name in (
            "operations",
            "page",
            "doctor",
            "security",
            "cli",
            "api",
            "http",
            "client",
            "executors",
            "host_rules",
            "requirements",
            "links",
        )
    ),
    "Reference": tuple(
        f"docs/reference/{name}.md" for name in ("cli", "config", "rpc", "events", "metrics", "log", "floors")
    ),
    "How it works": tuple(
        f"docs/{name}.md"
        for name in (
            "design",
            "design/mesh",
            "design/jobs",
            "design/objects",
            "design/quorum",
            "design/ledger",
            "design/state",
            "design/links",
            "design/gateway",
            "performance",
        )
    ),
}
REST = "More"
"""Where a page stands that has no place in ORDER."""


class NoDocuments(LookupError):
    """Neither the wheel nor a checkout has them."""


class Library:
    """The documents below `root`, which holds README.md and docs/. Paths are posix texts below it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def found(cls) -> Library:
        """Of this installation. Raises NoDocuments."""
        for root in (PACKAGED, CHECKOUT):
            if (root / START).is_file() and (root / "docs").is_dir():
                return cls(root)
        raise NoDocuments("this installation has no documents; a wheel and a checkout have")

    @cached_property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Every page once, in groups."""
        there = sorted(path.relative_to(self._root).as_posix() for path in (self._root / "docs").rglob("*.md"))
        top = [name for name in (START, "CHANGELOG.md") if (self._root / name).is_file()]
        rest = dict.fromkeys([*top, *there])
        groups: dict[str, tuple[str, ...]] = {}
        for group, names in ORDER.items():
            groups[group] = tuple(name for name in names if name in rest)
            for name in groups[group]:
                del rest[name]
        return {**groups, REST: tuple(rest)}

    @property
    def pages(self) -> tuple[str, ...]:
        return tuple(name for names in self.groups.values() for name in names)

    def text(self, page: str) -> str:
        """A page's Markdown; `page` is one of `pages`."""
        return (self._root / page).read_text("utf-8")
