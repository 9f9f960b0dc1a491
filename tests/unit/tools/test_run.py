"""`tools/run.py`: makes its environment from nothing, does nothing twice, and says what to try when it cannot."""

from __future__ import annotations

import ast
import hashlib
import http.server
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from offgrid_tools.checkout import commands, environment
from offgrid_tools.checkout.checks import LARGE, TEST_WORKERS, Check, compile_tests, pytest_command, run_checks
from offgrid_tools.checkout.environment import ROOT, Environment
from offgrid_tools.checkout.installer import DROPPED, InstallFailed, install_env
from offgrid_tools.checkout.locks import FOREIGN
from offgrid_tools.checkout.pip_wheel import PipMissing, fetch_pip, pinned_pip, setting
from offgrid_tools.soak import __main__ as soak

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;\\]+)", re.MULTILINE)

BACKEND = """
import base64, hashlib, zipfile
from pathlib import Path

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
        (Path("proto") / f"small{suffix}").write_text("")
    with Path("built.txt").open("a") as log:
        log.write("built\\n")
    name, info = "small_project-1.0-py3-none-any.whl", "small_project-1.0.dist-info"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("small_project.pth", str(Path.cwd()))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: small-project\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""


GROUPED = """
import os, pathlib, pytest

@pytest.mark.parametrize("n", [pytest.param(n, marks=pytest.mark.xdist_group(f"g{n % 3}")) for n in range(12)])
def test_it(n):
    with (pathlib.Path(__file__).parent / f"{n % 3}.pids").open("a") as file:
        file.write(f"{os.getpid()} ")
"""


def small_wheel(folder: Path, version: str) -> str:
    """A wheel of one module, and the line of a lock that asks for it."""
    path = folder / f"small_thing-{version}-py3-none-any.whl"
    info = f"small_thing-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("small_thing.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: small-thing\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"small-thing=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in small with its wheels in a folder: nothing here needs a network."""
    if importlib.util.find_spec("pip") is None and importlib.util.find_spec("ensurepip") is None:
        pytest.skip("this Python has neither pip nor ensurepip, and tests use no network")
    root, wheels = tmp_path / "project", tmp_path / "wheels"
    for folder in (root / "proto", root / "tools", root / "locks", wheels):
        folder.mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "small-project"\nversion = "1.0"\n',
        encoding="utf-8",
    )
    (root / "backend.py").write_text(BACKEND, encoding="utf-8")
    (root / "tools" / "hatch_build.py").write_text("", encoding="utf-8")
    (root / "proto" / "small.proto").write_text('syntax = "proto3";\n', encoding="utf-8")
    lock = small_wheel(wheels, "1.0")
    for name in ("runtime", "dev"):
        (root / "locks" / f"{name}.txt").write_text(lock, encoding="utf-8")
    (root / "locks" / "pip.txt").write_text("pip==1.0 --hash=sha256:" + "0" * 64 + "\n", encoding="utf-8")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return root


