"""The page's own modules as one, pure: a browser asks once, and what they have in common is compressed once.

Each is written, and read, as an ES module of its own, with its imports at its top, a line each: `import { a, b } from
"./lib/x.js";`. Joined they share a scope, in the order in which modules are evaluated (ECMA-262, 16.2.1), so no name is
declared twice or imported as another. What is vendored stays apart, and is imported once.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import \{ (?P<names>[\w$]+(?:, [\w$]+)*) \} from "(?P<path>\.[\w./-]+)";\n', re.MULTILINE)
_DECLARED = re.compile(r"^(?:export )?(?:async )?(?:function\*?|class|const|let) (?P<name>[\w$]+)", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=async |function|class|const|let)", re.MULTILINE)
_LEFT = re.compile(r"^(?:import |export ).*", re.MULTILINE)


def joined(sources: Mapping[str, str], entry: str, at: str, vendored: str) -> str:
    """The module `entry` with all that it imports, to be served at path `at`; those below `vendored` are imported from
    there. `sources` by path. Raises ValueError for what cannot be joined, with its file and why."""
    order: dict[str, str] = {}
    outside: dict[str, dict[str, None]] = {}
    _visit(sources, entry, vendored, set(), order, outside)
    declared: dict[str, str] = {}
    for path, body in order.items():
        if left := _LEFT.search(body):
            raise ValueError(f'{path}: {left[0]!r} cannot be joined; write `import {{ a }} from "./x.js";`')
        for name in _DECLARED.findall(body):
            if name in declared:
                raise ValueError(f"{path}: {name} is declared in {declared[name]} too; one of them needs another name")
            declared[name] = path
    return "".join([*_imports(outside, at), *order.values()])


def _visit(
    sources: Mapping[str, str],
    path: str,
    vendored: str,
    met: set[str],
    order: dict[str, str],
    outside: dict[str, dict[str, None]],
) -> None:
    """Puts `path` behind what it imports (depth first), each once."""
    met.add(path)
    for found in _IMPORT.finditer(sources[path]):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found["path"]))
        if target.startswith(vendored):
            outside.setdefault(target, {}).update(dict.fromkeys(found["names"].split(", ")))
        elif target not in met:
            _visit(sources, target, vendored, met, order, outside)
    order[path] = _EXPORT.sub("", _IMPORT.sub("", sources[path]))


def _imports(outside: Mapping[str, Mapping[str, None]], at: str) -> list[str]:
    """One line for each vendored module, as the joined one at path `at` has to name it."""
    folder = posixpath.dirname(at)
    return [
        f'import {{ {", ".join(sorted(names))} }} from "{_relative(target, folder)}";\n'
        for target, names in outside.items()
    ]


def _relative(target: str, folder: str) -> str:
    path = posixpath.relpath(target, folder or ".")
    return path if path.startswith("..") else f"./{path}"
