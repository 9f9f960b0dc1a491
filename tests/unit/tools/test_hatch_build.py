"""`tools/hatch_build.py`: generated modules change under whoever uses them, and are never gone meanwhile."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from grpc_tools import protoc

from offgrid_tools.checkout.environment import GENERATED_PER_PROTO, ROOT

Compile = Callable[[Path], list[Path]]
SMALL = 'syntax = "proto3"; message Small { int32 one = 1; }\n'
LARGER = 'syntax = "proto3"; message Small { int32 one = 1; int32 two = 2; }\n'


@pytest.fixture
def compile_protos() -> Compile:
    """What the file that pip's build loads by its path defines."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "tools" / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Compile = module.compile_protos
    return found


@pytest.fixture
def protos(tmp_path: Path, compile_protos: Compile) -> Path:
    """Compiled once, with a module beside it whose .proto is gone."""
    root = tmp_path / "proto"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "small.proto").write_text(SMALL, encoding="utf-8")
    made = compile_protos(root)
    assert sorted(path.name for path in made) == sorted(f"small{suffix}" for suffix in GENERATED_PER_PROTO)
    assert all(path.parent == root / "deep" for path in made)
    (root / "deep" / "gone_pb2.py").write_text("", encoding="utf-8")
    return root


def there(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file by its name: which one it is, and what it says."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in (root / "deep").iterdir()}


def test_what_has_changed_is_replaced_and_what_is_stale_goes(protos: Path, compile_protos: Compile) -> None:
    before = there(protos)
    (protos / "deep" / "small.proto").write_text(LARGER, encoding="utf-8")
    compile_protos(protos)
    after = there(protos)
    assert before.keys() - after.keys() == {"gone_pb2.py"}
    assert after.keys() <= before.keys(), "nothing half made is left"
    assert b"two" in after["small_pb2.pyi"][1]
    assert after["small_pb2_grpc.py"] == before["small_pb2_grpc.py"], "its content stays, so it is not touched"


def test_every_module_is_there_all_the_time(
    protos: Path, compile_protos: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, seen = there(protos), []

    def watched(argv: Sequence[str], run: Callable[[Sequence[str]], int] = protoc.main) -> int:
        code = run(argv)
        seen.append(there(protos))
        return code

    def replaced(old: Path, new: Path, replace: Callable[[Path, Path], None] = os.replace) -> None:
        seen.append(there(protos))
        assert Path(old).parent == Path(new).parent, "one file system: it is there from one moment to the next"
        replace(old, new)
        seen.append(there(protos))

    monkeypatch.setattr(protoc, "main", watched)
    monkeypatch.setattr(os, "replace", replaced)
    (protos / "deep" / "small.proto").write_text(LARGER, encoding="utf-8")
    compile_protos(protos)
    assert len(seen) >= 3
    assert all(before.keys() <= moment.keys() for moment in seen)


def test_a_proto_that_is_refused_changes_nothing(protos: Path, compile_protos: Compile) -> None:
    (protos / "deep" / "small.proto").write_text("no proto at all", encoding="utf-8")
    before = there(protos)
    with pytest.raises(RuntimeError, match="protoc failed"):
        compile_protos(protos)
    assert there(protos) == before
