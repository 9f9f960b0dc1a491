"""The OpenAI-speaking server as a process of its own, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit


class OpenAiServer:
    """A context: it runs inside it."""

    def __init__(self, models: Sequence[str] = (), *, port: int = 0, api_key: str = "") -> None:
        self._argv = ["--port", str(port), "--api-key", api_key, *models]
        self.url = ""

    def __enter__(self) -> OpenAiServer:
        argv = [sys.executable, "-m", "offgrid_tools.fixtures.openai_server", *self._argv]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Twice is harmless."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def list_models(self, *models: str) -> None:
        self._ask("/fixture/models", {"models": models})

    def seen(self) -> Any:
        return self._ask("/fixture/seen")

    def _ask(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, data, timeout=10) as answer:  # noqa: S310 - our own
            return json.load(answer)
