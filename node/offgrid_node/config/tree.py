"""The configuration as one frozen tree of validated values: every section, key, default and bound stands here, those
of `[storage]`, `[gateway]`, `[health]`, `[links]` and `[mail]` in files of their names.

Loading (`loading.py`), the environment's names (`env.py`) and the template (`init_file.py`) read their knowledge of the
keys off these classes. Sizes and times carry their unit in the name or the description.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic.fields import FieldInfo

from . import fields as f
from .addresses import admin_socket, split_address
from .fields import Allowed
from .gateway import TOKEN_RULE, Gateway
from .health import Health
from .http_ports import AUTO, OFF, is_loopback
from .links import Links
from .mail import Mail
from .sections import YEAR_S, Section, section_of
from .storage import Storage

_DAY_MS = 86_400_000
_MONEY_MAX = 10**15


class Node(Section):
    """This node."""

    name: f.Name = Field(default_factory=f.host_name, description="what people call this node")
    data_dir: f.FilePath = Field(default=Path("data"), description="folder of the store, the keys and the local socket")
    roles: f.Roles = Field(default=("core", "broker", "host"), description="what this node does in the mesh")
    log_level: f.Level = Field(default="info", description="the least severe message that is logged")
    log_format: f.LogFormat = Field(
        default="auto", description="of the log: text, with priorities where journald reads it; or JSON lines"
    )


class Mesh(Section):
    """The mesh and how this node reaches it."""

    name: f.Name = Field(description="the mesh that this node belongs to")
    listen: f.Listen = Field(default="0.0.0.0:7440", description="where members reach this node (mutual TLS)")
    door: f.Door = Field(default="0.0.0.0:7441", description="where newcomers knock with an invite")
    advertise: f.Addresses = Field(default=(), description="addresses told to peers; empty: found by itself")
    peers: f.Addresses = Field(default=(), description="members to try at start")
    mdns: bool = Field(default=True, description="announce this node and look for others in the local network")
    hosts_file: f.FilePath = Field(
        default=Path("discovery/mesh_hosts.json"), description="a registry of hosts, if it is there"
    )
    framed_port: int = Field(
        default=0,
        ge=-1,
        le=65_535,
        description="beside mesh.listen: where members find the quicker carrier for small calls; 0: any port, told to "
        "members; -1: none. Where it cannot be reached all goes by mesh.listen",
    )
    probe_interval_ms: int = Field(
        default=1000, ge=100, le=60_000, description="how often a peer is probed, in milliseconds"
    )


class Admin(Section):
    """Local administration."""

    address: f.Admin = Field(
        default="",
        description="empty: the unix socket offgrid.sock in data_dir (on Windows: loopback with a token file)",
    )


class Metrics(Section):
    """What the node counts of itself, for Prometheus."""

    listen: f.OptionalListen = Field(
        default="",
        description="where GET /metrics is answered over plain HTTP, to whoever asks; 127.0.0.1:9464 keeps it to this "
        "machine",
    )
    hosts: f.Hosts = Field(
        default=(), description="names by which it is asked, beyond addresses and localhost, as a guard for browsers"
    )


class Jobs(Section):
    """Jobs that start here."""

    mode: f.Mode = Field(
        default="auto",
        description="auto: the mesh, else the local queue; offgrid: the mesh only; disabled: the queue only",
    )
    timeout_ms: int = Field(
        default=30_000, ge=100, le=_DAY_MS, description="a job's time to run unless it says otherwise, in milliseconds"
    )
    queue_max: int = Field(default=100_000, ge=1, le=10_000_000, description="jobs that may wait; more are refused")
    price_max_micro: int = Field(
        default=10_000,
        ge=0,
        le=_MONEY_MAX,
        description="the most that is paid for a million tokens of a job's size, in millionths of a credit, and what "
        "is paid where one host only can do it: set it to what the work is worth; hosts that ask more are passed over",
    )
    drop_dir: f.OptionalPath = Field(
        default="",
        description="drop folder, once called webrelay_out: jobs of the local queue that this node cannot run itself "
        "lie there as <job id>.job.json until somebody puts <job id>.result.json beside it",
    )
    drop_all: bool = Field(default=False, description="let all jobs of the local queue go to the drop folder")
    broker_url: f.OptionalUrl = Field(
        default="",
        description="URL of a broker's gateway: that broker is asked first, the others where it does not answer",
    )


class Wasm(Section):
    """The WebAssembly executor."""

    enabled: bool = Field(default=True, description="run jobs that are WebAssembly modules")
    memory_mb: int = Field(default=256, ge=1, le=4096, description="memory of one module, in MiB")


CPU_PERCENT = "processor time of one job, in percent of one; 0 = all. Needs control groups of the node's own (Linux)"


class Process(Section):
    """The subprocess executor."""

    commands: f.Commands = Field(
        default_factory=dict,
        description='programs that jobs may run, by name: { wc = "/usr/bin/wc" }; empty: none',
    )
    sandbox: f.Isolation = Field(
        default="auto",
        description='what holds them: "bwrap" = bubblewrap, else none is run; "rlimits" = limits, for programs that '
        'are trusted; "auto" = bubblewrap where it works',
    )
    readable: f.Paths = Field(
        default=(), description='what they may read in the sandbox besides the system: ["/opt/tools"]'
    )
    memory_mb: int = Field(default=1024, ge=16, le=2**24, description="memory of one job's programs, in MiB")
    cpu_percent: int = Field(default=0, ge=0, le=102_400, description=CPU_PERCENT)


class Python(Section):
    """The executor of Python functions. Off unless you allow it: a job then brings code of its owner's. Behind
    bubblewrap that code sees Python, its packages and a folder of its own, and no network; without it, it can read and
    do on this machine whatever the node's own user can."""

    enabled: bool = Field(
        default=False, description="run functions that jobs bring: any code of the members whose jobs are taken"
    )
    sandbox: f.Isolation = Field(
        default="auto",
        description='what holds them: "bwrap" = bubblewrap, else none is run; "rlimits" = limits only, for members '
        'whom you trust with this machine; "auto" = bubblewrap where it works',
    )
    readable: f.Paths = Field(
        default=(), description='what they may read in the sandbox besides Python: ["/srv/texts"]'
    )
    memory_mb: int = Field(
        default=1024, ge=128, le=2**20, description="address space of one process that calls them, in MiB"
    )
    cpu_percent: int = Field(default=0, ge=0, le=102_400, description=CPU_PERCENT)


