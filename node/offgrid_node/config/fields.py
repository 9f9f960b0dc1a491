"""What one value may be: the types of the tree's fields, each with its rule in words.

A wrong value raises a pydantic error of type "offgrid" whose message is a predicate ("has no port") and whose context
may hold a `suggestion`. `Allowed` carries the rule for the message and for the template.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, SecretStr, ValidationInfo
from pydantic_core import PydanticCustomError

from offgrid.backup.recovery import PUBLIC_RULE, public_from, public_text
from offgrid_node.protocol.ids import NAME, NAME_RULE, NODE_ID
from offgrid_node.protocol.jobs.hosted import MODEL_CHARS_MAX, MODEL_NAME

from .addresses import ADDRESS_RULE, LISTEN_RULE, URL_RULE, BadAddress, check_host, check_url, split_address
from .frozen_map import FrozenMap
from .hours import HOURS
from .problems import printable, shown
from .sql_target import RULE as SQL_RULE
from .sql_target import parse_target

PATH_CHARS_MAX = 4096
LIST_MAX = 256
MAP_MAX = 64
LABEL_CHARS_MAX = 128
SECRET_CHARS_MAX = 4096
UNIX_PATH_BYTES_MAX = 103
"""Room in `sockaddr_un.sun_path`: 104 bytes with its NUL on macOS, 108 on Linux; the smaller, so that files move."""

WORD_RULE = "1 to 63 characters of a-z, 0-9, '_' and '-', the first a letter or digit"
PATH_RULE = "a path; a relative one starts at this file's folder"
ADMIN_RULE = '"", "unix:PATH" (at most 103 bytes) or a loopback "127.0.0.1:port", port 0 (any free) to 65535'
LABELS_RULE = f"names of {WORD_RULE}; values of at most {LABEL_CHARS_MAX} printable characters"
GPUS_RULE = 'a list of "MODEL:MEMORY" with the memory in MiB; ["auto"] asks the machine, [] is none'
MODELS_RULE = f"a list of models, each 1 to {MODEL_CHARS_MAX} of A-Z a-z 0-9 . _ : / @ + -, a letter or digit first"
SCHEDULER_RULE = 'tcp://host:port or tls://host:port; "" = none'
READABLE_RULE = "a list of absolute paths, each no whole file system"
OWNERS_RULE = 'a list of members\' names or ids, or ["*"] for everybody; at least one'
SENDERS_RULE = 'a list of members\' names or ids, or ["*"] for everybody'
EXECUTORS_RULE = (
    'a list of labels such as "wasm" or "process:wc", or beginnings of them, "process:*", "*"; at least one'
)
HOURS_RULE = '"" = always, or local times of the day such as "22:00-06:00"'
RATE_MIN, RATE_MAX = 1_000, 2**40  # bytes a second, of repair and of sealing anew: slower never ends
RATE_RULE = f"0 = no limit, or {RATE_MIN} to {RATE_MAX}"
LINKS_MAX = 16
LINKS_RULE = f"a list of at most {LINKS_MAX} lines scheme:target?name=value&name=value; [] = none"
ARGUMENTS_MAX = 64
ARGV_RULE = f"a program's absolute path and at most {ARGUMENTS_MAX - 1} arguments; [] = none"
COMMANDS_RULE = f"names of {WORD_RULE}; values are absolute paths of programs"

_LINK = re.compile(r"[a-z][a-z0-9+.-]{0,31}:[^\s\x00-\x1f]{1,480}\Z")
_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_GPU = re.compile(r"[^:,]{1,64}:[1-9][0-9]{0,7}\Z")
_EXECUTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}\*?\Z|\*\Z")
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_T = TypeVar("_T")


class Allowed(NamedTuple):
    """Annotation of a field: what it may be, in words."""

    text: str


def wrong(message: str, suggestion: str = "") -> PydanticCustomError:
    """The error that a rule raises."""
    # Lone surrogates (bytes of the environment that are not UTF-8) would make pydantic's own rendering fail.
    context = {"message": printable(message), "suggestion": printable(suggestion)}
    return PydanticCustomError("offgrid", "{message}", context)


def fit_name(text: str) -> str:
    """`text` made to fit the NAME rule, "" when nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].rstrip("-")


