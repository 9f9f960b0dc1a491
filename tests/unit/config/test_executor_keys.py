"""host.python, host.llm and host.dask: off by default, and wrong values are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import ConfigError, load

GOOD = '[mesh]\nname = "m"\n'


def write(folder: Path, text: str) -> Path:
    file = folder / "offgrid.toml"
    file.write_text(GOOD + text)
    return file


def test_nothing_that_brings_code_is_on_by_itself(tmp_path: Path) -> None:
    host = load(write(tmp_path, ""), {}).host
    assert (host.python.enabled, host.llm.endpoint, host.llm.models, host.dask.scheduler) == (False, "", (), "")


def test_each_can_be_set(tmp_path: Path) -> None:
    text = """
[host.python]
enabled = true
memory_mb = 2048
[host.llm]
endpoint = "http://127.0.0.1:11434/v1"
models = ["llama3.2:3b", "meta-llama/Llama-3.1-8B"]
slots = 4
[host.dask]
scheduler = "tls://dask.lan:8786"
"""
    host = load(write(tmp_path, text), {"OFFGRID_HOST__LLM__API_KEY": "s3cret"}).host
    assert (host.python.enabled, host.python.memory_mb) == (True, 2048)
    assert host.llm.models == ("llama3.2:3b", "meta-llama/Llama-3.1-8B")
    assert host.llm.api_key.get_secret_value() == "s3cret"
    assert host.dask.scheduler == "tls://dask.lan:8786"


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('[host.llm]\nendpoint = "127.0.0.1:11434"', "host.llm.endpoint", "http"),
        ('[host.llm]\nendpoint = "http://user:pw@x/v1"', "host.llm.endpoint", "password"),
        ('[host.llm]\nmodels = ["a b"]', "host.llm.models", "no model's name"),
        ('[host.llm]\nmodels = ["a", "a"]', "host.llm.models", "twice"),
        ("[host.llm]\nslots = 0", "host.llm.slots", "too small"),
        ('[host.dask]\nscheduler = "127.0.0.1:8786"', "host.dask.scheduler", '"tcp://127.0.0.1:8786"'),
        ('[host.dask]\nscheduler = "http://127.0.0.1:8786"', "host.dask.scheduler", '"tcp://127.0.0.1:8786"'),
        ('[host.dask]\nscheduler = "tcp://127.0.0.1"', "host.dask.scheduler", "port"),
        ("[host.python]\nenabled = 1", "host.python.enabled", "true or false"),
        ("[host.python]\nmemory_mb = 1", "host.python.memory_mb", "128"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, text: str, key: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    message = str(caught.value)
    assert key in message
    assert said in message
