"""`offgrid-node admin`: the mesh's root names another admin, or names one no more, on a machine of a member that stands
still. Members hear of it as of every other record, once that node runs again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from offgrid_node.folder import Folder, open_store
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.records import MemberRecord
from offgrid_node.rotating import check_root, commit_unnoted, directory_in, rows_of
from offgrid_node.rotating_root import load_root


def name_admin(path: Path, node: str, root: NodeKey | None = None) -> tuple[MemberRecord, bool]:
    """The member `node` (its name, its id, or the id's first characters) is an admin then; the record that stands, and
    whether it is new.

    Raises NotFound (NoSuchNode), FailedPrecondition (NotTheRoot, NoRootKey, RootRotating), what `open_store` raises
    when the node runs, and what the key files raise.
    """
    return _changed(path, node, root, _named)


def dismiss_admin(path: Path, node: str, root: NodeKey | None = None) -> tuple[MemberRecord, bool]:
    """Likewise, an admin no more; it stays a member, and so does whom it admitted, by the root's name from now on.

    Raises FailedPrecondition (LastAdmin) also, for a mesh without one could let nobody in.
    """
    return _changed(path, node, root, _dismissed)


def _changed(
    path: Path, node: str, root: NodeKey | None, change: Callable[[Directory, str, Signer], None]
) -> tuple[MemberRecord, bool]:
    folder = Folder(path)
    store = open_store(folder.config(), create=False)
    try:
        directory = directory_in(store)
        signer = root if root is not None else load_root(folder)
        check_root(directory, signer)
        node_id = directory.resolve(node)
        change(directory, node_id, signer)
        changed = [each.node_id for each in directory.take_changes()]
        commit_unnoted(store, rows_of(directory, changed))
    finally:
        store.close()
    return _record(directory, node_id), bool(changed)


def _named(directory: Directory, node_id: str, root: Signer) -> None:
    if not directory.is_admin(node_id):
        _issue(directory, node_id, root, admin=True)


def _dismissed(directory: Directory, node_id: str, root: Signer) -> None:
    if not directory.is_admin(node_id):
        return
    if sum(map(directory.is_admin, directory.live())) == 1:
        raise FailedPrecondition(
            "that is the mesh's last admin, and nobody else could let anybody in: name another one first, with "
            "`offgrid-node admin add`",
            reason="LastAdmin",
        )
    for other_id in directory.live():
        if _record(directory, other_id).issuer == node_id:
            _issue(directory, other_id, root)
    _issue(directory, node_id, root)


def _issue(directory: Directory, node_id: str, root: Signer, *, admin: bool = False) -> None:
    record = _record(directory, node_id).reissued("", admin=admin)
    certificate = directory.first_certificate(node_id)
    directory.accept_member(issue_member(directory.genesis, record, certificate, root))


def _record(directory: Directory, node_id: str) -> MemberRecord:
    record = directory.member(node_id)
    assert record is not None
    return record
