"""Keys: the node's Ed25519 key on disk, the certificates it signs, and sealing with a shared secret.

`verifying.py` checks signatures and public keys, `store.py` keeps the secret, `certificates.py` holds the identity's
one canonical form, `leaf.py` what TLS shows of it, `sealing.py` what the join door uses before there is any TLS,
`private.py` who else may use a file, `words.py` how a seed is written down.
"""

from offgrid_node.keys.certificates import check_identity_certificate, identity_certificate, tls_name_of
from offgrid_node.keys.leaf import NodeTls, fingerprint_in_leaf, fingerprint_of, is_twin, issue_leaf, pem_of
from offgrid_node.keys.private import make_private_folder, other_owner, refuse_writable, write_private
from offgrid_node.keys.sealing import open_sealed, seal
from offgrid_node.keys.store import NodeKey
from offgrid_node.keys.verifying import check_public_key, verify

__all__ = [
    "NodeKey",
    "NodeTls",
    "check_identity_certificate",
    "check_public_key",
    "fingerprint_in_leaf",
    "fingerprint_of",
    "identity_certificate",
    "is_twin",
    "issue_leaf",
    "make_private_folder",
    "open_sealed",
    "other_owner",
    "pem_of",
    "refuse_writable",
    "seal",
    "tls_name_of",
    "verify",
    "write_private",
]