def host_name() -> str:
    """This machine's name (without its domain) made to fit the NAME rule."""
    return fit_name(socket.gethostname().partition(".")[0]) or "node"


def _name(text: str) -> str:
    if not NAME.match(text):
        raise wrong(f"is {shown(text)}, no name", _quoted(fit_name(text)))
    return text


def _word(text: str) -> str:
    if not _WORD.match(text):
        raise wrong(f"has {shown(text)}, no name")
    return text


def _model(text: str) -> str:
    if not MODEL_NAME.fullmatch(text):
        raise wrong(f"has {shown(text)}, no model's name")
    return text


def _scheduler(text: str) -> str:
    if not text:
        return text
    scheme, mark, address = text.partition("://")
    if not mark or scheme not in ("tcp", "tls"):
        guess = f"tcp://{address or text}"
        raise wrong(
            f"is {shown(text)}, no address of a Dask scheduler", _quoted(guess) if ":" in (address or text) else ""
        )
    try:
        split_address(address, port_min=1)
    except BadAddress as bad:
        raise wrong(f"is {shown(text)}, which {bad.message}") from None
    return text


def _quoted(text: str) -> str:
    return f'"{text}"' if text else ""


def _address(text: str, port_min: int) -> str:
    try:
        split_address(text, port_min=port_min)
    except BadAddress as bad:
        raise wrong(f"is {shown(text)}, which {bad.message}", _quoted(bad.suggestion)) from None
    return text


def _host(text: str) -> str:
    try:
        check_host(text)
    except BadAddress as bad:
        raise wrong(f"has {shown(text)}, which {bad.message}") from None
    return text


def _peer(text: str) -> str:
    return _address(text, 1)


def _listen(text: str) -> str:
    return _address(text, 0)


def _door(text: str) -> str:
    return text and _address(text, 0)


def _url(text: str) -> str:
    try:
        check_url(text)
    except BadAddress as bad:
        raise wrong(bad.message, _quoted(bad.suggestion)) from None
    return text


def _link(text: str) -> str:
    if not _LINK.match(text):
        raise wrong("is no description of a link")
    return text


def _optional_url(text: str) -> str:
    return text and _url(text)


def _recovery_key(text: str) -> str:
    try:
        return text and public_text(public_from(text))
    except ValueError as error:
        raise wrong(str(error)) from None


def path_fault(text: str) -> str:
    """What is wrong with a path, "" when nothing is."""
    if not text:
        return "is empty"
    if len(text) > PATH_CHARS_MAX:
        return f"is longer than {PATH_CHARS_MAX} characters"
    if not text.isprintable():
        return "has unprintable characters"
    return "starts with '~', which only a shell understands" if text.startswith("~") else ""


def _resolve(text: str, info: ValidationInfo) -> Path:
    if fault := path_fault(text):
        raise wrong(fault, _quoted(os.path.expanduser(text)) if text.startswith("~") else "")
    folder = (info.context or {}).get("folder", Path())
    return Path(os.path.abspath(folder)) / text


def _path(value: Any, info: ValidationInfo) -> Any:
    return _resolve(str(value), info) if isinstance(value, str | Path) else value


def _optional_path(text: str, info: ValidationInfo) -> str:
    return str(_resolve(text, info)) if text else ""


def _admin(text: str, info: ValidationInfo) -> str:
    if text.startswith("unix:"):
        path = str(_resolve(text.removeprefix("unix:"), info))
        if (size := len(os.fsencode(path))) > UNIX_PATH_BYTES_MAX:
            raise wrong(f"is a socket path of {size} bytes, too long")
        return f"unix:{path}"
    if text:
        try:
            host, _ = split_address(text, port_min=0)
        except BadAddress as bad:
            guess = f"unix:{text}" if text.startswith(("/", "./")) else ""
            raise wrong(f"is {shown(text)}, which {bad.message}", _quoted(guess or bad.suggestion)) from None
        if host not in _LOOPBACK:
            raise wrong(f"is {shown(text)}, which other machines could reach")
    return text


