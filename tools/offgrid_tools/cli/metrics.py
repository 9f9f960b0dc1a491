"""`offgrid metrics`: the node's own page, fetched from where its data folder says that it is, or from its gateway."""

from __future__ import annotations

import click

from offgrid_tools.cli.settings import common, settings

ADDRESS_NAME = "metrics.address"
ADDRESS_BYTES_MAX = 512
PAGE_BYTES_MAX = 4 * 1024 * 1024
TIMEOUT_S = 10.0


@click.command()
@common
def metrics() -> None:
    """Print what the node counts of itself, as Prometheus reads it."""
    from pathlib import Path

    from offgrid.client.address import is_url

    address, token = settings().where()
    if address is None or not is_url(address):
        address, token = "http://" + _reachable(_address(Path(_data_dir()) / ADDRESS_NAME)), ""
    text = _fetch(address, token)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"address": address.partition("://")[2], "text": text})
        return
    click.echo(text, nl=False)


def _data_dir() -> str:
    return settings().connect().mesh.status().data_dir


def _address(path: object) -> str:
    """Raises OffgridError (NoMetrics) when the node serves none."""
    from offgrid.client.errors import OffgridError

    try:
        with open(str(path), encoding="ascii") as file:
            return file.read(ADDRESS_BYTES_MAX).strip()
    except FileNotFoundError:
        text = (
            'this node shows no metrics without a token: set listen = "127.0.0.1:9464" below [metrics] in offgrid.toml'
        )
        raise OffgridError("FAILED_PRECONDITION", "NoMetrics", text) from None


def _fetch(url: str, token: str) -> str:
    """One plain GET; no proxy, no redirects. Raises OffgridError (NoAnswer)."""
    import http.client
    from urllib.parse import urlsplit

    from offgrid.client.errors import OffgridError

    address = urlsplit(url).netloc
    of = http.client.HTTPSConnection if url.startswith("https:") else http.client.HTTPConnection
    connection = of(address, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        text = answer.read(PAGE_BYTES_MAX).decode()
    except (OSError, http.client.HTTPException) as error:
        raise OffgridError("UNAVAILABLE", "NoAnswer", f"nobody answers at {address}: {error}") from None
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise OffgridError("UNAVAILABLE", "NoAnswer", f"{address} answers {answer.status}: {text.strip()}")
    return text


def _reachable(address: str) -> str:
    """Who listens on every address is asked at the loopback."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - read, not bound
