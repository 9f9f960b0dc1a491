"""`discovery/mesh_hosts.json`: a list of hosts to try, kept by hand or by another program, read again when it changes.

{"hosts": [{"name": "attic", "address": "192.0.2.7:7440"}]}      or      ["192.0.2.7:7440"]

A host may be given by the URL of its gateway instead, which says where the host is: {"url": "http://192.0.2.7:8081"},
or the URL alone.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import msgspec

from offgrid_node.config.addresses import ADDRESS_RULE, URL_RULE, BadAddress, check_url, split_address
from offgrid_node.discovery.json_places import JsonFault, Place, line_and_column, parse_places
from offgrid_node.protocol.errors import FieldViolation, InvalidRequest
from offgrid_node.protocol.ids import NAME, NAME_RULE

DEFAULT_ADDRESS = "127.0.0.1:7440"
FILE_BYTES_MAX = 1024 * 1024
HOSTS_MAX = 1024
PROBLEMS_MAX = 20  # told at once
FORM = '{"hosts": [{"name": "…", "address": "host:port"}]} or ["host:port"]'
HOST_FORM = '"host:port", {"name": "…", "address": "host:port"}, or the URL of a gateway as text or as "url"'

_KEYS = {"name": NAME_RULE, "address": ADDRESS_RULE, "url": URL_RULE}


class HostEntry(msgspec.Struct, frozen=True):
    """A host to try, at an address, or where its gateway at a URL says. What the file does not give is ""."""

    address: str
    name: str = ""
    url: str = ""


class HostsFile:
    """The registry in one file. Methods read the disk only when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._outcome: tuple[HostEntry, ...] | InvalidRequest = ()

    def hosts(self) -> list[str]:
        """The addresses to try, each once; this machine's default port when there is no file. Raises as `entries`."""
        entries = self.entries()
        if self._stamp is None:
            return [DEFAULT_ADDRESS]
        return list(dict.fromkeys(entry.address for entry in entries if entry.address))

    def urls(self) -> list[str]:
        """Those of gateways, each once. Raises as `entries`."""
        return list(dict.fromkeys(entry.url for entry in self.entries() if entry.url))

    def entries(self) -> tuple[HostEntry, ...]:
        """What the file holds now; nothing when there is none.

        Raises InvalidRequest that says of each problem where it is, what is wrong and what is allowed; again at each
        call, until the file is mended.
        """
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except (FileNotFoundError, NotADirectoryError):
            self._stamp, self._outcome = None, ()
            return ()
        except OSError as error:
            raise self._unreadable(error) from error
        if stamp != self._stamp:
            self._outcome = self._read()
            self._stamp = stamp
        if isinstance(self._outcome, InvalidRequest):
            raise self._outcome.with_traceback(None)  # it is raised again and again, and would gather them all
        return self._outcome

    def _read(self) -> tuple[HostEntry, ...] | InvalidRequest:
        try:
            with self._path.open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            return self._unreadable(error)
        if len(raw) > FILE_BYTES_MAX:
            return self._fault([(1, 1, f"is larger than {FILE_BYTES_MAX} bytes")])
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = raw[: error.start].decode("utf-8-sig", "replace")
            return self._fault([(*line_and_column(before, len(before)), "is not UTF-8")])
        reader = _Reader()
        try:
            entries = reader.entries(parse_places(text))
        except JsonFault as fault:
            reader.problems.append((fault.offset, f"is not JSON: {fault.message}. allowed: {FORM}"))
            entries = []
        if reader.problems:
            return self._fault([(*line_and_column(text, at), said) for at, said in reader.problems[:PROBLEMS_MAX]])
        return tuple(entries)

    def _unreadable(self, error: OSError) -> InvalidRequest:
        return InvalidRequest(f"{self._path}: cannot be read: {error.strerror}", reason="HostsFileUnreadable")

    def _fault(self, problems: list[tuple[int, int, str]]) -> InvalidRequest:
        violations = [FieldViolation(f"{self._path}:{line}:{column}", said) for line, column, said in problems]
        lines = [f"{found.field}: {found.description}" for found in violations]
        return InvalidRequest("\n".join(lines), reason="HostsFileInvalid", violations=violations)


class _Reader:
    """Reads what it can and notes every problem, with its offset."""

    def __init__(self) -> None:
        self.problems: list[tuple[int, str]] = []

    def entries(self, root: Place) -> list[HostEntry]:
        listed = root
        if isinstance(root.value, dict):
            self._check_keys(root.value, {"hosts": FORM})
            if "hosts" not in root.value:
                self._note(root, f"hosts: is missing. allowed: {FORM}")
                return []
            listed = root.value["hosts"][1]
        if not isinstance(listed.value, list):
            self._note(listed, f"is no list of hosts. allowed: {FORM}")
            return []
        if len(listed.value) > HOSTS_MAX:
            self._note(listed, f"has {len(listed.value)} hosts. allowed: {HOSTS_MAX}")
            return []
        found = [self._entry(f"hosts[{index}]", place) for index, place in enumerate(listed.value)]
        return [entry for entry in found if entry is not None]

    def _entry(self, where: str, place: Place) -> HostEntry | None:
        if isinstance(place.value, str):
            return self._url(where, place, "") if "://" in place.value else self._address(where, place, "")
        if not isinstance(place.value, dict):
            self._note(place, f"{where}: is no host. allowed: {HOST_FORM}")
            return None
        self._check_keys(place.value, _KEYS, f"{where}.")
        name = ""
        if "name" in place.value:
            name_place = place.value["name"][1]
            if isinstance(name_place.value, str) and NAME.match(name_place.value):
                name = name_place.value
            else:
                self._note(name_place, f"{where}.name: is no name. allowed: {NAME_RULE}")
        if "url" in place.value:
            return self._url(f"{where}.url", place.value["url"][1], name)
        if "address" not in place.value:
            self._note(place, f"{where}.address: is missing. allowed: {ADDRESS_RULE}")
            return None
        return self._address(f"{where}.address", place.value["address"][1], name)

    def _address(self, where: str, place: Place, name: str) -> HostEntry | None:
        if not isinstance(place.value, str):
            self._note(place, f"{where}: is no text. allowed: {ADDRESS_RULE}")
            return None
        try:
            split_address(place.value)
        except BadAddress as bad:
            guess = f". did you mean '{bad.suggestion}'?" if bad.suggestion else ""
            self._note(place, f"{where}: {bad.message}. allowed: {ADDRESS_RULE}{guess}")
            return None
        return HostEntry(place.value, name)

    def _url(self, where: str, place: Place, name: str) -> HostEntry | None:
        text = place.value if isinstance(place.value, str) else ""
        try:
            check_url(text)
        except BadAddress as bad:
            guess = f". did you mean '{bad.suggestion}'?" if bad.suggestion else ""
            self._note(place, f"{where}: {bad.message}. allowed: {URL_RULE}{guess}")
            return None
        return HostEntry("", name, text)

    def _check_keys(self, members: dict[str, tuple[int, Place]], known: dict[str, str], where: str = "") -> None:
        for key, (offset, _) in members.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                guess = f". did you mean '{near[0]}'?" if near else ""
                self.problems.append((offset, f"{where}{key[:64]}: is no key here. allowed: {', '.join(known)}{guess}"))

    def _note(self, place: Place, said: str) -> None:
        self.problems.append((place.offset, said))
