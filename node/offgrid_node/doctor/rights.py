"""Whose the node's folders are, who may write to them, and who may read the secrets in its config."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from offgrid_node.config.sections import Section
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, warning
from offgrid_node.doctor.subject import Subject
from offgrid_node.folder import DOTENV_NAME
from offgrid_node.keys import other_owner
from offgrid_node.protocol.errors import FailedPrecondition

OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


def owner_instead(path: Path) -> str:
    """Whose folder it is where the asker may do nothing with it; "" where it is one's own, and for root."""
    if sys.platform == "win32" or os.geteuid() == 0:
        return ""
    with suppress(OSError):
        return other_owner(path)
    return ""


def secrets_of(section: Section) -> Iterator[str]:
    """Those that are set, of a section and of those in it."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr):
            yield from filter(None, [value.get_secret_value()])
        elif isinstance(value, Section):
            yield from secrets_of(value)


def _folder(subject: Subject) -> Iterator[Said]:
    try:
        if not subject.path.is_dir():
            return
    except PermissionError as error:
        again = command("sudo", "offgrid-node", "doctor", "--dir", subject.path.absolute())
        yield fault(f"{error.filename} lies in a folder that this user may not look into", again)
        return
    if owner := owner_instead(subject.path):
        again = command("sudo", "-u", owner, "offgrid-node", "doctor", "--dir", subject.path.absolute())
        yield fault(f"{subject.path} is {owner}'s, who alone can look after the node there", again)
        return
    try:
        subject.folder.check_private()
    except FailedPrecondition as error:
        sentence, _, remedy = error.message.partition(" Type: ")
        yield fault(sentence, remedy)
    places = [subject.path]
    if subject.config_if_any is not None:
        places += [subject.config.node.data_dir, subject.config.storage.memory_db]
        yield from _exposed(subject)
    for place in places:
        if place.is_dir() and (said := _unwritable(place)):
            yield said
            return


def _exposed(subject: Subject) -> Iterator[Said]:
    """Secrets of the config, in a file that others may read."""
    secrets = tuple(secrets_of(subject.config))
    for path in (subject.folder.config_path, subject.path / DOTENV_NAME):
        if os.name != "posix" or not path.is_file() or not path.stat().st_mode & OTHERS_READ:
            continue
        text = path.read_text(errors="replace")
        if any(secret in text for secret in secrets):
            yield warning(
                f"{path} has secrets in it, and others of this machine may read it", command("chmod", "600", path)
            )


def _unwritable(place: Path) -> Said | None:
    if sys.platform != "win32" and os.statvfs(place).f_flag & os.ST_RDONLY:
        mount = next(each for each in (place.absolute(), *place.absolute().parents) if each.is_mount())
        return fault(f"{place} lies on a disk that is mounted read-only", command("mount", "-o", "remount,rw", mount))
    if not os.access(place, os.W_OK | os.X_OK):
        owner = command("sudo", "chown", "-R", str(os.getuid()) if hasattr(os, "getuid") else "USER", place)
        return fault(f"{place} may not be written by this user", owner)
    return None


CHECKS = (Check("folder", "the node's folders are its owner's, and can be written", _folder, Needs.NOTHING),)
