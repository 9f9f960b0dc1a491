"""The tree of commands: names and one line each. What they do is in the modules that the table names."""

from __future__ import annotations

import os
import sys

import click

from offgrid.command_line import exits
from offgrid.command_line.groups import Entry, LazyGroup, Program
from offgrid_tools.cli.settings import common_options

PROGRAM = Program("offgrid", "offgrid_tools.cli", "examples", "_OFFGRID_COMPLETE", "completing")
DIST = "offgrid_node-"

HELP = """Look after one node and, through it, its mesh.

The node is found in ./data, by ./offgrid.toml or in ~/.offgrid/data, unless a context is in force, or --socket,
--node-dir or --context say where.
"""


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"offgrid {_installed_version()}")
        ctx.exit()


def _installed_version() -> str:
    """From the name of the installed metadata's folder (PEP 376); importlib.metadata would take 40 ms to say it."""
    for place in sys.path:
        try:
            names = os.listdir(place or ".")
        except OSError:
            continue
        for name in names:
            if name.startswith(DIST) and name.endswith(".dist-info"):
                return name[len(DIST) : -len(".dist-info")]
    return "unknown (not installed)"


ROOT = LazyGroup(
    PROGRAM,
    PROGRAM.name,
    {
        "status": Entry("mesh:status", "Show what this node is and how it does."),
        "smoke": Entry("smoke:smoke", "Try everything once on the running mesh, and say what works."),
        "peers": Entry("mesh:peers", "Show the members of the mesh and how alive they seem."),
        "ping": Entry("links:ping", "Measure how long a member takes to answer, over any road."),
        "trace": Entry("links:trace", "Show which way calls to a member take."),
        "link": Entry("root:LINK", "Show this node's packet links, and who uses their time."),
        "mesh": Entry("root:MESH", "Invite, remove and list members, and replace the mesh's root key."),
        "mission": Entry("root:MISSION", "Create, list, show and update missions."),
        "task": Entry("root:TASK", "Create, list and show tasks."),
        "job": Entry("root:JOB", "Run, submit, follow, cancel, explain and list jobs."),
        "host": Entry("root:HOST", "Show, toggle and drain this host."),
        "schedule": Entry("root:SCHEDULE", "Add, list, pause, resume and remove schedules of jobs."),
        "market": Entry("market:market", "Show the standing offers in this node's book."),
        "transfer": Entry("transfer:transfer", "Pay somebody."),
        "settle": Entry("settle:settle", "Post what others promise this node for its work."),
        "settle-rewards": Entry("ledger_epochs:settle_rewards", "Show what witnesses got for an epoch."),
        "balance": Entry("accounts:balance", "Show what an account holds."),
        "history": Entry("accounts:history", "List transactions, newest first."),
        "bookings": Entry("accounts:bookings", "List what this node's jobs cost."),
        "wallet": Entry("root:WALLET", "Show this node's accounts, and say what it accepts before it is final."),
        "tx": Entry("root:TX", "Make, sign, send and show transactions, and end what hangs."),
        "ledger": Entry("root:LEDGER", "Open the ledger and see how it does."),
        "doctor": Entry("doctor:doctor", "Say what is the matter with this node, and what to type next."),
        "debug": Entry("root:DEBUG", "Gather what a helper wants to see."),
        "page": Entry("page:page", "Print a link to this node's web page, signed in."),
        "metrics": Entry("metrics:metrics", "Print what the node counts of itself, as Prometheus reads it."),
        "put": Entry("putting:put", "Store a file sealed in the mesh."),
        "get": Entry("getting:get", "Read an object back."),
        "ls": Entry("objects:ls", "List this node's own objects."),
        "share": Entry("sharing:share", "Let another member read an object."),
        "unshare": Entry("sharing:unshare", "Tell a reader of an object no more."),
        "keys": Entry("root:KEYS", "Show and rotate the keys of this node's data."),
        "rm": Entry("removing:rm", "Delete objects, for good."),
        "info": Entry("objects:info", "Show one object, and which hosts acked it."),
        "audit": Entry("auditing:audit", "Ask an object's hosts to show that they have it."),
        "scrub": Entry("scrubbing:scrub", "Read what is kept here for others, now, and find what is damaged."),
        "outbox": Entry("objects:outbox", "Show what is on its way to its hosts."),
        "placement": Entry("root:PLACEMENT", "Explain why objects lie where they do."),
        "quorum": Entry("root:QUORUM", "Create, ack, show and list quorums."),
        "mail": Entry("root:MAIL", "Send messages and jobs to members that are away; read what came."),
        "events": Entry("events:events", "List or follow what the journal says happened."),
        "state": Entry("root:STATE", "Look after sessions, kinds of events, and backups of the store."),
        "memory": Entry("root:MEMORY", "Ask what the node remembers of events, also of those gone."),
        "context": Entry("root:CONTEXT", "Give nodes names, and choose which one commands talk to."),
        "schema": Entry("schema:schema", "Print the JSON Schema of what a command prints with --json."),
        "completion": Entry("completing:completion", "Print what makes a shell complete commands."),
        "sim": Entry("sim:sim", "Replay one seed of the simulator."),
    },
    HELP,
    [
        *common_options(),
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version,
                     help="Show the version and exit."),
    ],
)  # fmt: skip
ROOT.epilog = exits.epilogue()

