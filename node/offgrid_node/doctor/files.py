"""The node's own files: config, folder, keys, store, socket."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from offgrid.starting import is_starting
from offgrid_node.config import CONFIG_NAME
from offgrid_node.config.addresses import admin_socket
from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.processes import is_stopped, listens_at_a_path
from offgrid_node.doctor.reading import StoredRows
from offgrid_node.doctor.restarting import restarted, restored, started
from offgrid_node.doctor.rights import owner_instead
from offgrid_node.doctor.subject import UNAUTHENTICATED, Subject
from offgrid_node.folder import ROOT_KEY, STORE_FILE
from offgrid_node.keys import NodeKey, check_identity_certificate, verify
from offgrid_node.keys.store import key_path
from offgrid_node.last_refusal import last_refusal
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, NotFound
from offgrid_node.protocol.mesh.founding import held_directory
from offgrid_node.protocol.state.tables import JOURNAL, NEWER_KEY
from offgrid_node.services.admin_socket import unix_socket
from offgrid_node.store_trial import LAST_WORDS

PROBLEMS_SHOWN = 5
STORE_VARIABLES = ("OFFGRID_NODE__DATA_DIR", "OFFGRID_STORAGE__MEMORY_DB", "OFFGRID_MEMORY_DB")


def _config(subject: Subject) -> Iterator[Said]:
    path = subject.folder.config_path
    if owner_instead(subject.path):
        yield not_applicable("it is another user's")
        return
    if not path.exists():
        yield _no_config(subject, path)
    for problem in subject.problems[:PROBLEMS_SHOWN]:
        yield fault(str(problem), command("offgrid-node", "config", "check", path))


def _no_config(subject: Subject, path: Path) -> Said:
    """A name that was changed, a folder too high up, or no node."""
    lacking = f"no node lives in {subject.path}: there is no {path.name}"
    if subject.folder.draft_path.is_file():
        sentence = f"{lacking}; a join (or an init) was broken off, which may be typed again"
        return fault(sentence, subject.node("join", "TOKEN"))
    if subject.folder.keys_path.is_dir():
        others = [each for each in sorted(subject.path.glob("*toml*")) if each != path]
        sentence = f"{lacking}, though a node's keys are there: was the file renamed?"
        return fault(sentence, command("mv", others[0], path) if others else command("ls", "-l", subject.path))
    below = [each.parent for each in sorted(subject.path.glob(f"*/{path.name}"))]
    if below:
        names = ", ".join(each.name for each in below[:PROBLEMS_SHOWN])
        return fault(f"{lacking}. Below it are {names}", command("offgrid-node", "doctor", "--dir", below[0]))
    if not subject.path.is_dir():
        meant = _near(subject.path.absolute())
        sentence = f"there is no folder {subject.path}"
        if meant is not None:
            return fault(f"{sentence}; did you mean {meant}?", command("offgrid-node", "doctor", "--dir", meant))
        return fault(sentence, subject.node("join", "TOKEN"))
    return fault(lacking, subject.node("join", "TOKEN"))


def _near(path: Path) -> Path | None:
    """A node's folder whose name is like that of a path that is not there, in the one part that is wrong."""
    wrong = next(each for each in (*reversed(path.parents), path) if not each.exists())
    with suppress(OSError):
        siblings = [each.name for each in wrong.parent.iterdir() if each.is_dir()]
        for name in get_close_matches(wrong.name, siblings, n=3, cutoff=0.6):
            meant = wrong.with_name(name) / path.relative_to(wrong)
            if (meant / CONFIG_NAME).is_file():
                return meant
    return None


def _keys(subject: Subject) -> Iterator[Said]:
    keys = subject.folder.keys_path
    if not keys.is_dir() and (moved := sorted(subject.path.glob(f"*/{key_path(keys, 'node').name}"))):
        yield fault(f"{keys} is missing, and the keys lie in {moved[0].parent}", command("mv", moved[0].parent, keys))
        return
    names = ["node", *([ROOT_KEY] if key_path(keys, ROOT_KEY).exists() else [])]
    for name in names:
        try:
            NodeKey.load(keys, name)
        except FailedPrecondition as error:
            sentence, _, remedy = error.message.partition(" Type: ")
            yield fault(sentence, remedy or command("ls", "-l", key_path(keys, name)))
        except NotFound:
            root = ["--root"] if name == ROOT_KEY else []
            yield fault(f"{key_path(keys, name)} is missing", subject.node("words", "--enter", *root))
        except Fault as error:
            sentence = error.message.partition(" Restore ")[0]
            path = key_path(keys, name)
            away, root = command("mv", path, path.with_suffix(".bad")), ["--root"] if name == ROOT_KEY else []
            yield fault(sentence, f"{away} && {subject.node('words', '--enter', *root)}")


