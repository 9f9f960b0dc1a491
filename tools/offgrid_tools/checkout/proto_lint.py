"""`buf lint` without its registry: protoc makes one image of our files and of googleapis' that they import, buf reads
that. Run as `python -m offgrid_tools.checkout.proto_lint` in proto/."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

BUF = Path(sys.executable).with_name("buf.exe" if sys.platform == "win32" else "buf")


def lint(proto_root: Path) -> int:
    """The exit code of protoc, or of buf if protoc was content; both print what they find."""
    import grpc_tools
    from google.api import annotations_pb2
    from grpc_tools import protoc

    includes = (proto_root, Path(grpc_tools.__file__).parent / "_proto", Path(annotations_pb2.__file__).parents[2])
    sources = sorted(str(path.relative_to(proto_root)) for path in proto_root.rglob("*.proto"))
    with tempfile.TemporaryDirectory(prefix="offgrid-lint-") as folder:
        image = Path(folder) / "image.binpb"
        wanted = ["--include_imports", "--include_source_info", f"--descriptor_set_out={image}"]
        code: int = protoc.main(["protoc", *(f"-I{include}" for include in includes), *wanted, *sources])
        if code:
            return code
        config = str(proto_root / "buf.yaml")
        return subprocess.run([str(BUF), "lint", str(image), "--config", config], check=False).returncode


if __name__ == "__main__":
    sys.exit(lint(Path.cwd()))