class Llm(Section):
    """Language models, behind an endpoint that speaks OpenAI's API: Ollama, llama.cpp's server, vLLM, …"""

    endpoint: f.OptionalUrl = Field(
        default="", description="where it is, such as http://127.0.0.1:11434/v1; jobs of kind llm_call are taken then"
    )
    models: f.Models = Field(default=(), description="those that are offered; empty: all that the endpoint lists")
    slots: int = Field(default=1, ge=1, le=1024, description="requests that it gets at once; the others wait")
    api_key: f.Secret = Field(
        default=SecretStr(""), description="its key, if it wants one; better set by OFFGRID_HOST__LLM__API_KEY"
    )


class Dask(Section):
    """Functions on a Dask cluster of yours. A job then brings code of its owner's, which runs on this machine and on
    the cluster. It needs the package distributed: pip install offgrid-node[dask]."""

    scheduler: f.Scheduler = Field(default="", description="of the cluster, such as tcp://127.0.0.1:8786")
    memory_mb: int = Field(
        default=4096, ge=512, le=2**20, description="address space of one job's driver on this machine, in MiB"
    )


def _cpus() -> int:
    return min(os.cpu_count() or 1, 1024)


class HostRule(Section):
    """Whose jobs a host takes, which, when, how many, and for how much."""

    name: f.Word = Field(description="what refusals call it")
    owners: f.Owners = Field(default=("*",), description="whose jobs")
    executors: f.Executors = Field(default=("*",), description="which")
    price_micro: int = Field(
        default=-1, ge=-1, le=_MONEY_MAX, description="price of a million tokens; -1: host.price_micro"
    )
    slots: int = Field(default=0, ge=0, le=1024, description="at a time, of all its owners; 0: host.slots")
    hours: f.Hours = Field(default="", description="when; it may go past midnight")
    tokens_per_day: int = Field(default=0, ge=0, le=2**60, description="of each owner, by local days; 0: no quota")
    jobs_per_day: int = Field(default=0, ge=0, le=10**9, description="of each owner, by local days; 0: no quota")
    deny: bool = Field(default=False, description="take none of these, whatever later rules say")