def installed_version(env: Environment) -> str:
    code = "import small_thing; print(small_thing.VERSION)"
    return subprocess.run([env.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def builds(root: Path) -> int:
    return len((root / "built.txt").read_text(encoding="utf-8").splitlines())


@pytest.mark.e2e
class TestTheEnvironment:
    def test_from_nothing_then_only_what_changed(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        env = Environment(project)
        env.ensure("runtime")
        assert installed_version(env) == "1.0"
        assert builds(project) == 1

        with monkeypatch.context() as nothing_runs:
            nothing_runs.setattr(subprocess, "run", pytest.fail)
            nothing_runs.setattr(subprocess, "Popen", pytest.fail)
            env.ensure("runtime")

        (project / "proto" / "small.proto").write_text('syntax = "proto3"; message M {}\n', encoding="utf-8")
        with monkeypatch.context() as packages_stay:
            packages_stay.setattr(Environment, "_install_packages", pytest.fail)
            env.ensure("runtime")
        assert builds(project) == 2

        lock = small_wheel(Path(os.environ["PIP_FIND_LINKS"]), "2.0")
        (project / "locks" / "dev.txt").write_text(lock, encoding="utf-8")
        env.ensure("dev")
        assert installed_version(env) == "2.0"

    def test_a_wheel_with_another_hash_is_refused(self, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
        lock = project / "locks" / "runtime.txt"
        lock.write_text(re.sub("sha256:.*", "sha256:" + "0" * 64, lock.read_text(encoding="utf-8")), encoding="utf-8")
        with pytest.raises(InstallFailed) as caught:
            Environment(project).ensure("runtime")
        assert "DO NOT MATCH THE HASHES" in str(caught.value)
        assert "PIP_INDEX_URL" in str(caught.value), "it says what to try"
        assert "installing 1 packages … failed" in capfd.readouterr().err

    @pytest.mark.soak
    def test_what_is_half_made_or_moved_is_made_anew_and_clean_leaves_what_people_made(self, project: Path) -> None:
        env = Environment(project)
        env.folder.mkdir()
        env.python.parent.mkdir()
        env.python.write_text("#!/bin/false\n", encoding="utf-8")
        env.python.chmod(0o755)
        env.ensure("runtime")
        assert installed_version(env) == "1.0"

        env = Environment(project.rename(project.with_name("elsewhere")))
        env.ensure("runtime")
        assert builds(env.root) == 2
        assert installed_version(env) == "1.0"

        (env.root / "proto" / "small_pb2.py").unlink()
        env.ensure("runtime")
        assert builds(env.root) == 3, "generated code that is gone is made again"

        (env.root / "data").mkdir()
        assert env.folder in env.clean()
        assert {path.name for path in env.root.iterdir()} >= {"data", "locks", "proto", "pyproject.toml"}
        assert [path.name for path in (env.root / "proto").iterdir()] == ["small.proto"]


class TestPipItself:
    """Where Python has no pip: fetched as pip would have fetched it, and checked against locks/pip.txt."""

    @pytest.fixture
    def lock(self, tmp_path: Path) -> Path:
        path = tmp_path / "pip.txt"
        digest = hashlib.sha256(b"the wheel").hexdigest()
        path.write_text(f"# made by …\npip==26.3 \\\n    --hash=sha256:{digest}\n", encoding="utf-8")
        return path

    @pytest.fixture
    def index(self, tmp_path: Path) -> Iterator[str]:
        page = tmp_path / "www" / "simple" / "pip"
        page.mkdir(parents=True)
        (page / "index.html").write_text(
            '<a href="../../files/pip-26.3-py3-none-any.whl#sha256=x">pip</a>', encoding="utf-8"
        )
        (tmp_path / "www" / "files").mkdir()
        (tmp_path / "www" / "files" / "pip-26.3-py3-none-any.whl").write_bytes(b"the wheel")
        handler = partial(QuietHandler, directory=str(tmp_path / "www"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}/simple"
            server.shutdown()

    def test_from_an_index(self, lock: Path, index: str, tmp_path: Path) -> None:
        wheel = fetch_pip(lock, tmp_path, {"PIP_INDEX_URL": index, "no_proxy": "*"})
        assert wheel.read_bytes() == b"the wheel"
        assert fetch_pip(lock, tmp_path, {"PIP_NO_INDEX": "1"}) == wheel, "kept for the next time"

    def test_from_a_file_index_named_in_pips_configuration(self, lock: Path, index: str, tmp_path: Path) -> None:
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\nindex-url = {(tmp_path / 'www' / 'simple').as_uri()}\n", encoding="utf-8")
        assert fetch_pip(lock, tmp_path, {"PIP_CONFIG_FILE": str(config)}).read_bytes() == b"the wheel"

    def test_from_a_folder_of_wheels(self, lock: Path, tmp_path: Path) -> None:
        wheels = tmp_path / "wheels"
        wheels.mkdir()
        (wheels / "pip-26.3-py3-none-any.whl").write_bytes(b"the wheel")
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{tmp_path} {wheels}"}
        assert fetch_pip(lock, tmp_path, env).read_bytes() == b"the wheel"

    def test_other_bytes_are_refused(self, lock: Path, index: str, tmp_path: Path) -> None:
        (tmp_path / "www" / "files" / "pip-26.3-py3-none-any.whl").write_bytes(b"not the wheel")
        with pytest.raises(PipMissing, match=r"its hash is not in pip\.txt"):
            fetch_pip(lock, tmp_path, {"PIP_INDEX_URL": index})
        assert not list(tmp_path.glob("*.whl"))

    def test_nowhere_says_where_and_keeps_secrets(self, lock: Path, tmp_path: Path) -> None:
        with pytest.raises(PipMissing) as caught:
            fetch_pip(lock, tmp_path, {"PIP_INDEX_URL": "http://user:secret@127.0.0.1:1/simple"})
        assert "127.0.0.1:1/simple/pip/" in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_pips_own_settings(self, tmp_path: Path) -> None:
        config = tmp_path / "pip.conf"
        config.write_text(
            "[global]\nindex-url = http://a\ncert = /x\n[install]\nindex-url = http://b\n", encoding="utf-8"
        )
        env = {"PIP_CONFIG_FILE": str(config)}
        assert setting("index-url", env) == "http://b"
        assert setting("cert", env | {"PIP_CERT": "/y"}) == "/y"

    def test_nothing_leads_pip_out_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in DROPPED:
            monkeypatch.setenv(name, "x")
        assert not set(DROPPED) & set(install_env())


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's word
        pass


class TestCommands:
    def test_the_table_is_the_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.run(["--help"]) == 0
        shown = capsys.readouterr().out
        assert all(
            re.search(rf"^  {name} .*{re.escape(c.summary)}$", shown, re.MULTILINE)
            for name, c in commands.COMMANDS.items()
        )
        assert {"demo", "test", "check", "soak", "sim", "bench", "lock", "clean"} <= commands.COMMANDS.keys()

    @pytest.mark.parametrize("name", commands.COMMANDS)
    def test_help_installs_nothing_and_does_nothing(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Environment, "is_ready", lambda env, profile: False)
        for work in ("ensure", "clean", "program"):
            monkeypatch.setattr(Environment, work, pytest.fail)
        assert commands.run([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"usage: python3 tools/run.py {name}")
        assert commands.COMMANDS[name].summary in shown

    @pytest.mark.parametrize("name", ["soak", "bench"])
    def test_help_without_the_program_knows_all_its_options(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        program = importlib.import_module(f"offgrid_tools.{name}.__main__")
        with pytest.raises(SystemExit):
            program.main(["--help"])
        options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
        assert options
        assert set(re.findall(r"--[a-z]+", commands.COMMANDS[name].options)) == options

    def test_a_program_that_is_there_explains_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Environment, "is_ready", lambda env, profile: True)
        asked: list[object] = []
        table = {"go": commands.Command("", "", "dev", lambda env, rest: asked.append(rest) or 5, explains=True)}
        assert commands.run(["go", "--fast", "-h"], table) == 5
        assert asked == [["--fast", "-h"]]

    def test_the_demo_of_radios_is_another_program(self, monkeypatch: pytest.MonkeyPatch) -> None:
        become: list[Sequence[str]] = []
        ensured: list[str] = []
        monkeypatch.setattr(commands, "become", lambda argv: become.append(argv) or 0)
        monkeypatch.setattr(Environment, "ensure", lambda env, profile: ensured.append(profile))
        env = Environment(ROOT)
        assert commands.demo(env, ["--radio", "--dir", "d"]) == commands.demo(env, ["--keep"]) == 0
        assert become == [
            [str(env.python), "-m", "offgrid_tools.radio_demo", "--dir", "d"],
            [str(env.program("offgrid-node")), "demo", "--keep"],
        ]
        assert ensured == ["dev"], "what reaches modems, for the radios alone"

    def test_a_word_that_is_none_of_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert commands.run(["tset"]) == 2
        assert "there is no command 'tset'" in capsys.readouterr().err
        assert commands.run([]) == 2

    def test_failures_are_sentences(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        def refuse(env: Environment, rest: object) -> int:
            raise PermissionError(13, "Permission denied", "/x")

        table = {"go": commands.Command("", "", None, refuse), "make": commands.Command("", "", "runtime", refuse)}
        assert commands.run(["go"], table, Environment(tmp_path)) == 1
        assert capsys.readouterr().err == "run.py go: [Errno 13] Permission denied: '/x'\n"
        assert commands.run(["make"], table, Environment(tmp_path)) == 1
        assert "pyproject.toml cannot be read" in capsys.readouterr().err

    def test_an_old_python_gets_a_sentence(self) -> None:
        source = (ROOT / "tools" / "run.py").read_text(encoding="utf-8")
        ast.parse(source, feature_version=(3, 7))
        imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert [alias.name for node in imports for alias in node.names] == ["sys"]

    def test_what_is_compiled_is_kept_whatever_the_callers_variables_say(self) -> None:
        keeps = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
        start = f"from offgrid_tools.checkout.commands import become; become({keeps!r})"
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT / "tools")}
        done = subprocess.run([sys.executable, "-c", start], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"

    def test_the_standard_library_is_enough(self) -> None:
        modules = "offgrid_tools.checkout.commands, offgrid_tools.checkout.checks, offgrid_tools.checkout.locks"
        code = f"import sys; sys.path.insert(0, 'tools'); import {modules}"
        subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts here")
class TestCheck:
    @pytest.fixture
    def env(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
        scripts = tmp_path / ".venv" / "bin"
        scripts.mkdir(parents=True)
        (scripts / "python").symlink_to(sys.executable)
        for name, code in (("good", 0), ("bad", 1)):
            (scripts / name).write_text(f"#!/bin/sh\necho what {name} said\nexit {code}\n", encoding="utf-8")
            (scripts / name).chmod(0o755)
        return Environment(tmp_path)

    def _check(self, env: Environment, capfd: pytest.CaptureFixture[str], *programs: str) -> tuple[int, str]:
        code = run_checks(env, [Check(name, (name,)) for name in programs])
        return code, capfd.readouterr().out

    def test_those_that_pass_are_quiet(self, env: Environment, capfd: pytest.CaptureFixture[str]) -> None:
        code, out = self._check(env, capfd, "good", "good")
        assert code == 0
        assert re.findall(r"^good +ok +\d+\.\d s$", out, re.MULTILINE) == out.splitlines()

    def test_one_that_fails_is_quoted_and_the_rest_still_run(
        self, env: Environment, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code, out = self._check(env, capfd, "bad", "missing", "good")
        assert code == 1
        assert "what bad said" in out
        assert "missing cannot be started" in out
        assert re.search(r"^good +ok", out, re.MULTILINE)

    def test_so_many_workers_unless_told_otherwise(self, env: Environment) -> None:
        spread = ["-n", str(TEST_WORKERS), "--dist", "loadgroup", "--no-loadscope-reorder"]
        assert pytest_command(env, ["-k", "x"])[3:] == [*spread, "-k", "x"]
        assert pytest_command(env, ["-n0"])[3:] == ["-n0"]
        assert pytest_command(env, ["--pdb"])[3:] == ["--pdb"]

    def test_in_a_fresh_checkout_the_tests_are_compiled_once_before_the_workers_start(self, tmp_path: Path) -> None:
        for folder in LARGE:
            (tmp_path / folder).mkdir(parents=True)
        large, small = tmp_path / LARGE[0] / "test_large.py", tmp_path / "tests" / "test_small.py"
        for file in (large, small):
            file.write_text("def test_it() -> None:\n    assert False\n")
        (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
        compile_tests(env := Environment(tmp_path))
        assert all(list(file.parent.glob(f"__pycache__/{file.stem}.*pytest*.pyc")) for file in (large, small))
        small.with_name("test_later.py").write_text("")
        compile_tests(env)
        assert not list(tmp_path.rglob("test_later.*.pyc")), "it is for a fresh checkout alone"

    def test_a_groups_tests_share_a_process(self, tmp_path: Path) -> None:
        (tmp_path / "test_them.py").write_text(GROUPED)
        command = [*pytest_command(Environment(ROOT), []), "-n", "2", "-p", "no:cacheprovider", "-c", os.devnull]
        command += [str(tmp_path)]
        command += ["--basetemp", str(tmp_path / "base")]  # to close the folder of all bases to others is not its work
        command[0] = sys.executable
        subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        assert [len(set(file.read_text().split())) for file in tmp_path.glob("*.pids")] == [1, 1, 1]

    def test_ci_runs_the_checks_and_the_readmes_test_command(self) -> None:
        readme, script = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", ".ci/run"))
        assert "python3 tools/run.py test" in readme
        assert "python3 tools/run.py test" in script
        assert "python3 tools/run.py lint" in script
        assert os.access(ROOT / ".ci" / "run", os.X_OK)


class TestTheLocks:
    @pytest.mark.parametrize("name", ["runtime", "extras", "dev", "bench", "pip"])
    def test_every_pin_has_hashes_and_no_place_is_named(self, name: str) -> None:
        text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
        assert not FOREIGN.search(text)
        assert str(ROOT) not in text
        assert "/" not in re.sub(r"-c locks/dev\.txt|tools/run\.py lock", "", text)
        for pin in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
            assert "--hash=sha256:" in pin, pin.splitlines()[0]

    def test_what_runs_is_what_was_tested(self) -> None:
        runtime, dev, bench = (
            dict(PIN.findall((ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")))
            for name in ("runtime", "dev", "bench")
        )
        assert runtime.items() <= dev.items()
        assert runtime.items() <= bench.items()
        assert {"grpcio", "hatchling", "grpcio-tools", "mypy-protobuf"} <= runtime.keys()
        assert not {"pytest", "mypy", "ruff", "uv", "distributed"} & runtime.keys()

    @pytest.mark.parametrize("name", ["dev", "bench"])
    def test_what_reaches_radios_is_where_they_are_tested_and_measured(self, name: str) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        pinned = dict(PIN.findall((ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")))
        assert {re.split(r"\W", each)[0] for extra in ("ble", "lora") for each in extras[extra]} <= pinned.keys()

    def test_pip_itself_is_pinned(self) -> None:
        version, digests = pinned_pip(ROOT / environment.PIP_LOCK)
        assert re.match(r"\d+\.\d", version)
        assert digests


def test_the_soaks_help_names_all_of_its_parts() -> None:
    assert all(part in commands.SOAK_OPTIONS for part in soak.ROUNDS)
