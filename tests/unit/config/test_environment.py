"""`OFFGRID_*` names, in the environment and in `.env`: what they set, which one wins, and how a bad one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, Problem, load
from offgrid_node.config.env import DOTENV_BYTES_MAX, GUESSES_MAX, LINE_CHARS_MAX, SHORT_NAMES, Variable
from offgrid_node.config.tree import settings

GOOD = '[mesh]\nname = "home"\n'


def loaded(folder: Path, environ: dict[str, str], dotenv: str = "", toml: str = GOOD) -> Config:
    (folder / "offgrid.toml").write_text(toml)
    if dotenv:
        (folder / ".env").write_bytes(dotenv.encode())
    return load(folder / "offgrid.toml", environ)


def refused(folder: Path, environ: dict[str, str], dotenv: str = "", toml: str = GOOD) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, environ, dotenv, toml)
    return caught.value.problems


SHORT_VALUES = {
    "OFFGRID_MODE": ("disabled", "disabled"),
    "OFFGRID_BROKER_URL": ("http://broker:9000", "http://broker:9000"),
    "OFFGRID_AUTH_KEY": ("s3cret", "**********"),
    "OFFGRID_STORAGE_ENABLED": ("false", "False"),
    "OFFGRID_STORAGE_HOSTS": ("http://a:1, https://[::1]:2/x", "('http://a:1', 'https://[::1]:2/x')"),
    "OFFGRID_MEMORY_DB": ("/x/m.db", str(Path("/x/m.db").absolute())),
    "OFFGRID_CHUNK_DIR": ("/x/c", str(Path("/x/c").absolute())),
    "OFFGRID_CHUNK_THRESHOLD": ("4096", "4096"),
    "OFFGRID_RETENTION_BASE_MB": ("1", "1"),
    "OFFGRID_RETENTION_TOKEN_LEVEL": ("3", "3"),
    "OFFGRID_COMPACTION_INTERVAL": ("60", "60"),
    "OFFGRID_SUMMARY_DIR": ("/x/s", str(Path("/x/s").absolute())),
    "OFFGRID_SETTLEMENT_INTERVAL": ("7", "7"),
}


def test_every_short_name_is_covered_here() -> None:
    assert SHORT_VALUES.keys() == SHORT_NAMES.keys()


@pytest.mark.parametrize("name", SHORT_VALUES)
def test_a_short_name_sets_its_key(tmp_path: Path, name: str) -> None:
    value, expected = SHORT_VALUES[name]
    section, key = SHORT_NAMES[name]
    assert str(getattr(getattr(loaded(tmp_path, {name: value}), section), key)) == expected


def test_every_key_has_a_long_name(tmp_path: Path) -> None:
    environ = {
        "OFFGRID_MESH__NAME": "cabin",
        "OFFGRID_MESH__MDNS": "off",
        "OFFGRID_MESH__PEERS": "a:1, [::1]:2",
        "OFFGRID_MESH__ADVERTISE": "",
        "OFFGRID_NODE__ROLES": "core,host",
        "OFFGRID_HOST__SLOTS": " 3 ",
        "OFFGRID_HOST__WASM__MEMORY_MB": "64",
        "OFFGRID_HOST__LABELS": "room=attic, gpu = none",
        "OFFGRID_HOST__PROCESS__COMMANDS": f"wc={Path('/usr/bin/wc').absolute()}",
        "OFFGRID_ADMIN__ADDRESS": "127.0.0.1:0",
    }
    config = loaded(tmp_path, environ)
    assert config.mesh.name == "cabin"
    assert config.mesh.mdns is False
    assert config.mesh.peers == ("a:1", "[::1]:2")
    assert config.mesh.advertise == ()
    assert config.node.roles == ("core", "host")
    assert config.host.slots == 3
    assert config.host.wasm.memory_mb == 64
    assert config.host.labels == {"room": "attic", "gpu": "none"}
    assert config.host.process.commands == {"wc": str(Path("/usr/bin/wc").absolute())}
    assert config.admin.address == "127.0.0.1:0"
    for path, _ in settings():
        (problem,) = refused(tmp_path, {f"OFFGRID_{'__'.join(path).upper()}X": "1"})
        assert "unknown name" in problem.message


def test_the_environment_beats_dotenv_and_dotenv_beats_the_file(tmp_path: Path) -> None:
    toml = GOOD + "[jobs]\nmode = 'auto'\ntimeout_ms = 101\nqueue_max = 1\n"
    dotenv = "OFFGRID_JOBS__TIMEOUT_MS=102\nOFFGRID_JOBS__QUEUE_MAX=2\n"
    config = loaded(tmp_path, {"OFFGRID_JOBS__QUEUE_MAX": "3"}, dotenv, toml)
    assert (config.jobs.mode, config.jobs.timeout_ms, config.jobs.queue_max) == ("auto", 102, 3)


def test_a_short_name_of_the_environment_beats_the_long_one_in_dotenv(tmp_path: Path) -> None:
    config = loaded(tmp_path, {"OFFGRID_MODE": "disabled"}, "OFFGRID_JOBS__MODE=offgrid\n")
    assert config.jobs.mode == "disabled"


def test_dotenv_syntax(tmp_path: Path) -> None:
    dotenv = (
        "# comment\n\nPATH=/not/ours\nexport OFFGRID_MODE='offgrid'  # why\n"
        'OFFGRID_AUTH_KEY="a b#${HOME}"\nOFFGRID_MESH__NAME = cabin # comment\n'
    )
    config = loaded(tmp_path, {}, dotenv)
    assert config.jobs.mode == "offgrid"
    assert config.gateway.auth_key.get_secret_value() == "a b#${HOME}"
    assert config.mesh.name == "cabin"


def test_names_of_others_are_left_alone(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"OFFGRIDS": "1", "PATH": "x", "MY_OFFGRID_MODE": "?"}, "OTHER=1\n").jobs.mode == "auto"


BAD = {
    "unknown section": ("OFFGRID_NOED__NAME", "x", "unknown name", "OFFGRID_NODE__NAME"),
    "unknown key": ("OFFGRID_MESH__LISEN", "a:1", "unknown name", "OFFGRID_MESH__LISTEN"),
    "one underscore": ("OFFGRID_MESH_LISTEN", "a:1", "unknown name", "OFFGRID_MESH__LISTEN"),
    "unknown short name": ("OFFGRID_MEMORYDB", "x", "unknown name", "OFFGRID_MEMORY_DB"),
    "small letters": ("offgrid_mode", "auto", "unknown name", "OFFGRID_MODE"),
    "a whole section": ("OFFGRID_MESH", "x", "unknown name", "OFFGRID_MODE"),
    "no choice": ("OFFGRID_MODE", "of-grid", "has no choice 'of-grid'", "offgrid"),
    "no integer": ("OFFGRID_CHUNK_THRESHOLD", "1MB", "must be an integer, is the text '1MB'", ""),
    "empty integer": ("OFFGRID_RETENTION_BASE_MB", "", "must be an integer", ""),
    "out of range": ("OFFGRID_COMPACTION_INTERVAL", "0", "is 0, too small", ""),
    "no boolean": ("OFFGRID_STORAGE_ENABLED", "maybe", "must be true or false", ""),
    "bad address": ("OFFGRID_MESH__LISTEN", "attic.lan", "has no port", "attic.lan:7440"),
    "bad in a list": ("OFFGRID_STORAGE_HOSTS", "http://a,b:1", "is not an HTTP URL", "http://b:1"),
    "bad URL": ("OFFGRID_BROKER_URL", "broker/x", "is not an HTTP URL", "http://broker/x"),
    "empty path": ("OFFGRID_SUMMARY_DIR", "", "is empty", ""),
    "no table": ("OFFGRID_HOST__LABELS", "attic", "must be a table", ""),
    "twice in a table": ("OFFGRID_HOST__LABELS", "a=1,a=2", "must be a table", ""),
    "secret of other bytes": ("OFFGRID_AUTH_KEY", "\udcff", "unprintable characters", ""),
    "address of other bytes": ("OFFGRID_MESH__LISTEN", "\udcff:1", "bad host name '\\udcff'", ""),
    "path of other bytes": ("OFFGRID_MEMORY_DB", "/\udcff", "unprintable characters", ""),
    "role of other bytes": ("OFFGRID_NODE__ROLES", "\udcff", "not valid Unicode", ""),
}


@pytest.mark.parametrize(("name", "value", "says", "guess"), BAD.values(), ids=BAD.keys())
def test_a_bad_variable_is_refused(tmp_path: Path, name: str, value: str, says: str, guess: str) -> None:
    (problem,) = refused(tmp_path, {name: value})
    assert (problem.file, problem.line, problem.column, problem.key) == ("environment", 1, 1, name)
    assert says in problem.message
    assert problem.suggestion == guess
    assert str(problem).startswith(f"environment:1:1: {name}: ")


def test_a_bad_line_of_dotenv_is_refused_where_it_is_wrong(tmp_path: Path) -> None:
    dotenv = (
        "# one\r\nOFFGRID_NOED__PORT=1\r\n\r\n  export OFFGRID_MODE= 'x'\r\n"
        "OFFGRID_AUTH_KEY\r\nOFFGRID_CHUNK_DIR='open\r\n"
        "OFFGRID_HOST__SLOTS=1\r\nOFFGRID_HOST__SLOTS=2\r\noffgrid_mode=auto\r\n"
    )
    found = refused(tmp_path, {}, dotenv)
    assert {p.file for p in found} == {str(tmp_path / ".env")}
    assert [(p.line, p.column, p.key, p.suggestion) for p in found] == [
        (2, 1, "OFFGRID_NOED__PORT", "OFFGRID_NODE__LOG_FORMAT"),
        (4, 24, "OFFGRID_MODE", ""),
        (5, 1, "OFFGRID_AUTH_KEY", ""),
        (6, 1, "", ""),
        (8, 1, "OFFGRID_HOST__SLOTS", ""),
        (9, 1, "offgrid_mode", "OFFGRID_MODE"),
    ]


def test_dotenv_beside_a_bare_file_name_is_called_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offgrid.toml").write_text(GOOD)
    (tmp_path / ".env").write_text("\nOFFGRID_NOED__NAME=1\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load(Path("offgrid.toml"), {})
    assert str(caught.value) == ".env:2:1: OFFGRID_NOED__NAME: is an unknown name. did you mean OFFGRID_NODE__NAME?"


def test_a_wrong_value_is_told_even_where_a_stronger_layer_hides_it(tmp_path: Path) -> None:
    found = refused(tmp_path, {"OFFGRID_MODE": "auto"}, "OFFGRID_MODE=y\n", GOOD + "[jobs]\nmode = 'x'\n")
    assert [(Path(p.file).name, p.line, p.column) for p in found] == [("offgrid.toml", 4, 8), (".env", 1, 14)]


def test_two_names_for_one_key_are_refused(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, {"OFFGRID_MODE": "auto", "OFFGRID_JOBS__MODE": "offgrid"})
    assert problem.message == "sets jobs.mode, which OFFGRID_JOBS__MODE sets too"


def test_a_section_that_is_no_table_is_told_once(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, {"OFFGRID_MODE": "auto"}, toml="jobs = 1\n" + GOOD)
    assert (problem.line, problem.column, problem.key) == (1, 8, "jobs")


def test_the_bounds_of_dotenv(tmp_path: Path) -> None:
    blanks = "A=" + " " * (LINE_CHARS_MAX - 4) + "b\n"
    assert loaded(tmp_path, {}, blanks).mesh.name == "home"
    (long_line,) = refused(tmp_path, {}, "A=1\n" + "A" * (LINE_CHARS_MAX + 1))
    assert (long_line.line, long_line.message) == (2, "the line is too long")
    (large,) = refused(tmp_path, {}, "A=1\n" * (DOTENV_BYTES_MAX // 4 + 1))
    assert large.message == "the file is too large"
    many = refused(tmp_path, {f"OFFGRID_X{n:03}": "" for n in range(GUESSES_MAX + 50)}, "A=1\n")
    assert "more problems" in many[-1].message


def test_a_variable_does_not_show_its_value() -> None:
    assert "hunter2" not in repr(Variable("OFFGRID_AUTH_KEY", "hunter2", "environment"))


def test_which_node_the_operator_s_command_talks_to_is_no_setting_of_a_node(tmp_path: Path) -> None:
    assert loaded(tmp_path, {"OFFGRID_CONTEXT": "lab"}, dotenv="OFFGRID_CONTEXT=lab\n") == loaded(tmp_path, {})
    assert "an unknown name" in str(refused(tmp_path, {"OFFGRID_CONTEXTS": "lab"})[0])


@pytest.mark.parametrize(
    ("name", "value"), [("OFFGRID_LINKS__OPEN", '["udp:*:7700"]'), ("OFFGRID_MESH__PEERS", '["barn:7440"]')]
)
def test_a_list_in_the_files_form_is_answered_with_a_variables(tmp_path: Path, name: str, value: str) -> None:
    (problem,) = refused(tmp_path, {name: value})
    assert problem.allowed.endswith("; in a variable: a,b without quotes, and no [ ] around them")


def test_the_file_hears_nothing_of_variables(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, {}, toml=GOOD + "[links]\nopen = ['udp']\n")
    assert "in a variable" not in problem.allowed