def _distinct_names(rules: tuple[HostRule, ...]) -> tuple[HostRule, ...]:
    names = [rule.name for rule in rules]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise f.wrong(f"has two rules called {name!r}")
    return rules


class Host(Section):
    """Work for others (role "host")."""

    slots: int = Field(default_factory=_cpus, ge=1, le=1024, description="jobs at a time")
    price_micro: int = Field(
        default=1000,
        ge=0,
        le=_MONEY_MAX,
        description="price of a million tokens of a job's size, rounded up, in millionths of a credit",
    )
    kinds: f.Words = Field(default=("compute",), description="kinds of job that are taken")
    labels: f.Labels = Field(
        default_factory=dict,
        description='told to brokers, for jobs that require them: { room = "attic" }',
    )
    memory_mb: int = Field(
        default=0, ge=0, le=2**30, description="memory told to brokers, in MiB; 0: what the machine has"
    )
    cpus: int = Field(default=0, ge=0, le=65_536, description="processors told to brokers; 0: what the machine has")
    gpus: f.Gpus = Field(default=("auto",), description="graphics cards told to brokers")
    rules: Annotated[
        tuple[HostRule, ...],
        Field(max_length=f.MAP_MAX),
        BeforeValidator(f.as_tuple),
        AfterValidator(_distinct_names),
        Allowed("tables [[host.rules]]"),
    ] = Field(
        default=(),
        description="whose jobs are taken: each a table [[host.rules]] of name, owners, executors, price_micro, slots, "
        "hours, tokens_per_day, jobs_per_day, deny; the first that takes a job has it, what none takes is refused; "
        "none: everybody's, at price_micro",
    )
    wasm: Wasm = Field(default_factory=Wasm)
    process: Process = Field(default_factory=Process)
    python: Python = Field(default_factory=Python)
    llm: Llm = Field(default_factory=Llm)
    dask: Dask = Field(default_factory=Dask)


class Economy(Section):
    """Accounts and payment."""

    enabled: bool = Field(
        default=True, description="take part in the mesh's ledger, once an admin has opened it, and pay for jobs"
    )
    settlement_interval: int = Field(
        default=3600,
        ge=1,
        le=YEAR_S,
        description="seconds between settlements, at each full one by the clock: what others promise is posted",
    )
    epoch: int = Field(
        default=86_400,
        ge=60,
        le=YEAR_S,
        description="seconds until a witness wishes an epoch of the ledger to end with a checkpoint",
    )
    keep: int = Field(
        default=30, ge=1, le=36_500, description="days for which transactions are kept after they are final"
    )


