"""What a node's config and capabilities tell the jobs machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.pace import Paces, all_free

RETRY_DELAYS_MS = (2_000, 4_000, 8_000)  # promised to users: three retries, then NoHostsAvailable
TIMEOUT_MS = 30_000  # promised to users: JobTimeout, unless the job says otherwise
DROP_REST, DROP_ALL = "rest", "all"  # those that this node cannot run itself, or all of them


ANYBODY = "*"  # an owner, or an executor, in a rule


class Rule(msgspec.Struct, frozen=True):
    """What a host does for whom, see `rules.py`. `owners` are members' names or ids, `executors` labels, or beginnings
    of labels before a "*". `slots` 0: the host's; a quota of 0: none. `hours` are minutes of the day, from and to."""

    name: str
    owners: tuple[str, ...] = (ANYBODY,)
    executors: tuple[str, ...] = (ANYBODY,)
    price_micro: int = 0
    slots: int = 0
    hours: tuple[int, ...] = ()
    tokens_per_day: int = 0
    jobs_per_day: int = 0
    deny: bool = False


class JobsSettings(msgspec.Struct, frozen=True):
    """`salt` is the mesh's; prices are per million tokens. `executors` are the labels that this node's executors offer
    now: they change while it runs, as models come and go, so they are read each time and never kept."""

    signer: Signer
    salt: bytes
    mode: jobs_pb2.DispatchMode.ValueType = jobs_pb2.DISPATCH_MODE_AUTO
    queue_max: int = 100_000
    price_max_micro: int = 10_000_000  # that this node pays; price_micro is what it takes
    slots: int = 1
    price_micro: int = 1_000
    executors: Sequence[str] = ()
    kinds: tuple[str, ...] = ("compute",)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    drop: str = ""  # which jobs of the local queue go to the drop folder: DROP_REST, DROP_ALL or none
    # What this machine has, for requirements to be matched against; what the node itself knows is filled in later.
    profile: jobs_pb2.HostProfile = msgspec.field(default_factory=jobs_pb2.HostProfile)

    rules: tuple[Rule, ...] = ()
    utc_offset_s: Callable[[int], int] = lambda utc_s: 0  # of the machine's local time, at an instant
    paces: Paces = all_free

    @property
    def node_id(self) -> str:
        return self.signer.node_id
