"""state.sql_mirror: looked at with the rest of the file, and its password is in no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import ConfigError, load
from offgrid_node.config.sql_target import SqlTarget, parse_target

GOOD = '[mesh]\nname = "m"\n[state]\n'
WRONG = {
    "postgres://u:hush@127.0.0.1/db": "does not begin with mysql:// or mariadb://",
    "127.0.0.1/db": "does not begin with mysql:// or mariadb://",
    "mysql://127.0.0.1/db": "names no user",
    "mysql://:hush@127.0.0.1/db": "names no user",
    "mysql://u:hush@127.0.0.1": "names no database behind its host",
    "mysql://u:hush@127.0.0.1/": "names no database behind its host",
    "mysql://u:hush@127.0.0.1/a/b": "names a database with a '/' in it",
    "mysql://u:hush@10.0.0.7/db": "has a host that is not this machine: 127.0.0.1, localhost, ::1 are",
    "mysql://u:hush@/db": "has a host that is not this machine: 127.0.0.1, localhost, ::1 are",
    "mysql://u:hush@127.0.0.1:99999/db": "is no URL, or its port is no number from 1 to 65535",
    "mysql://u:hush@127.0.0.1:0/db": "has port 0",
    "mysql://u:hush@[::1/db": "is no URL, or its port is no number from 1 to 65535",
    "mysql://u:12#hush@127.0.0.1/db": "has a '#' in it",
    "mysql://u:hush@127.0.0.1/db?ssl=hush": "has an option other than unix_socket",
    "mysql://u:hush@127.0.0.1/db?unix_socket=run/s": "has a unix_socket that is no absolute path",
    "mysql://u:hush@127.0.0.1/db?unix_socket=": "has a unix_socket that is no absolute path",
    "mysql://u:hush\\u0007@127.0.0.1/db": "is too long or has unprintable characters",
}


@pytest.mark.parametrize(("url", "says"), WRONG.items())
def test_one_that_is_none_is_a_problem_of_the_file(tmp_path: Path, url: str, says: str) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(f'{GOOD}sql_mirror = "{url}"\n')
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (4, 14, "state.sql_mirror")
    assert problem.message == says
    assert "mysql://USER:PASSWORD@127.0.0.1:3306/DATABASE" in problem.allowed
    assert "hush" not in str(problem)


def test_of_the_environment_likewise(tmp_path: Path) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load(file, {"OFFGRID_STATE__SQL_MIRROR": "mysql://u:hush@db.example/db"})
    (problem,) = caught.value.problems
    assert (problem.key, "is not this machine" in problem.message) == ("OFFGRID_STATE__SQL_MIRROR", True)
    assert "hush" not in str(problem)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("mysql://u:h%40s%23h@localhost:3307/journal", SqlTarget("u", "h@s#h", "journal", "localhost", 3307)),
        ("mariadb://u@[::1]/d%2De", SqlTarget("u", "", "d-e", "::1")),
        ("mysql://u@localhost/d?unix_socket=/run/s", SqlTarget("u", "", "d", "localhost", socket="/run/s")),
    ],
)
def test_a_right_one_is_read(tmp_path: Path, url: str, target: SqlTarget) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text(f'{GOOD}sql_mirror = "{url}"\n')
    assert parse_target(load(file, {}).state.sql_mirror.get_secret_value()) == target


def test_it_is_shown_without_its_password() -> None:
    assert str(parse_target("mysql://u:h%40sh@localhost:3307/journal")) == "journal at localhost:3307"
    assert str(parse_target("mysql://u:h@localhost/d?unix_socket=/run/s")) == "d at /run/s"
