"""The registry of hosts: both forms, no file, every mistake with its place, read again when it changes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.discovery import hosts_file
from offgrid_node.discovery.hosts_file import FILE_BYTES_MAX, HOSTS_MAX, PROBLEMS_MAX, HostEntry, HostsFile
from offgrid_node.discovery.json_places import JsonFault, Place, parse_places
from offgrid_node.protocol.errors import InvalidRequest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh_hosts.json"


def test_objects_with_names_and_plain_addresses(path: Path) -> None:
    path.write_text('{"hosts": [{"name": "attic", "address": "192.0.2.7:7440"}, {"address": "[fd00::7]:7440"}]}')
    assert HostsFile(path).entries() == (HostEntry("192.0.2.7:7440", "attic"), HostEntry("[fd00::7]:7440"))
    path.write_text('["192.0.2.7:7440", "attic.example:1", "192.0.2.7:7440"]')
    assert HostsFile(path).hosts() == ["192.0.2.7:7440", "attic.example:1"]


def test_hosts_by_the_url_of_their_gateway(path: Path) -> None:
    path.write_text('{"hosts": [{"name": "attic", "url": "http://192.0.2.7:8081"}, {"address": "192.0.2.8:7440"}]}')
    assert HostsFile(path).entries()[0] == HostEntry("", "attic", "http://192.0.2.7:8081")
    assert (HostsFile(path).hosts(), HostsFile(path).urls()) == (["192.0.2.8:7440"], ["http://192.0.2.7:8081"])
    path.write_text('["http://attic.example:8081", "http://attic.example:8081"]')
    assert (HostsFile(path).hosts(), HostsFile(path).urls()) == ([], ["http://attic.example:8081"])


def test_without_a_file_this_machine_is_tried(path: Path) -> None:
    assert HostsFile(path).hosts() == ["127.0.0.1:7440"]
    assert HostsFile(path / "below").hosts() == ["127.0.0.1:7440"]
    assert HostsFile(path).entries() == ()


def test_an_empty_list_means_nobody(path: Path) -> None:
    path.write_text("[]")
    assert HostsFile(path).hosts() == []


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("", "1:1", "a value is expected here"),
        ("[", "1:2", "a value is expected here"),
        ('["a:1",]', "1:7", "',' stands before ']'"),
        ('["a:1"] x', "1:9", "after the end"),
        ('{"hosts": [],\n  hosts: []}', "2:3", "double quotes"),
        ('{"hosts": [], "hosts": []}', "1:15", "a second time"),
        ('{"hosts" []}', "1:10", "':' is expected"),
        ("[NaN]", "1:2", "NaN"),
        ("[" * 40, "1:18", "nested deeper"),
        ("7", "1:1", "no list of hosts"),
        ("{}", "1:1", "hosts: is missing"),
        ('{"host": []}', "1:2", "did you mean 'hosts'?"),
        ('{"hosts": {}}', "1:11", "no list of hosts"),
        ("[\n  7]", "2:3", "hosts[0]: is no host"),
        ('["192.0.2.7"]', "1:2", "did you mean '192.0.2.7:7440'?"),
        ('["192.0.2.7:99999"]', "1:2", "out of range"),
        ('[{"name": "attic"}]', "1:2", "hosts[0].address: is missing"),
        ('[{"url": "attic:8081"}]', "1:10", "did you mean 'http://attic:8081'?"),
        ('["http://me:x@attic"]', "1:2", "must not hold a user or password"),
        ('[{"url": 7}]', "1:10", "is not an HTTP URL"),
        ('[{"address": 7}]', "1:14", "hosts[0].address: is no text"),
        ('[{"name": "the attic", "address": "a:1"}]', "1:11", "hosts[0].name: is no name"),
        ('[{"adress": "a:1", "address": "a:1"}]', "1:3", "did you mean 'address'?"),
        ('["a:1", "\ud83d\ude00", "b"]'.encode("utf-16", "surrogatepass").decode("utf-16"), "1:14", "has no port"),
    ],
)
def test_a_mistake_is_shown_with_its_place_and_what_is_allowed(path: Path, text: str, place: str, says: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest) as error:
        HostsFile(path).entries()
    found = [v for v in error.value.violations if v.field == f"{path}:{place}"]
    assert any(says in violation.description for violation in found), error.value.message
    assert f"{path}:{place}: " in error.value.message


def test_every_mistake_is_told_at_once_up_to_a_bound(path: Path) -> None:
    path.write_text('[7, {"address": "a"}, "b"]')
    with pytest.raises(InvalidRequest) as error:
        HostsFile(path).hosts()
    assert len(error.value.violations) == 3
    path.write_text("[" + ",".join("7" for _ in range(500)) + "]")
    with pytest.raises(InvalidRequest) as error:
        HostsFile(path).hosts()
    assert len(error.value.violations) == PROBLEMS_MAX


def test_too_many_hosts_too_many_bytes_and_other_encodings_are_refused(path: Path) -> None:
    path.write_text("[" + ",".join('"a:1"' for _ in range(HOSTS_MAX + 1)) + "]")
    with pytest.raises(InvalidRequest, match=f"allowed: {HOSTS_MAX}"):
        HostsFile(path).hosts()
    path.write_bytes(b" " * (FILE_BYTES_MAX + 1))
    with pytest.raises(InvalidRequest, match="larger than"):
        HostsFile(path).hosts()
    path.write_bytes(b'["a:1",\n "\xff"]')
    with pytest.raises(InvalidRequest, match=r":2:3: is not UTF-8"):
        HostsFile(path).hosts()


def test_it_is_read_again_when_it_changes_and_not_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts, parsed = HostsFile(path), list[str]()

    def parse(text: str) -> Place:
        parsed.append(text)
        return parse_places(text)

    monkeypatch.setattr(hosts_file, "parse_places", parse)

    def write(text: str, mtime_ns: int) -> None:
        path.write_text(text)
        os.utime(path, ns=(mtime_ns, mtime_ns))

    write('["a:1"]', 1_000)
    assert hosts.hosts() == hosts.hosts() == ["a:1"]
    assert parsed == ['["a:1"]']
    write('["b:1"]', 2_000)
    assert hosts.hosts() == ["b:1"]
    write('["b:"]', 3_000)
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            hosts.hosts()
    assert len(parsed) == 3, "a broken file is not parsed again until it is mended"
    path.unlink()
    assert hosts.hosts() == ["127.0.0.1:7440"]


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda kids: st.lists(kids, max_size=3)))
def test_json_is_read_as_json_reads_it(value: object) -> None:
    def plain(place: object) -> object:
        inner = place.value  # type: ignore[attr-defined]
        return [plain(item) for item in inner] if isinstance(inner, list) else inner

    assert plain(parse_places(json.dumps(value))) == value


@given(st.text(alphabet='[]{}",:0a\\ \n-.eE', max_size=40))
def test_garbage_is_a_fault_with_a_place_and_nothing_else(text: str) -> None:
    offset = 0
    try:
        parse_places(text)
    except JsonFault as fault:
        offset = fault.offset
    assert 0 <= offset <= len(text)
