"""Fetches pip itself: the one that the locks name, and the only one there is on Debian without python3-pip.

Looks where pip would have looked: PIP_* variables, then pip's own configuration files; index pages are read as the
Simple Repository API (PEP 503) has them. What is fetched must match a hash of locks/pip.txt.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

DEFAULT_INDEX = "https://pypi.org/simple"
FETCH_TIMEOUT_S = 10  # without a word from the index; another pip may be at hand
PAGE_BYTES_MAX = 32 * 1024 * 1024  # an index page or one wheel; pip's wheel is 2 MB


class PipMissing(Exception):
    """No pip could be had; the message says where it was looked for."""


def pinned_pip(lock: Path) -> tuple[str, frozenset[str]]:
    """The version of pip that the lock names, and the SHA-256 digests (hex) it allows."""
    text = lock.read_text(encoding="utf-8")
    found = re.search(r"^pip==([^\s\\;]+)", text, re.MULTILINE)
    if found is None:
        raise PipMissing(f"{lock} names no version of pip")
    return found[1], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))


def setting(name: str, env: Mapping[str, str]) -> str:
    """pip's setting `name` ("index-url"): from PIP_INDEX_URL, else from pip's configuration files, else ""."""
    if value := env.get("PIP_" + name.upper().replace("-", "_")):
        return value
    home = Path(env.get("HOME") or env.get("USERPROFILE") or ".")
    files = [
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        Path(env.get("PROGRAMDATA") or home) / "pip" / "pip.ini",
        Path(env.get("APPDATA") or home) / "pip" / "pip.ini",
        Path(env.get("PIP_CONFIG_FILE") or os.devnull),
    ]
    parser = configparser.RawConfigParser()
    try:
        parser.read([path for path in files if path.is_file()], encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise PipMissing(f"pip's configuration cannot be read: {error}") from error
    return next((parser.get(s, name) for s in ("install", "global") if parser.has_option(s, name)), "")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs.extend(value for name, value in attrs if tag == "a" and name == "href" and value)


def _opener(env: Mapping[str, str]) -> urllib.request.OpenerDirector:
    context = ssl.create_default_context()
    if cert := setting("cert", env):
        context.load_verify_locations(cert)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := setting("proxy", env):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)


def _read(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    with opener.open(url, timeout=FETCH_TIMEOUT_S) as answer:
        data: bytes = answer.read(PAGE_BYTES_MAX + 1)
    if len(data) > PAGE_BYTES_MAX:
        raise PipMissing(f"{url} is larger than {PAGE_BYTES_MAX} bytes")
    return data


def _candidates(
    filename: str, env: Mapping[str, str], opener: urllib.request.OpenerDirector, tried: list[str]
) -> list[str]:
    """URLs that should hold the wheel: folders of wheels first, then each index's page."""
    urls = []
    for place in setting("find-links", env).split():
        if (local := Path(place) / filename).is_file():
            urls.append(local.resolve().as_uri())
    indexes = [setting("index-url", env) or DEFAULT_INDEX, *setting("extra-index-url", env).split()]
    for index in [] if setting("no-index", env) else indexes:
        page = index.rstrip("/") + "/pip/"
        if page.startswith("file:"):
            page += "index.html"
        try:
            links = _Links()
            links.feed(_read(opener, page).decode("utf-8", "replace"))
        except (OSError, ValueError) as error:
            tried.append(f"{_without_secrets(page)}: {error}")
            continue
        found = (urllib.parse.urljoin(page, href) for href in links.hrefs if filename in href)
        urls.extend(url.partition("#")[0] for url in found if urllib.parse.urlsplit(url).path.endswith(filename))
    return urls


def _without_secrets(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def fetch_pip(lock: Path, folder: Path, env: Mapping[str, str]) -> Path:
    """Puts pip's wheel into `folder` and returns its path; Python can run it as `python <wheel>/pip`.

    Raises PipMissing, with everything that was tried, when no place has it or the bytes match no hash of the lock.
    """
    version, digests = pinned_pip(lock)
    filename, tried = f"pip-{version}-py3-none-any.whl", list[str]()
    if (kept := folder / filename).exists():
        return kept
    opener = _opener(env)
    for url in _candidates(filename, env, opener, tried):
        try:
            data = _read(opener, url)
        except (OSError, urllib.error.URLError) as error:
            tried.append(f"{_without_secrets(url)}: {error}")
            continue
        if hashlib.sha256(data).hexdigest() not in digests:
            tried.append(f"{_without_secrets(url)}: its hash is not in {lock.name}")
            continue
        kept.write_bytes(data)
        return kept
    raise PipMissing(f"{filename} was not found. Tried:\n  " + "\n  ".join(tried or ["no index and no --find-links"]))
