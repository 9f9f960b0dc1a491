"""The project's own wheel: built where this runs in a checkout, else made again from what was installed from one."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from offgrid_node.protocol.errors import Unavailable

CHECKOUT = Path(__file__).resolve().parents[3]
OF_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "RECORD")
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's own: the same files make the same wheel


def own_wheel(folder: Path) -> Path:
    """Puts it into `folder` and returns its path. Raises Unavailable, with what to do, where that cannot be."""
    if (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "tools" / "hatch_build.py").is_file():
        return _built(folder)
    try:
        return repacked(distribution("offgrid-node"), folder)
    except PackageNotFoundError as error:
        raise Unavailable(
            "this node was not installed as a package, so its wheel cannot be made; run `bundle` in an environment "
            "made by pip, pipx or uv",
            reason="NoWheel",
        ) from error


def _built(folder: Path) -> Path:
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder.resolve())]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, errors="replace", check=False)
    made = sorted(folder.glob("offgrid_node-*.whl"))
    if done.returncode or not made:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Unavailable(
            f"the wheel could not be built in {CHECKOUT}: {' '.join(said)}; what builds it stands in locks/runtime.txt",
            reason="NoWheel",
        )
    return made[-1]


def repacked(installed: Distribution, folder: Path) -> Path:
    """The wheel that `installed` came from, but for order and times. Raises Unavailable where files have changed."""
    tag = next(
        (line.split()[1] for line in (installed.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")), ""
    )
    files = [path for path in installed.files or () if _belongs(path)]
    info = next((path.parent for path in files if path.name == "METADATA"), None)
    if not tag or info is None:
        raise Unavailable("this installation does not say what it consists of: it has no RECORD", reason="NoWheel")
    made = folder / f"offgrid_node-{installed.version}-{tag}.whl"
    record = []
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in sorted(files):
            data = Path(str(path.locate())).read_bytes()
            if path.hash is None or _digest(data) != path.hash.value:
                raise Unavailable(
                    f"{path.locate()} is not as it was installed; install offgrid-node anew", reason="Changed"
                )
            wheel.writestr(zipfile.ZipInfo(path.as_posix(), EPOCH), data, zipfile.ZIP_DEFLATED)
            record.append(f"{path.as_posix()},sha256={_digest(data)},{len(data)}")
        name = f"{info.as_posix()}/RECORD"
        listed = "\n".join((*record, f"{name},,", ""))
        wheel.writestr(zipfile.ZipInfo(name, EPOCH), listed, zipfile.ZIP_DEFLATED)
    return made


def _belongs(path: PackagePath) -> bool:
    """Whether it came in the wheel: commands and compiled files are the installer's."""
    made = path.suffix == ".pyc" or (path.parent.name.endswith(".dist-info") and path.name in OF_INSTALLERS)
    return ".." not in path.parts and not made


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