class State(Section):
    """Sessions of applications, and what is kept of them."""

    store_raw_content: bool = Field(
        default=False, description="record what people and models said as it is, and not its hash"
    )
    export_includes_content: bool = Field(
        default=False, description="exports have it as it was recorded, unless they are asked for otherwise"
    )
    audit_mode: bool = Field(default=False, description="the journal tells who reads sessions, and how much of them")
    backup_interval: int = Field(
        default=3_600,
        ge=0,
        le=YEAR_S,
        description="seconds between backups of the store, if anything happened; 0: none",
    )
    backup_dir: f.OptionalPath = Field(
        default="", description="where they lie, better on another disk; empty: backups in data_dir"
    )
    backup_limit_mb: int = Field(
        default=4_096, ge=1, le=2**30, description="what all of them may take, in MiB; the newest stays in any case"
    )
    vacuum_interval: int = Field(
        default=86_400,
        ge=0,
        le=YEAR_S,
        description="seconds until the store's file is made small if a quarter of it is free; 0: never",
    )
    recovery_key: f.RecoveryKey = Field(
        default="",
        description="for which the keys of sessions are sealed, beside the backups, so that whoever has its secret can "
        "read those; offgrid state recovery-key makes one; empty: nobody can",
    )
    auto_purge_sessions_days: int = Field(
        default=0, ge=0, le=36_500, description="sessions that ended so long ago are shredded; 0: none is by itself"
    )
    sql_mirror: f.SqlMirror = Field(
        default=SecretStr(""),
        description="a MariaDB or MySQL server on this machine that gets a copy of the journal",
    )
    cleanup_old_events_days: int = Field(
        default=90, ge=0, le=36_500, description="events older than that go, once hosts have them; 0: for no age"
    )


_IN_DATA_DIR = {"memory_db": "memory.db", "chunk_dir": "chunks", "summary_dir": "summaries"}


class Config(Section):
    """The whole tree; all paths are absolute. Two of them may live in one process."""

    node: Node
    mesh: Mesh
    admin: Admin
    gateway: Gateway
    metrics: Metrics
    jobs: Jobs
    host: Host
    storage: Storage
    economy: Economy
    state: State
    health: Health
    links: Links
    mail: Mail

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        """Gives every section a table, so that a missing key is named, and the stores their place in data_dir."""
        if not isinstance(data, Mapping):
            return data
        filled = {name: {} for name in cls.model_fields} | dict(data)
        data_dir = filled["node"].get("data_dir") if isinstance(filled["node"], Mapping) else None
        if isinstance(data_dir, str) and not f.path_fault(data_dir) and isinstance(filled["storage"], Mapping):
            places = {key: f"{data_dir}/{name}" for key, name in _IN_DATA_DIR.items()}
            filled["storage"] = places | dict(filled["storage"])
        return filled


Keys = tuple[str, ...]


def settings(section: type[BaseModel] = Config, above: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    """Every key that is no table of its own, in the order of the file: ("mesh", "listen"), ("host", "wasm", …)…"""
    for name, info in section.model_fields.items():
        if inner := section_of(info):
            yield from settings(inner, (*above, name))
        else:
            yield (*above, name), info


def is_reserved(info: FieldInfo) -> bool:
    """Whether nothing reads the key yet."""
    extra = info.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("reserved"))


def clashes(config: Config) -> Iterator[tuple[Keys, str, str]]:
    """Values that are right alone but not together: path, what is wrong, what is allowed."""
    listen, door = config.mesh.listen, config.mesh.door
    if listen == door and not door.endswith(":0"):
        yield ("mesh", "door"), "is the same address as mesh.listen", 'another port, or "" = closed'
    taken = {listen: "mesh.listen", door: "mesh.door"}
    gateway, metrics = config.gateway.listen, config.metrics.listen
    for path, address, none in ((("gateway", "listen"), gateway, OFF), (("metrics", "listen"), metrics, "")):
        if address in taken and address != none and not address.endswith(":0"):
            yield path, f"is the same address as {taken[address]}", f'another port, or "{none}" = off'
        taken[address] = ".".join(path)
    if gateway not in (AUTO, OFF) and not config.gateway.token.get_secret_value():
        host, _ = split_address(gateway, port_min=0)
        if not is_loopback(host):
            yield (
                ("gateway", "token"),
                f"is not set, and gateway.listen is {gateway}, which other machines can reach",
                f"{TOKEN_RULE.partition(';')[0]}; or 127.0.0.1 as the address",
            )
    socket = admin_socket(config)
    if socket and not config.admin.address and len(os.fsencode(socket)) > f.UNIX_PATH_BYTES_MAX:
        size = len(os.fsencode(socket))
        yield (
            ("node", "data_dir"),
            f"makes the local socket's path {size} bytes long, at most {f.UNIX_PATH_BYTES_MAX} fit",
            "a shorter path, or a shorter admin.address",
        )
