"""How the doctor calls another's process: by its program, since what it was given may be a password."""

from __future__ import annotations

import pytest

from offgrid_node.doctor.processes import program_of

CALLED = {
    "mysqld": ("/usr/sbin/mysqld", "--password", "hunter2"),
    "nginx": ("nginx: master process /usr/sbin/nginx -g secret",),
    "serve.py": ("/usr/bin/python3", "/srv/serve.py", "--token", "x"),
    "python3.11 -m http.server": ("python3.11", "-m", "http.server", "8001"),
    "python3": ("python3", "-c", "password = 1"),
    "python3.12": ("python3.12", "-P", "-m", "x"),
}


@pytest.mark.parametrize("name", CALLED)
def test_a_process_is_called_by_its_program_alone(name: str) -> None:
    assert program_of(CALLED[name]) == name
