"""An export as YAML documents, by PyYAML and, where it is there, libyaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import yaml
from yaml.composer import Composer
from yaml.events import AliasEvent

from offgrid.exports.document import ITEM_BYTES_MAX, BadExport, Head, Said, Tail, plain
from offgrid.reducers import Recorded

READ_BYTES = 64 * 1024
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _AliasFree(Composer, _Loader):  # type: ignore[misc]  # yaml has no types
    """Composes in Python what is parsed in C: an alias, by which a small file says something huge, is refused."""

    def __init__(self, stream: object) -> None:
        _Loader.__init__(self, stream)
        Composer.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)


class YamlWriter:
    """One document for each part."""

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file = file
        self._document(plain(head))

    def add(self, event: Recorded) -> None:
        self._document(event._asdict())

    def end(self, tail: Tail) -> None:
        self._document(plain(tail))

    def _document(self, item: dict[str, Any]) -> None:
        text = yaml.dump(
            item, Dumper=_Dumper, explicit_start=True, sort_keys=False, allow_unicode=True, encoding="utf-8", width=1000
        )
        self._file.write(text)


class _Bounded:
    """A file of which no more than ITEM_BYTES_MAX may be read between two documents."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.since = file, 0

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(READ_BYTES if size < 0 else min(size, READ_BYTES))
        self.since += len(found)
        if self.since > ITEM_BYTES_MAX + READ_BYTES:
            raise BadExport(f"a document is longer than {ITEM_BYTES_MAX} bytes")
        return found


def read_documents(file: BinaryIO) -> Iterator[Said]:
    """Each with its place among the documents. Raises BadExport for what is no YAML."""
    bounded, number = _Bounded(file), 1
    loader = _AliasFree(bounded)
    try:
        while loader.check_data():
            yield Said(f"document {number}", loader.get_data())
            bounded.since, number = 0, number + 1
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, BadExport):
            raise
        said = " ".join(str(error).split())
        raise BadExport(f"document {number}: no YAML, or cut off: {said}") from error
    finally:
        loader.dispose()
