"""A bad file is refused with the place, the rule and a guess; never with a traceback, and never only in part."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from offgrid_node.config import ConfigError, Problem, load
from offgrid_node.config.loading import FILE_BYTES_MAX, PROBLEMS_MAX
from offgrid_node.config.toml_scan import TOKENS_MAX
from offgrid_node.protocol.errors import InvalidRequest

GOOD = '[mesh]\nname = "home"\n'


def problems_of(folder: Path, text: str | bytes) -> list[Problem]:
    file = folder / "offgrid.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    return caught.value.problems


@dataclass(frozen=True)
class Bad:
    """A text with one problem. `says` is a part of the message, `guess` the whole suggestion."""

    text: str
    at: tuple[int, int]
    key: str
    says: str
    guess: str = ""
    rule: str = ""


BAD = {
    # unknown names
    "unknown key": Bad(GOOD + 'lisen = "a:1"', (3, 1), "mesh.lisen", "unknown key", "listen"),
    "unknown section": Bad(GOOD + "[nod]", (3, 2), "nod", "unknown section", "node"),
    "key at the root": Bad('peers = ["a:1"]\n' + GOOD, (1, 1), "peers", "unknown section", "mesh.peers"),
    "key of another section": Bad(GOOD + '[node]\nlisten = "a:1"', (4, 1), "node.listen", "unknown key", "mesh.listen"),
    "unknown key in an inline table": Bad(
        GOOD + "[host]\nwasm = { enabled = true,  memory = 64 }", (4, 27), "host.wasm.memory", "unknown", "memory_mb"
    ),
    "unknown dotted key": Bad(
        'mesh.name = "home"\n  node . "log-level" = "info"', (2, 10), "node.log-level", "unknown key", "log_level"
    ),
    "unknown key like no other": Bad(GOOD + "zzz = 1", (3, 1), "mesh.zzz", "unknown key", "", "name, listen, door"),
    "quoted key with spaces": Bad(GOOD + '"two words" = 1', (3, 1), "mesh.'two words'", "unknown key"),
    # wrong types
    "number in quotes": Bad(GOOD + '[host]\nslots = "8"', (4, 9), "host.slots", "must be an integer", "8", "1 to 1024"),
    "boolean in quotes": Bad(GOOD + 'mdns = "yes"', (3, 8), "mesh.mdns", "must be true or false", "true"),
    "one where many": Bad(
        GOOD + '[node]\nroles = "core, host"', (4, 9), "node.roles", "must be a list", '["core", "host"]'
    ),
    "float for an integer": Bad(GOOD + "[jobs]\ntimeout_ms = 1.5", (4, 14), "jobs.timeout_ms", "is a float"),
    "boolean for an integer": Bad(GOOD + "[jobs]\nqueue_max = true", (4, 13), "jobs.queue_max", "is true"),
    "integer for a text": Bad("[mesh]\nname = 7", (2, 8), "mesh.name", "must be a text", '"7"'),
    "date for a text": Bad(GOOD + "[node]\nname = 2024-01-01", (4, 8), "node.name", "is a date or time"),
    "value for a section": Bad("node = 3\n" + GOOD, (1, 8), "node", "must be a table", "", "name, data_dir"),
    "array of tables": Bad(GOOD + "[[admin]]", (3, 3), "admin", "must be a table, is a list"),
    "integer in a list": Bad(GOOD + 'peers = ["a:1",\n  # two\n  2 ]', (5, 3), "mesh.peers[1]", "must be a text"),
    "integer in a table": Bad(
        GOOD + '[host.labels]\nroom = "attic"\ngpu = 1', (5, 7), "host.labels.gpu", "must be a text"
    ),
    # out of range
    "too small": Bad(
        GOOD + "probe_interval_ms = 99", (3, 21), "mesh.probe_interval_ms", "is 99, too small", "", "100 to 60000"
    ),
    "too large": Bad(GOOD + "[host]\nslots=1_025", (4, 7), "host.slots", "is 1025, too large", "", "1 to 1024"),
    "negative": Bad(GOOD + "[host]\nprice_micro = -1", (4, 15), "host.price_micro", "too small"),
    "enormous": Bad(GOOD + f"[host]\nslots = {'9' * 4000}", (4, 9), "host.slots", "many digits, too large"),
    "no role": Bad(GOOD + "[node]\nroles = []", (4, 9), "node.roles", "is empty"),
    "role twice": Bad(GOOD + '[node]\nroles = ["core", "core"]', (4, 9), "node.roles", "has 'core' twice"),
    "too many labels": Bad(
        GOOD + "[host.labels]\n" + "".join(f'l{n} = ""\n' for n in range(65)), (3, 7), "host.labels", "more than 64"
    ),
    # not one of the choices
    "unknown role": Bad(
        GOOD + '[node]\nroles = [\n  "core",\n  "brokr",\n]', (6, 3), "node.roles[1]", "no choice 'brokr'", '"broker"'
    ),
    "unknown level": Bad(
        GOOD + '[node]\nlog_level = "Warn"', (4, 13), "node.log_level", "'Warn'", '"warning"', "debug, info, warning"
    ),
    "unknown mode": Bad(GOOD + 'jobs = { mode = "of-grid" }', (3, 1), "mesh.jobs", "unknown key"),
    "unknown mode inline": Bad(
        'jobs = { mode = "off-grid" }\n' + GOOD, (1, 17), "jobs.mode", "no choice 'off-grid'", '"offgrid"'
    ),
    # names, addresses, URLs, paths
    "name with capitals": Bad('[mesh]\nname = "My Mesh"', (2, 8), "mesh.name", "no name", '"my-mesh"'),
    "no port": Bad(GOOD + 'listen = "0.0.0.0"', (3, 10), "mesh.listen", "has no port", '"0.0.0.0:7440"'),
    "port too large": Bad(GOOD + 'listen = "a:65536"', (3, 10), "mesh.listen", "out of range"),
    "port 0 of a peer": Bad(GOOD + 'peers = ["a:0"]', (3, 10), "mesh.peers[0]", "out of range"),
    "naked IPv6": Bad(GOOD + 'listen = "::1:7440"', (3, 10), "mesh.listen", "without brackets", '"[::1]:7440"'),
    "bad IPv4": Bad(GOOD + "door = '10.0.0.256:1'", (3, 8), "mesh.door", "bad IPv4"),
    "URL for a peer": Bad(GOOD + 'peers = ["http://a:22/"]', (3, 10), "mesh.peers[0]", "is a URL", '"a:22"'),
    "door is taken": Bad(GOOD + 'listen = "a:1"\ndoor = "a:1"', (4, 8), "mesh.door", "same address as mesh.listen"),
    "admin for everyone": Bad(
        GOOD + '[admin]\naddress = "0.0.0.0:9"', (4, 11), "admin.address", "other machines could reach"
    ),
    "admin path without scheme": Bad(
        GOOD + '[admin]\naddress = "/run/x.sock"', (4, 11), "admin.address", "has no port", '"unix:/run/x.sock"'
    ),
    "admin path too long": Bad(
        GOOD + f'[admin]\naddress = "unix:/{"x" * 103}"', (4, 11), "admin.address", "104 bytes, too long"
    ),
    "URL without scheme": Bad(
        GOOD + '[jobs]\nbroker_url = "broker:9000"', (4, 14), "jobs.broker_url", "no", '"http://broker:9000"'
    ),
    "bad URL in a list": Bad(
        GOOD + '[storage]\nhosts = ["http://a", "ftp://b"]', (4, 22), "storage.hosts[1]", "is not an HTTP URL"
    ),
    "empty path": Bad(GOOD + '[storage]\nmemory_db = ""', (4, 13), "storage.memory_db", "is empty"),
    "path with NUL": Bad(GOOD + '[node]\ndata_dir = "a\\u0000"', (4, 12), "node.data_dir", "unprintable characters"),
    "relative program": Bad(
        GOOD + '[host.process.commands]\n"wc" = "bin/wc"', (4, 8), "host.process.commands.wc", "no absolute path"
    ),
    "label with a bad name": Bad(GOOD + '[host]\nlabels = { "Aé" = "" }', (4, 12), "host.labels.'Aé'", "no name"),
    "label too long": Bad(GOOD + f'[host]\nlabels = {{ a = "{"x" * 129}" }}', (4, 16), "host.labels.a", "129 char"),
    # missing
    "no mesh name": Bad('[mesh]\nlisten = "a:1"', (1, 2), "mesh.name", "is missing", "", "1 to 63 characters"),
    "empty file": Bad("", (1, 1), "mesh.name", "is missing"),
    # not TOML
    "key twice": Bad(GOOD + '\nname = "b"', (4, 1), "mesh.name", "already set in line 2"),
    "section twice": Bad(GOOD + "[mesh]", (3, 2), "mesh", "already set in line 1"),
    "inline key twice": Bad(
        GOOD + '[host]\nlabels = { a = "1", a = "2" }', (4, 21), "host.labels.a", "already set in line 4"
    ),
    "no quotes": Bad(GOOD + "[node]\nlog_level = info", (4, 13), "node.log_level", "not a TOML value", '"info"'),
    "python's true": Bad(GOOD + "mdns = True", (3, 8), "mesh.mdns", "True is not a TOML value", "true"),
    "leading zero": Bad(GOOD + "[host]\nslots = 08", (4, 9), "host.slots", "08 is not a TOML value", "8"),
    "no value": Bad(GOOD + "mdns =", (3, 7), "mesh.mdns", "a value is expected here"),
    "no equals sign": Bad(GOOD + "mdns: true", (3, 5), "", "'=' is expected here"),
    "open quote": Bad(GOOD + 'door = "a:1', (3, 8), "mesh.door", "not closed"),
    "bad escape": Bad(GOOD + r'hosts_file = "C:\data"', (3, 14), "mesh.hosts_file", "Unescaped '\\'"),
    "open long text": Bad(GOOD + 'door = """\na:1', (3, 8), "mesh.door", 'not closed with """'),
    "open array": Bad(GOOD + 'peers = [\n  "a:1"\n[node]', (5, 1), "mesh.peers", "the array above is not closed"),
    "open array at the end": Bad(GOOD + 'peers = [\n  "a:1"\n', (3, 9), "mesh.peers", "the array is not closed"),
    "open inline table": Bad(GOOD + '[host]\nlabels = { a = "b"\n', (4, 10), "host.labels", "not closed with '}'"),
    "no comma": Bad(GOOD + 'peers = ["a:1" "b:1"]', (3, 16), "mesh.peers", "',' or ']' is expected"),
    "open header": Bad(GOOD + "[node\n", (3, 6), "", "']' is expected here"),
    "two on a line": Bad(GOOD + "mdns = true, door = 1", (3, 12), "mesh.mdns", "line should end here"),
    "nested too deep": Bad(GOOD + f"peers = {'[' * 5000}", (3, 42), "mesh.peers", "nested deeper than 32"),
    "key too deep": Bad(".".join("a" * 50_000) + " = 1", (1, 65), "", "more than 32 parts"),
    "too many values": Bad(f"a = [{'1,' * 20_001}]", (1, 40_002), "a", "more than 20000 keys and values"),
    "enormous key": Bad("k" * 100_000 + " = 1\n" + GOOD, (1, 1), f"'{'k' * 60}…'", "unknown section"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_where_it_is_wrong(tmp_path: Path, bad: Bad) -> None:
    (problem,) = problems_of(tmp_path, bad.text)
    assert (problem.line, problem.column) == bad.at
    assert problem.key == bad.key
    assert bad.says in problem.message
    assert problem.suggestion == bad.guess
    assert bad.rule in problem.allowed
    assert problem.file == str(tmp_path / "offgrid.toml")


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_windows_line_ends_and_a_byte_order_mark_move_nothing(tmp_path: Path, bad: Bad) -> None:
    (problem,) = problems_of(tmp_path, b"\xef\xbb\xbf" + bad.text.replace("\n", "\r\n").encode())
    assert (problem.line, problem.column, problem.key) == (*bad.at, bad.key)


def test_every_problem_is_told_at_once_in_the_order_of_the_text(tmp_path: Path) -> None:
    text = (
        '[mesh]\nname = "Home"\nname = "b"\nmdns = yes\n[host\nslots = 0\n'
        '[node]\nroles = ["cor", host]\nprot = 1\n[gateway]\nauth_key = 4\n'
    )
    found = problems_of(tmp_path, text)
    assert [(p.line, p.column, p.key) for p in found] == [
        (2, 8, "mesh.name"),
        (3, 1, "mesh.name"),
        (4, 8, "mesh.mdns"),
        (5, 6, ""),
        (8, 10, "node.roles[0]"),
        (8, 17, "node.roles[1]"),
        (9, 1, "node.prot"),
        (11, 12, "gateway.auth_key"),
    ]


def test_a_problem_is_one_line_of_fixed_form(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD + '[node]\nlog_level = "loud"')
    assert str(problem) == (
        f"{tmp_path}/offgrid.toml:4:13: node.log_level: has no choice 'loud'. allowed: debug, info, warning, error."
    ).replace(f"{tmp_path}/", str(tmp_path) + os.sep)
    assert str(Problem("f", 1, 2, "k", "is x", "a, b", '"a"')) == 'f:1:2: k: is x. allowed: a, b. did you mean "a"?'
    assert str(Problem("f", 1, 2, "", "is x")) == "f:1:2: is x."


def test_no_value_steers_the_terminal(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD + r'"\u001b[2J\n" = 1')
    assert str(problem).isprintable()
    assert "\\x1b[2J\\n" in str(problem)


@pytest.mark.parametrize("value", ["hunter2", '"hunter2', "['hunter2']", '"hunter2\\u0007"', "{ a = 'hunter2' }"])
def test_a_secret_is_never_repeated(tmp_path: Path, value: str) -> None:
    (problem,) = problems_of(tmp_path, f"{GOOD}[gateway]\nauth_key = {value}")
    assert problem.key == "gateway.auth_key"
    assert "hunter2" not in str(problem)


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, GOOD + '[jobs]\nbroker_url = "http://me:hunter2@broker:9000"')
    assert "must not hold a user or password" in problem.message
    assert "hunter2" not in str(problem)


def test_bytes_that_are_no_utf8_are_found(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "x = 1\n# é ".encode() + b"\xff\n")
    assert (problem.line, problem.column) == (2, 5)
    assert "0xff" in problem.message


def test_a_file_at_the_bound_is_read_and_one_above_it_is_not(tmp_path: Path) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_bytes(GOOD.encode().ljust(FILE_BYTES_MAX, b"\n"))
    assert load(file, {}).mesh.name == "home"
    (problem,) = problems_of(tmp_path, GOOD.encode().ljust(FILE_BYTES_MAX + 1, b"\n"))
    assert "too large" in problem.message


def test_no_more_than_the_bound_of_problems_is_told(tmp_path: Path) -> None:
    found = problems_of(tmp_path, GOOD + "".join(f"k{n} = 1\n" for n in range(PROBLEMS_MAX + 50)))
    assert len(found) == PROBLEMS_MAX
    assert "more problems" in found[-1].message
    exactly = problems_of(tmp_path, GOOD + "".join(f"k{n} = 1\n" for n in range(PROBLEMS_MAX)))
    assert "more problems" not in exactly[-1].message


def test_more_sections_than_the_bound_are_not_read(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "[node]\n" + "[[node.name]]\n" * TOKENS_MAX)
    assert (found[-1].line, found[-1].message) == (20_001, "more than 20000 keys and values in one file")


def test_a_file_that_is_not_there_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.toml", {"OFFGRID_NOED__PORT": "1"})
    first, second = caught.value.problems
    assert "offgrid-node init" in first.message
    assert (first.line, first.column) == (1, 1)
    assert second.key == "OFFGRID_NOED__PORT"


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path) -> None:
    paths = [tmp_path]
    if hasattr(os, "mkfifo"):
        paths.append(tmp_path / "pipe")
        os.mkfifo(paths[1])
    for path in paths:
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path, {})


def test_the_error_is_the_callers_and_names_each_field(tmp_path: Path) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(GOOD + "mdns = 1\nprot = 2\n")
    with pytest.raises(InvalidRequest) as caught:
        load(file, {})
    assert [violation.field for violation in caught.value.violations] == ["mesh.mdns", "mesh.prot"]
    assert len(str(caught.value).splitlines()) == 2
