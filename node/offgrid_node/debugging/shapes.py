"""What looks like a secret, by its form: each pattern with what is left of it. In time linear in the text: where a
pattern may begin with a run of characters, or end in one, the run is bounded or taken whole (`++`)."""

from __future__ import annotations

import re
from collections.abc import Callable

HIDDEN = "[hidden]"
RUN_CHARS_MAX = 1_000  # a longer one is no word that helps

_SPOKEN = r"(?:passw(?:or)?d|passphrase|(?<![^\W_])(?:pass|pwd|pw)(?![^\W_]))"
_NAMED = (
    rf"(?:{_SPOKEN}|secret|token(?!s\b|_level)|api[_-]?key|auth[_-]?key|private[_-]?key|access[_-]?key|credential)"
    r"[\w-]{0,64}+"
)
_QUOTE = r"\\?[\"']"
_VALUE = (
    r"(?P<value>\"(?:\\.|[^\"\\\n])++\"?|'(?:\\.|[^'\\\n])++'?|\\[\"'][^\"'\\\n]++(?:\\[\"'])?"
    r"|[^\s,;}\"'\\][^\s,;}\"']*+)"
)
_BETWEEN = rf"(?:{_QUOTE}\s*+,\s*+(?={_QUOTE})|[ \t]++)"  # an option and its value, in a list and in a line
_PREFIXED = (
    r"sk-[\w-]{16,}|[sr]k_(?:live|test)_\w+|gh[pousr]_\w{16,}|github_pat_\w+|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}"
    r"|A[KS]IA[A-Z0-9]{16}|AIza[\w-]{30,}|hf_\w{20,}|npm_\w{20,}|pypi-[\w-]{20,}|dckr_pat_[\w-]+|tk_[a-z0-9]{20,}"
    r"|whsec_[\w+/=]+|AGE-SECRET-KEY-1\w+|eyJ[\w-]{6,}\.[\w.-]+"
)
_HOOKS = r"(?:hooks\.slack\.com|discord(?:app)?\.com/api/webhooks|ntfy\.sh|api\.telegram\.org)/"

NAME = re.compile(rf"(?i){_NAMED}")
OPTION = re.compile(rf"(?i)--?[\w-]{{0,64}}{_NAMED}")  # what comes after it is its value
PASSWORD_OPTION = re.compile(r"-[pP]")  # its value may be a port, which is none
USER_OPTION = re.compile(r"-[uU]|--(?:proxy-)?user")
PORT = re.compile(r"\d{1,5}")
_WORDY = (
    r"(?!p(?:laintext|roto(?:set)?|rint0?|ath|erm|rune|ort|rofile)(?![\w]))"  # options of one dash: grpcurl's, find's
)


def _value_hidden(found: re.Match[str]) -> str:
    """What is before it and its quotes are left."""
    value = found["value"]
    quote = value[: 2 if value[0] == "\\" else 1] if value[0] in "\"'\\" else ""
    end = quote if quote and len(value) > len(quote) and value.endswith(quote) else ""
    return f"{found[1]}{quote}{HIDDEN}{end}"


Instead = str | Callable[[re.Match[str]], str]
SHAPES: tuple[tuple[re.Pattern[str], Instead], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"\A(?:[A-Za-z0-9+/=]++\n){0,200}+-----END [A-Z ]+-----"), HIDDEN),  # where a log begins in one
    (re.compile(rf"(?<![\w+/=-])[\w+/=-]{{{RUN_CHARS_MAX},}}+"), HIDDEN),
    (re.compile(r"\bog1:[^\s\"']+"), f"og1:{HIDDEN}"),
    (re.compile(r"\boffgrid-(?:key|secret)\b[^\n\"]*"), HIDDEN),
    (
        re.compile(
            rf"(?i)(\b(?:(?:proxy-)?authorization|(?:set-)?cookie)(?:{_QUOTE}\s*+[:,]\s*+b?{_QUOTE}|\s*+[:=]\s*+)"
            rf"(?:(?:basic|bearer|digest|negotiate|token)[ \t]++)?)(?!\[hidden)[^\r\n\"'\\]++"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{6,}"), rf"\1 {HIDDEN}"),
    (re.compile(rf"(?<![\w-])(?:{_PREFIXED})"), HIDDEN),
    (re.compile(rf"(?i)\b({_HOOKS})[^\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<!\w)(\w{1,32}+://)[^\s/@\"']+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(#code=)[^\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:key|sig|signature|auth|code)=)[^\s&#\"']+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)({_NAMED}(?:{_QUOTE})?\s*+[=:]\s*+){_VALUE}"), _value_hidden),
    (re.compile(rf"(?i)({_SPOKEN}\s++(?:is|was)\s++){_VALUE}"), _value_hidden),
    (re.compile(rf"(?i)({_NAMED}\s++(?:is|was)\s++)(?=\S*\d){_VALUE}"), _value_hidden),
    (re.compile(rf"(?i)((?<![\w-])--?[\w-]{{0,64}}{_NAMED}{_BETWEEN})(?!-){_VALUE}"), _value_hidden),
    (
        re.compile(
            rf"((?<![\w-])(?:-[uU]|--(?:proxy-)?user)(?:{_BETWEEN}(?:{_QUOTE})?|=(?:{_QUOTE})?)?)[^\s\"':=]+:[^\s\"',]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            rf"((?<![\w-])-{_WORDY}[pP](?![ \t]+/)(?:{_BETWEEN}(?:{_QUOTE})?)?)"
            r"(?!\d{1,5}(?![^\s\"',]))(?!\[hidden)[^\s\"',=-][^\s\"',]*"
        ),
        rf"\1{HIDDEN}",
    ),
)