def _store(subject: Subject) -> Iterator[Said]:
    path = subject.config.storage.memory_db
    if not (path / STORE_FILE).is_file():
        yield _no_store(subject, path)
        return
    if subject.status is not None:
        return
    try:
        key = NodeKey.load(subject.folder.keys_path)
    except Fault:
        return  # said of the keys
    try:
        with StoredRows.open(path) as rows:
            directory = held_directory(rows, verify=verify, check_certificate=check_identity_certificate)
            outdated = rows.get(JOURNAL, NEWER_KEY) is not None
    except Corrupt as error:
        yield fault(f"the node's store is damaged: {error.message}", restored(subject))
        return
    if directory is None:
        yield fault(
            f"{path} belongs to no mesh: a join was interrupted, and this config was made by hand",
            f"{command('mv', subject.folder.config_path, f'{subject.folder.config_path}.old')} && "
            + subject.node("join", "TOKEN"),
        )
        return
    if outdated:
        yield fault(
            f"{path} is not this node's newest store, or not its only one: a host has shown something newer. Where its "
            "folder was copied, let one machine alone be this node; where it was put back from an old backup, this "
            "brings the newest. To go on with what is here, and lose what came after: "
            + subject.node("run", "--accept-stale"),
            restored(subject),
        )
    known = directory.member(key.node_id)
    if known is None:
        others = ", ".join(record.name for node in directory.live()[:3] if (record := directory.member(node)))
        yield fault(
            f"{path} is another node's store, of mesh {directory.mesh_name} ({others}, …): {key.node_id[:12]}…, "
            f"whose key lies in {subject.folder.keys_path}, is no member there",
            command("ls", "-l", path, subject.folder.keys_path),
        )
    elif directory.mesh_name != subject.config.mesh.name:
        yield fault(
            f"{path} is of mesh {directory.mesh_name}, and {subject.folder.config_path.name} says mesh.name = "
            f'"{subject.config.mesh.name}"',
            f"OFFGRID_MESH__NAME={directory.mesh_name} {subject.node('run')}",
        )
    elif known.removed:
        yield fault("this node was removed from its mesh", command("offgrid", "mesh", "invite"))
    elif known.name != subject.config.node.name:
        yield warning(
            f"the key in {subject.folder.keys_path} is that of {known.name}, and "
            f'{subject.folder.config_path.name} says node.name = "{subject.config.node.name}": was it copied from '
            "there? Two nodes with one key are refused",
            command("grep", "-n", "^name", subject.folder.config_path),
        )


def _no_store(subject: Subject, path: Path) -> Said:
    """Somewhere else, by a setting, or gone."""
    elsewhere = [each.parent for each in sorted(subject.path.glob(f"*/*/{STORE_FILE}")) if each.parent != path]
    sentence = f"{path}: the node's store is not there"
    if not elsewhere:
        file = next((each for each in (path, *path.parents) if each.is_file()), None)
        if file is not None:
            return fault(f"{file} is a file, and the node's folder should be there", command("mv", file, f"{file}.old"))
        return fault(f"{sentence}. Is its disk mounted? If it is lost:", restored(subject))
    variables = [name for name in STORE_VARIABLES if name in subject.environ]
    where = (
        f", but in {elsewhere[0]}: {' and '.join(variables) or 'node.data_dir, or storage.memory_db,'} says otherwise"
    )
    look = command("grep", "-nE", "data_dir|memory_db", subject.folder.config_path)
    return fault(f"{sentence}{where}", command("unset", *variables) if variables else look)


def _process(subject: Subject) -> Iterator[Said]:
    if subject.status is not None:
        return
    if subject.trouble is not None and subject.trouble.code in UNAUTHENTICATED:
        return  # said of the token
    if subject.pid is not None and is_stopped(subject.pid):
        yield fault(f"process {subject.pid} is the node, and somebody has stopped it", f"kill -CONT {subject.pid}")
    elif is_starting(subject.path):
        yield warning("the node is starting; what is typed next waits for it", subject.operator("status"))
    elif subject.pid is not None:
        why = subject.trouble.message if subject.trouble is not None else "nothing listens for its owner"
        sentence = f"process {subject.pid} holds the node's store and does not answer: {why}"
        if not _socket_is_gone(subject):  # said of that
            yield fault(sentence, restarted(subject))
    else:
        died = subject.config.node.data_dir / LAST_WORDS
        why = last_refusal(subject.path)
        if died.is_file() and died.stat().st_size > 0:
            why = f"its last process died, and {died} says where"
        elif why:
            why = f"its last start was refused: {why}"
        yield fault("the node does not run" + (f"; {why}" if why else ""), started(subject))


def _socket(subject: Subject) -> Iterator[Said]:
    path = admin_socket(subject.config)
    if path is None:
        yield not_applicable("administration is by a loopback port")
        return
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except NotADirectoryError:
        return  # said of the store
    except FileNotFoundError:
        if _socket_is_gone(subject):
            sentence = f"process {subject.pid} is the node, and its owner's socket {path} is gone: was it deleted?"
            yield fault(sentence, restarted(subject))
        return
    if not stat.S_ISSOCK(mode):
        yield fault(f"{path} is there and is no socket", command("mv", path, f"{path}.old"))
    elif subject.status is None and _nobody_listens(path):
        yield warning(f"{path} was left by a process that died; the next start takes it away", started(subject))


def _socket_is_gone(subject: Subject) -> bool:
    """A process that begins has none yet; the node listens on its own still, though nobody finds it any more."""
    path = admin_socket(subject.config)
    return path is not None and subject.pid is not None and not path.exists() and listens_at_a_path(subject.pid)


def _nobody_listens(path: Path) -> bool:
    with unix_socket() as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.path.relpath(path) if len(os.fspath(path)) > 100 else os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _token(subject: Subject) -> Iterator[Said]:
    if admin_socket(subject.config) is not None:
        yield not_applicable("administration is by a unix socket")
    elif subject.trouble is not None and subject.trouble.code in UNAUTHENTICATED:
        yield fault(
            f"the node that runs does not take the token in {subject.config.node.data_dir}: {subject.trouble.message}",
            restarted(subject),
        )


CHECKS = (
    Check("config", "offgrid.toml, .env and OFFGRID_* names are in order", _config, Needs.NOTHING),
    Check("keys", "the key files are there, whole, and nobody else's", _keys),
    Check("store", "the store is there, and this node's", _store),
    Check("process", "the node runs and answers", _process),
    Check("socket", "the owner's socket is the running node's", _socket),
    Check("token", "the running node takes the token of its folder", _token),
)