MESH = LazyGroup(
    PROGRAM,
    "mesh",
    {
        "invite": Entry("mesh:invite", "Print a token that lets one new node join."),
        "invites": Entry("invites:invites", "List the invites of this node, and whom each let in."),
        "revoke": Entry("invites:revoke", "Take invites back that nobody has used."),
        "members": Entry("mesh:members", "Show who belongs to the mesh, and who was removed."),
        "remove": Entry("mesh:remove", "Revoke a membership."),
        "rotate": Entry("mesh:rotate", "Give the mesh another root key."),
    },
    "Invite, remove and list members, and replace the mesh's root key.",
    common_options(),
)
DEBUG = LazyGroup(
    PROGRAM,
    "debug",
    {"bundle": Entry("debug:bundle", "Gather what a helper wants to see into a zip file, without secrets.")},
    "Gather what a helper wants to see.",
    common_options(),
)
LINK = LazyGroup(
    PROGRAM,
    "link",
    {
        "list": Entry("links:list_links", "List this node's packet links, and what each tells of itself."),
        "airtime": Entry("links:airtime", "Show who has used how much of each link's time, and what is left."),
    },
    "Show this node's packet links, and who uses their time.",
    common_options(),
)
KEYS = LazyGroup(
    PROGRAM,
    "keys",
    {
        "show": Entry("data_keys:show", "Show which data key is in use, and which objects are not there yet."),
        "rotate": Entry("data_keys:rotate", "Begin a new data key: wraps are rewritten, no object moves."),
        "reencrypt": Entry(
            "data_keys:reencrypt", "Have what is older than the data key sealed anew, object by object."
        ),
    },
    "Show and rotate the keys of this node's data.",
    common_options(),
)
STATE = LazyGroup(
    PROGRAM,
    "state",
    {
        "sessions": Entry("sessions:sessions", "List sessions."),
        "show": Entry("sessions:show", "Show what a session's events come to, now or as it was."),
        "records": Entry("sessions:records", "List what was recorded in a session."),
        "watch": Entry("sessions:watch", "Follow a session: its state, then each event."),
        "snapshot": Entry("sessions:snapshot", "Keep what a session's events come to."),
        "kinds": Entry("session_kinds:kinds", "List the kinds of events that this node knows."),
        "register-kind": Entry("session_kinds:register_kind", "Let events of another kind be recorded."),
        "purge": Entry("sessions:purge", "Shred what sessions say, for good."),
        "retention": Entry("retention:retention", "Show how much may be kept, how much is, and what has gone."),
        "pin": Entry("retention:pin", "Keep all that a session said, whatever has to go."),
        "export": Entry("porting:export_", "Write a session to a file."),
        "import": Entry("porting:import_", "Take a session in from a file."),
        "replay": Entry("replaying:replay", "Fold a session anew, and compare."),
        "validate": Entry("replaying:validate", "Hold events against their kinds' schemas."),
        "backup": Entry("backups:backup", "Write the node's store into a file, while it serves."),
        "backups": Entry("backups:backups", "List those that the node makes by itself."),
        "verify-backup": Entry("backups:verify_backup", "Check every byte of a backup; no node is needed."),
        "restore": Entry("restoring:restore", "Bring sessions of a backup into the node."),
        "recovery-key": Entry("recovery:recovery_key", "Make a key that opens what is sealed for it."),
        "migrate": Entry("backups:migrate", "Say whether the store is of an older version."),
        "compact": Entry("backups:compact", "Make the store's file as small as what is in it."),
    },
    "Look after sessions, kinds of events, and backups of the store.",
    common_options(),
)
MEMORY = LazyGroup(
    PROGRAM,
    "memory",
    {
        "ask": Entry("memory:ask", "Ask whether a key was seen, or how many events of a type there were."),
        "windows": Entry("memory:windows", "List summaries: what is left of events when they are gone."),
    },
    "Ask what the node remembers of events, also of those gone.",
    common_options(),
)
MISSION = LazyGroup(
    PROGRAM,
    "mission",
    {
        "create": Entry("missions:create", "Create a mission."),
        "list": Entry("missions:list_", "List missions."),
        "show": Entry("missions:show", "Show one mission."),
        "update": Entry("missions:update", "Change a mission, or complete it."),
    },
    "Create, list, show and update missions.",
    common_options(),
)
TASK = LazyGroup(
    PROGRAM,
    "task",
    {
        "create": Entry("tasks:create", "Create a task of a mission."),
        "list": Entry("tasks:list_", "List tasks."),
        "show": Entry("tasks:show", "Show one task."),
    },
    "Create, list and show tasks.",
    common_options(),
)
JOB = LazyGroup(
    PROGRAM,
    "job",
    {
        "run": Entry("job_run:run", "Run a file through the mesh and wait for the result."),
        "submit": Entry("job_run:submit", "Submit the same without waiting."),
        "array": Entry("job_array:array", "Run a program on many files, or on each line of one."),
        "create": Entry("job_run:create", "Create a job without sending it."),
        "dispatch": Entry("jobs:dispatch", "Send a created job to the mesh or the local queue."),
        "watch": Entry("jobs:watch", "Follow a job until it ends."),
        "logs": Entry("job_control:logs", "Show what a job says while it runs."),
        "cancel": Entry("job_control:cancel", "Cancel jobs, or all of a task."),
        "why": Entry("job_control:why", "Explain why a job is where it is, host by host."),
        "top": Entry("job_top:top", "Watch running jobs, hosts and rates, live."),
        "list": Entry("jobs:list_", "List jobs."),
        "show": Entry("jobs:show", "Show one job with its result and receipt."),
        "receipt": Entry("receipts:receipt", "Write a job's receipt as a file that stands alone."),
        "verify-receipt": Entry("receipts:verify", "Check such a file, without any node."),
    },
    "Run, submit, follow, cancel, explain and list jobs.",
    common_options(),
)
HOST = LazyGroup(
    PROGRAM,
    "host",
    {
        "show": Entry("hosts:show", "Show what this host has and offers, and what it is at."),
        "toggle": Entry("hosts:toggle", "Take work, or take no more."),
        "drain": Entry("hosts:drain", "Drain this host, and wait until it is idle."),
        "drop": Entry("hosts:drop", "Drop what is kept for an owner who was removed."),
    },
    "Show, toggle and drain this host.",
    common_options(),
)
SCHEDULE = LazyGroup(
    PROGRAM,
    "schedule",
    {
        "add": Entry("schedules:add", "Add a schedule: a job at every time that a cron expression names."),
        "list": Entry("schedules:list_", "List schedules."),
        "pause": Entry("schedules:pause", "Pause a schedule."),
        "resume": Entry("schedules:resume", "Resume a schedule."),
        "rm": Entry("schedules:rm", "Remove a schedule."),
    },
    "Add, list, pause, resume and remove schedules of jobs.",
    common_options(),
)
PLACEMENT = LazyGroup(
    PROGRAM,
    "placement",
    {"explain": Entry("placement:explain", "Show what every host holds of an object, or would get, and why.")},
    "Explain why objects lie where they do.",
    common_options(),
)
MAIL = LazyGroup(
    PROGRAM,
    "mail",
    {
        "send": Entry("mail:send", "Send a message to the people at another node."),
        "job": Entry("mail:job", "Have another core run a job, whether it is up or not."),
        "sent": Entry("mail:sent", "List what this node has sent, the newest first."),
        "show": Entry("mail:show", "Show what came of what this node has sent; of a job, its result."),
        "inbox": Entry("mail:inbox", "List messages that others have sent to this node."),
        "read": Entry("mail:read", "Read a message."),
        "rm": Entry("mail:rm", "Delete messages."),
        "held": Entry("mail:held", "List what this node holds for others until they come by."),
    },
    "Send messages and jobs to members that are away; read what came.",
    common_options(),
)
CONTEXT = LazyGroup(
    PROGRAM,
    "context",
    {
        "add": Entry("context_commands:add", "Give a node a name."),
        "use": Entry("context_commands:use", "Have commands talk to the node of a name."),
        "ls": Entry("context_commands:ls", "List the names, and which one is in force."),
        "rm": Entry("context_commands:rm", "Forget a name."),
    },
    "Give nodes names, and choose which one commands talk to.",
    common_options(),
)
QUORUM = LazyGroup(
    PROGRAM,
    "quorum",
    {
        "create": Entry("quorum:create", "Create a quorum that this node owns."),
        "ack": Entry("quorum:ack", "Ask a member for its signed ack."),
        "status": Entry("quorum:status", "Show who counts, who acked, and whether that is enough."),
        "list": Entry("quorum:list_", "List quorums."),
    },
    "Create, ack, show and list quorums.",
    common_options(),
)
TX = LazyGroup(
    PROGRAM,
    "tx",
    {
        "create": Entry("by_hand:create", "Make an unsigned transaction, as a file."),
        "sign": Entry("by_hand:sign", "Sign such a file, by this node or with a key file."),
        "send": Entry("by_hand:send", "Send a signed one on its way."),
        "finalize": Entry("by_hand:finalize", "Wait until a transaction is final or void."),
        "list": Entry("accounts:list_", "List transactions, or those that are not final yet."),
        "show": Entry("transfer:show", "Show one transaction."),
        "unlock": Entry("transfer:unlock", "End what this node's account has under way."),
        "receipt": Entry("ledger_receipts:receipt", "Gather a light receipt: witnesses' signatures that it is final."),
        "verify-receipt": Entry("ledger_receipts:verify", "Check such a receipt, without any node."),
    },
    "Make, sign, send, list and show transactions, and end what hangs.",
    common_options(),
)
WALLET = LazyGroup(
    PROGRAM,
    "wallet",
    {
        "list": Entry("wallet:list_", "List this node's accounts, what each holds, and what is in flight."),
        "create-lane": Entry(
            "wallet:create_lane", "Open further accounts of this node's, and pay something into them."
        ),
        "credit": Entry("wallet:credit", "Show or set how much of a payer's word counts before it is final."),
    },
    "Show this node's accounts, and say what it accepts before it is final.",
    common_options(),
)
LEDGER = LazyGroup(
    PROGRAM,
    "ledger",
    {
        "open": Entry("ledger:open_", "Open the mesh's ledger, once."),
        "status": Entry("ledger:status", "Show whether it is open, who witnesses, what is under way."),
        "dag": Entry("ledger_dag:dag", "Show its blocks and what each leans on; --svg draws them."),
        "witnesses": Entry("ledger_epochs:witnesses", "Show who witnesses, and order who is to."),
        "checkpoint": Entry("ledger_epochs:checkpoint", "Have the epoch end now, with a checkpoint."),
        "epochs": Entry("ledger_epochs:epochs", "List the epochs that have ended, and their checkpoints."),
        "verify": Entry("ledger_verify:verify", "Work the ledger out anew from its genesis, and compare."),
        "genesis": Entry("ledger_receipts:genesis", "Write the papers by which light receipts are checked."),
    },
    "Open the ledger and see how it does.",
    common_options(),
)
