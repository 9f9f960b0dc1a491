"""Compiles proto/ beside the .proto files whenever the project is built or installed in place.

Generated Python is never committed: this hook runs protoc with the python, grpc, mypy and mypy_grpc plug-ins, and adds
what came out to the wheel. It also runs by itself: `python tools/hatch_build.py`. Whoever imports the modules meanwhile
finds each of them whole: they are made elsewhere, take their places one by one, and only then does what is stale go.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def compile_protos(proto_root: Path) -> list[Path]:
    """Compiles every .proto below `proto_root` in place and returns the files that belong there.

    A file whose content stays is not touched. Raises RuntimeError when protoc refuses a file (its own message has been
    printed by then); nothing has changed then.
    """
    with tempfile.TemporaryDirectory(prefix="offgrid-proto-") as folder:
        made_root = Path(folder)
        _run_protoc(proto_root, made_root)
        made = {path.relative_to(made_root): path.read_bytes() for path in _generated(made_root)}
    for name, content in made.items():
        _replace(proto_root / name, content)
    for path in _generated(proto_root):
        if path.relative_to(proto_root) not in made:
            path.unlink(missing_ok=True)
    return sorted(proto_root / name for name in made)


def _run_protoc(proto_root: Path, made_root: Path) -> None:
    import grpc_tools
    from google.api import annotations_pb2  # beside it lie the .proto files that ours import
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(proto_root)) for path in proto_root.rglob("*.proto"))
    includes = (proto_root, Path(grpc_tools.__file__).parent / "_proto", Path(annotations_pb2.__file__).parents[2])
    scripts = Path(sys.executable).parent
    suffix = ".exe" if sys.platform == "win32" else ""
    plugins = [
        f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}{suffix}'}"
        for name in ("mypy", "mypy_grpc")
        if (scripts / f"protoc-gen-{name}{suffix}").exists()
    ]
    outputs = [f"--{kind}_out={made_root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    code = protoc.main(["protoc", *(f"-I{folder}" for folder in includes), *plugins, *outputs, *sources])
    if code != 0:
        raise RuntimeError(f"protoc failed with exit code {code} on {proto_root}")


def _generated(root: Path) -> list[Path]:
    return [path for pattern in GENERATED for path in root.rglob(pattern)]


def _replace(path: Path, content: bytes) -> None:
    """The new content from one moment to the next, unless it is there already."""
    if path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")  # os.replace stays within one file system
    try:
        beside.write_bytes(content)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's entry: runs before wheel, sdist and editable builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        written = compile_protos(Path(self.root) / "proto")
        build_data["artifacts"].extend(f"/{path.relative_to(self.root).as_posix()}" for path in written)


if __name__ == "__main__":
    for generated in compile_protos(ROOT / "proto"):
        print(generated.relative_to(ROOT))  # noqa: T201