def _program(text: str) -> str:
    if not Path(text).is_absolute() or not text.isprintable() or len(text) > PATH_CHARS_MAX:
        raise wrong(f"is {shown(text)}, no absolute path")
    return text


def _argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    for argument in argv[1:]:
        if "\0" in argument or len(argument) > PATH_CHARS_MAX:
            raise wrong(f"has {shown(argument)}, no argument")
    return (_program(argv[0]), *argv[1:]) if argv else argv


def _readable(text: str) -> str:
    text = _program(text)
    if Path(text) == Path(text).parent:
        raise wrong(f"is {shown(text)}, all there is")
    return text


def _label(text: str) -> str:
    if len(text) > LABEL_CHARS_MAX:
        raise wrong(f"has {len(text)} characters, too many")
    if not text.isprintable():
        raise wrong("has unprintable characters")
    return text


def _gpus(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if entries != ("auto",) and not (_GPU.match(entry) and entry.isprintable()):
            raise wrong(f"has {shown(entry)}, no card", '"RTX 4090:24564"' if ":" not in entry else "")
    return entries


def _owner(text: str) -> str:
    if text != "*" and not NAME.match(text) and not NODE_ID.match(text):
        raise wrong(f"has {shown(text)}, neither a member's name nor an id", _quoted(fit_name(text)))
    return text


def _executor(text: str) -> str:
    if not _EXECUTOR.match(text):
        raise wrong(f"has {shown(text)}, no executor's label")
    return text


def _hours(text: str) -> str:
    if text and (not HOURS.match(text) or text[:5] == text[6:]):
        raise wrong(f"is {shown(text)}, no span of hours", _guess_hours(text))
    return text


def _guess_hours(text: str) -> str:
    found = re.fullmatch(r"\s*(\d{1,2})(?::?(\d\d))?\s*-\s*(\d{1,2})(?::?(\d\d))?\s*", text, re.ASCII)
    if found is None:
        return ""
    start, start_minute, end, end_minute = (int(part or 0) for part in found.groups())
    guess = f"{start:02}:{start_minute:02}-{end:02}:{end_minute:02}"
    return _quoted(guess) if HOURS.match(guess) and guess[:5] != guess[6:] else ""


def _secret(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isprintable() or len(secret) > SECRET_CHARS_MAX:
        raise wrong("is too long or has unprintable characters")
    return secret


def _sql_mirror(secret: SecretStr) -> SecretStr:
    try:
        if url := _secret(secret).get_secret_value():
            parse_target(url)
    except BadAddress as bad:
        raise wrong(bad.message) from None
    return secret


def as_tuple(value: Any) -> Any:
    """TOML's lists as tuples, which stay what they are."""
    return tuple(value) if isinstance(value, list) else value


def _some(values: tuple[_T, ...]) -> tuple[_T, ...]:
    # Not `min_length`, which pydantic also reports when the only elements are wrong.
    if not values:
        raise wrong("is empty")
    return values


def _rate(value: int) -> int:
    if 0 < value < RATE_MIN:
        raise wrong(f"{value} bytes a second, too slow to ever come to an end")
    return value


def _distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise wrong(f"has {shown(str(value))} twice")
    return values


Role = Literal["core", "broker", "host"]
Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "text", "json"]
Placement = Literal["balanced", "latency", "bandwidth"]
Mode = Literal["auto", "offgrid", "disabled"]
Isolation = Literal["auto", "bwrap", "rlimits"]


Name = Annotated[str, AfterValidator(_name), Allowed(NAME_RULE)]
Listen = Annotated[str, AfterValidator(_listen), Allowed(LISTEN_RULE)]
OptionalListen = Annotated[str, AfterValidator(_door), Allowed(f'{LISTEN_RULE}; "" = off')]
Door = Annotated[str, AfterValidator(_door), Allowed(f'{LISTEN_RULE}; "" = closed')]
Admin = Annotated[str, AfterValidator(_admin), Allowed(ADMIN_RULE)]
OptionalUrl = Annotated[str, AfterValidator(_optional_url), Allowed(f'{URL_RULE}; "" = none')]
RecoveryKey = Annotated[str, AfterValidator(_recovery_key), Allowed(f'{PUBLIC_RULE}; "" = none')]
OptionalPath = Annotated[str, AfterValidator(_optional_path), Allowed(f'{PATH_RULE}; "" = off')]
FilePath = Annotated[Path, BeforeValidator(_path), Allowed(PATH_RULE)]
Secret = Annotated[SecretStr, AfterValidator(_secret), Allowed("printable characters")]
SqlMirror = Annotated[SecretStr, AfterValidator(_sql_mirror), Allowed(SQL_RULE)]

OptionalRate = Annotated[int, Field(ge=0, le=RATE_MAX), AfterValidator(_rate), Allowed(RATE_RULE)]

_Several = Annotated[tuple[_T, ...], Field(max_length=LIST_MAX), BeforeValidator(as_tuple), AfterValidator(_distinct)]
Roles = Annotated[_Several[Role], AfterValidator(_some), Allowed("a list of core, broker, host, at least one")]
Addresses = Annotated[_Several[Annotated[str, AfterValidator(_peer)]], Allowed(f"a list of {ADDRESS_RULE}")]
Hosts = Annotated[_Several[Annotated[str, AfterValidator(_host)]], Allowed("a list of host names, without ports")]
Urls = Annotated[_Several[Annotated[str, AfterValidator(_url)]], Allowed(f"a list of {URL_RULE}")]
Words = Annotated[
    _Several[Annotated[str, AfterValidator(_word)]],
    AfterValidator(_some),
    Allowed(f"a list of at least one name, each {WORD_RULE}"),
]
Models = Annotated[
    tuple[Annotated[str, AfterValidator(_model)], ...],
    Field(max_length=MAP_MAX),
    BeforeValidator(as_tuple),
    AfterValidator(_distinct),
    Allowed(MODELS_RULE),
]
Scheduler = Annotated[str, AfterValidator(_scheduler), Allowed(SCHEDULER_RULE)]
Paths = Annotated[_Several[Annotated[str, AfterValidator(_readable)]], Allowed(READABLE_RULE)]
Word = Annotated[str, AfterValidator(_word), Allowed(WORD_RULE)]
Owners = Annotated[_Several[Annotated[str, AfterValidator(_owner)]], AfterValidator(_some), Allowed(OWNERS_RULE)]
Senders = Annotated[_Several[Annotated[str, AfterValidator(_owner)]], Allowed(SENDERS_RULE)]
Executors = Annotated[
    _Several[Annotated[str, AfterValidator(_executor)]], AfterValidator(_some), Allowed(EXECUTORS_RULE)
]
Hours = Annotated[str, AfterValidator(_hours), Allowed(HOURS_RULE)]
Labels = Annotated[
    Mapping[Annotated[str, AfterValidator(_word)], Annotated[str, AfterValidator(_label)]],
    Field(max_length=MAP_MAX),
    AfterValidator(FrozenMap),
    PlainSerializer(dict),
    Allowed(LABELS_RULE),
]
Gpus = Annotated[
    tuple[str, ...],
    Field(max_length=MAP_MAX),
    BeforeValidator(as_tuple),
    AfterValidator(_gpus),
    Allowed(GPUS_RULE),
]
LinkList = Annotated[_Several[Annotated[str, AfterValidator(_link)]], Field(max_length=LINKS_MAX), Allowed(LINKS_RULE)]
Argv = Annotated[
    tuple[str, ...],
    Field(max_length=ARGUMENTS_MAX),
    BeforeValidator(as_tuple),
    AfterValidator(_argv),
    Allowed(ARGV_RULE),
]
Commands = Annotated[
    Mapping[Annotated[str, AfterValidator(_word)], Annotated[str, AfterValidator(_program)]],
    Field(max_length=MAP_MAX),
    AfterValidator(FrozenMap),
    PlainSerializer(dict),
    Allowed(COMMANDS_RULE),
]
