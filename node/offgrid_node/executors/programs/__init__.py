"""WASI programs that ship with the node, as WebAssembly text: small enough to read, real enough to use."""

from __future__ import annotations

from importlib import resources

SUFFIX = ".wat"


def names() -> tuple[str, ...]:
    """The programs' names, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)))


def load(name: str) -> bytes:
    """A program's source, ready to be a job's module. Raises KeyError for a name that is not in `names()`."""
    if name not in names():
        raise KeyError(f"no program {name!r}; there are: {', '.join(names())}")
    return (resources.files(__name__) / f"{name}{SUFFIX}").read_bytes()
