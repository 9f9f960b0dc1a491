"""How shells complete both commands: as click has it, but for what its scripts lack.

Bash breaks words at `:` and `=` as well (COMP_WORDBREAKS), so that neither `mission:abc` nor a URL would be one word:
here it hands over the line, and is given what belongs behind the last break. The others replace the whole word, so
behind `--type=` they are given that, too. Zsh has no `compdef` before `compinit`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.shell_completion import (
    BashComplete,
    FishComplete,
    PowerShellComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

BREAKS = (":", "=")
WORDS = 'COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD'
LINE = 'COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_CWORD="${COMP_WORDS[COMP_CWORD]}"'
COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"


class Bash(BashComplete):
    """COMP_WORDS: the line up to the cursor; COMP_CWORD: the part of its last word that bash will replace."""

    source_template = BashComplete.source_template.replace(WORDS, LINE)
    _kept = 0  # characters of the last word that stay as they are

    def get_completion_args(self) -> tuple[list[str], str]:
        line, replaced = os.environ["COMP_WORDS"], os.environ["COMP_CWORD"]
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() else words.pop()
        value = _option_and_value(incomplete)[1]
        self._kept = max(0, len(value) - (0 if replaced in BREAKS else len(replaced)))
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        return f"{item.type},{item.value[self._kept :]}"


class _Whole(ShellComplete):
    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        found, option = super().get_completions(args, incomplete), _option_and_value(incomplete)[0]
        for item in found:
            item.value = option + item.value
        return found


class Zsh(_Whole, ZshComplete):
    """For ~/.zshrc, whatever else stands there."""

    source_template = COMPINIT + ZshComplete.source_template


class Fish(_Whole, FishComplete):
    """As click has it."""


class PowerShell(_Whole, PowerShellComplete):
    """As click has it."""


SHELLS = (Bash, Zsh, Fish, PowerShell)


def _option_and_value(word: str) -> tuple[str, str]:
    """("--type=", "JOB_CRE"); ("", word) of one that is not both."""
    option, sign, value = word.partition("=")
    return (option + sign, value) if word.startswith("-") and sign else ("", word)


def register() -> None:
    """Has click take these for its own."""
    for shell in SHELLS:
        add_completion_class(shell)


def script(shell: str, programs: Sequence[tuple[str, str]]) -> str:
    """What the shell is to read, for programs by name and variable."""
    (made,) = (each for each in SHELLS if each.name == shell)
    return "\n".join(made(click.Command(program), {}, program, variable).source() for program, variable in programs)
