"""Compiles proto/ beside the .proto files whenever the project is built or installed in place.

Generated Python is never committed: this hook deletes stale output, runs protoc with the python, grpc, mypy and
mypy_grpc plug-ins, and adds what came out to the wheel. It also runs by itself: `python tools/hatch_build.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def compile_protos(proto_root: Path) -> list[Path]:
    """Compiles every .proto below `proto_root` in place and returns the files written.

    Raises RuntimeError when protoc refuses a file (its own message has been printed by then).
    """
    import grpc_tools
    from grpc_tools import protoc

    for pattern in GENERATED:
        for stale in proto_root.rglob(pattern):
            stale.unlink()
    sources = sorted(str(path.relative_to(proto_root)) for path in proto_root.rglob("*.proto"))
    includes = Path(grpc_tools.__file__).parent / "_proto"
    scripts = Path(sys.executable).parent
    suffix = ".exe" if sys.platform == "win32" else ""
    plugins = [
        f"--plugin=protoc-gen-{name}={scripts / f'protoc-gen-{name}{suffix}'}"
        for name in ("mypy", "mypy_grpc")
        if (scripts / f"protoc-gen-{name}{suffix}").exists()
    ]
    outputs = [f"--{kind}_out={proto_root}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    code = protoc.main(["protoc", f"-I{proto_root}", f"-I{includes}", *plugins, *outputs, *sources])
    if code != 0:
        raise RuntimeError(f"protoc failed with exit code {code} on {proto_root}")
    return sorted(path for pattern in GENERATED for path in proto_root.rglob(pattern))


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
