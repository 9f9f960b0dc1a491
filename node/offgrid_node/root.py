"""The tree of commands of `offgrid-node`: names and one line each. What they do is in the modules that it names."""

from __future__ import annotations

import click

from offgrid.command_line import exits
from offgrid.command_line.groups import Entry, LazyGroup, Program
from offgrid_node import __version__

PROGRAM = Program("offgrid-node", "offgrid_node", "command_examples", "_OFFGRID_NODE_COMPLETE")

HELP = """Make this machine a node of an off-grid mesh, and run it.

\b
First machine:    offgrid-node init --mesh home && offgrid-node run
Its invitation:   offgrid mesh invite
Next machine:     offgrid-node join TOKEN
Just look:        offgrid-node demo
A mesh to try:    offgrid-node up --nodes 5
What is wrong:    offgrid-node doctor
"""


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"offgrid-node {__version__}")
        ctx.exit()


ROOT = LazyGroup(
    PROGRAM,
    PROGRAM.name,
    {
        "init": Entry("joining_commands:init", "Found a mesh: a config, this node's identity, the mesh's root key."),
        "join": Entry("joining_commands:join", "Join the mesh that a token invites to, and run."),
        "run": Entry("run_command:run", "Run the node of a folder until Ctrl-C or SIGTERM."),
        "doctor": Entry("doctor_command:doctor", "Say what is the matter with this node, and what to type next."),
        "config": Entry("root:CONFIG", "Check configuration files."),
        "service": Entry("root:SERVICE", "Have this machine run the node, now and after each start."),
        "up": Entry("mesh_commands:up", "Have a whole mesh run on this machine, in the background."),
        "down": Entry("mesh_commands:down", "Stop that mesh, or some of its nodes."),
        "restart": Entry("mesh_commands:restart", "Stop that mesh, or some of its nodes, and start them again."),
        "demo": Entry("demo_command:demo", "Show everything at work: five nodes, and a host killed in mid-job."),
        "words": Entry("key_commands:words", "Show this node's key as 24 recovery words."),
        "rotate": Entry("root:ROTATE", "Replace keys of this node, while it stands still."),
        "admin": Entry("root:ADMIN", "Name the mesh's admins, by its root key, while this node stands still."),
        "restore": Entry("store_commands:restore", "Bring a node that has lost its disk back."),
        "migrate": Entry("store_commands:migrate", "Bring the store of an older version into this one's form."),
        "bundle": Entry("bundle_commands:bundle", "Make an install kit for machines without an internet."),
        "docs": Entry("docs_command:docs", "Write the documents as a site of plain pages."),
        "debug": Entry("root:DEBUG", "Gather what a helper wants to see."),
    },
    HELP,
    [
        click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version,
                     help="Show the version and exit."),
    ],
)  # fmt: skip
ROOT.epilog = exits.epilogue()

CONFIG = LazyGroup(
    PROGRAM,
    "config",
    {"check": Entry("config_command:check", "Say every problem of a file, with .env and OFFGRID_* applied.")},
    "Check configuration files.",
    [],
)
SERVICE = LazyGroup(
    PROGRAM,
    "service",
    {
        "install": Entry("service_commands:install", "Install and start the service; again after an upgrade."),
        "uninstall": Entry("service_commands:uninstall", "Stop the node and remove its service."),
        "status": Entry("service_commands:status", "Show what the service manager says of it."),
    },
    """Have this machine run the node of a folder, now and after each start.

    \b
    sudo offgrid-node service install --dir /srv/attic     from boot on
    offgrid-node service install --user                    while you are logged in
    """,
    [],
)
ROTATE = LazyGroup(
    PROGRAM,
    "rotate",
    {
        "identity": Entry("key_commands:rotate_identity", "Give this node another identity key."),
        "root": Entry("key_commands:rotate_root", "Give the mesh another root key."),
        "take": Entry("key_commands:rotate_take", "Tell this node of another's key change, or of the root's."),
    },
    "Replace keys of this node, while it stands still.",
    [],
)
ADMIN = LazyGroup(
    PROGRAM,
    "admin",
    {
        "add": Entry("admin_commands:add", "Name a member an admin, who may invite and remove members."),
        "remove": Entry("admin_commands:remove", "Take from a member that it is an admin."),
    },
    "Name the mesh's admins, by its root key, while this node stands still.",
    [],
)
DEBUG = LazyGroup(
    PROGRAM,
    "debug",
    {"bundle": Entry("debug_command:bundle", "Gather what a helper wants to see into a zip file, without secrets.")},
    "Gather what a helper wants to see.",
    [],
)
