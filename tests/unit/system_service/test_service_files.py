"""The files by which a node becomes a service, of each system's manager, and that those managers can read them."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from offgrid_node.system_service import launchd, systemd, task_scheduler
from offgrid_node.system_service.order import Order

ANALYZE = shutil.which("systemd-analyze") or ""
ATTIC = Order(
    name="offgrid-node",
    folder=Path("/srv/attic"),
    command=("/opt/og/bin/offgrid-node", "run", "--dir", "/srv/attic"),
    account="ada",
    home=Path("/home/ada"),
    user=False,
)
ODD = replace(
    ATTIC, folder=Path('/srv/50% of "it"'), command=("/opt/o g/offgrid-node", "run", "--dir", '/srv/50% of "it"')
)


def lines_of(order: Order) -> list[str]:
    return systemd.plan(order).content.decode().splitlines()


def test_a_system_unit_runs_as_the_folders_owner_and_writes_there_only() -> None:
    plan = systemd.plan(replace(ATTIC, writable=(Path("/mnt/disk/chunks"),)))
    assert plan.path == Path("/etc/systemd/system/offgrid-node.service")
    assert {
        "Type=notify",
        "ExecStart=/opt/og/bin/offgrid-node run --dir /srv/attic",
        "User=ada",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/srv/attic /mnt/disk/chunks",
        "CapabilityBoundingSet=",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 3 4",
        "WantedBy=multi-user.target",
    } <= {*plan.content.decode().splitlines()}
    assert plan.start[-1] == ("systemctl", "restart", "offgrid-node.service")


def test_a_user_unit_needs_no_root() -> None:
    plan = systemd.plan(replace(ATTIC, user=True))
    lines = plan.content.decode().splitlines()
    assert plan.path == Path("/home/ada/.config/systemd/user/offgrid-node.service")
    assert all(command[:2] == ("systemctl", "--user") for command in (*plan.start, *plan.stop))
    assert not any(line.startswith(("User=", "Protect", "Capability")) for line in lines)
    assert "WantedBy=default.target" in lines
    assert any("enable-linger" in hint for hint in plan.hints)


def test_radios_get_what_opens_them() -> None:
    lines = lines_of(replace(ATTIC, groups=("dialout",), raw_bluetooth=True))
    assert "SupplementaryGroups=dialout" in lines
    assert "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW" in lines


def test_roots_own_node_keeps_its_capabilities() -> None:
    assert not any(line.startswith("CapabilityBoundingSet") for line in lines_of(replace(ATTIC, account="root")))


def test_odd_paths_stay_one_word() -> None:
    lines = lines_of(ODD)
    assert 'ExecStart="/opt/o g/offgrid-node" run --dir "/srv/50%% of \\"it\\""' in lines
    assert 'WorkingDirectory=/srv/50%% of "it"' in lines


def test_a_dollar_is_a_sign_of_command_lines_alone() -> None:
    lines = lines_of(replace(ATTIC, folder=Path("/srv/$a"), command=("offgrid-node", "/srv/$a")))
    assert "ExecStart=offgrid-node /srv/$$a" in lines
    assert any(line.startswith("ReadWritePaths=/srv/$a") for line in lines)


@pytest.mark.skipif(not ANALYZE, reason="there is no systemd here to judge its units")
@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("order", [ATTIC, ODD], ids=["plain", "odd"])
def test_systemd_reads_each_word_of_its_units(order: Order, tmp_path: Path, *, user: bool) -> None:
    program = tmp_path / "offgrid-node"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    order = replace(order, user=user, groups=("daemon",), raw_bluetooth=True, account="root" if user else "daemon")
    order = replace(order, command=(str(program), *order.command[1:]), writable=(tmp_path,))
    unit = tmp_path / "offgrid-node.service"
    unit.write_bytes(systemd.plan(order).content)
    manager = "--user" if user else "--system"
    done = subprocess.run(
        [ANALYZE, manager, "--man=no", "verify", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        env={"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )
    told = [line for line in done.stderr.splitlines() if "offgrid-node.service" in line or str(unit) in line]
    assert (done.returncode, told) == (0, []), done.stderr


def test_launchd_reads_its_plist() -> None:
    plan = launchd.plan(replace(ODD, user=True), 501)
    read = plistlib.loads(plan.content)
    assert plan.path == Path("/home/ada/Library/LaunchAgents/node.offgrid.offgrid-node.plist")
    assert read["ProgramArguments"] == list(ODD.command)
    assert read["KeepAlive"] == {"SuccessfulExit": False}
    assert "UserName" not in read
    assert plan.start == (("launchctl", "bootstrap", "gui/501", str(plan.path)),)
    assert plistlib.loads(launchd.plan(ATTIC, 0).content)["UserName"] == "ada"


@pytest.mark.parametrize("order", [ATTIC, ODD, replace(ATTIC, user=True)], ids=["plain", "odd", "user"])
def test_each_file_says_whose_service_it_is(order: Order) -> None:
    for plan in (systemd.plan(order), launchd.plan(order, 501), task_scheduler.plan(order)):
        assert plan.folder_of(plan.content) == str(order.folder)
        assert plan.folder_of(b"[Unit]\n") == plan.folder_of(b"\xff\xfe<") == ""


def test_cmd_takes_no_part_of_a_path_for_a_word_of_its_own() -> None:
    path = Path("C:/R&D/%TEMP%")
    order = replace(ATTIC, folder=path, command=("C:/R&D/offgrid-node.exe", "run", "--dir", str(path)))
    text = task_scheduler.plan(order).content.decode("utf-16")
    said = ElementTree.fromstring(text.partition("?>\n")[2]).findtext(f".//{{{task_scheduler.SPACE}}}Arguments")  # noqa: S314
    assert said == '/d /c ""C:/R&D/offgrid-node.exe" run --dir . >> offgrid-node.log 2>&1"'


def test_windows_gets_a_task_at_boot_that_starts_again_and_never_times_out() -> None:
    space = {"t": task_scheduler.SPACE}
    text = task_scheduler.plan(ODD).content.decode("utf-16")
    task = ElementTree.fromstring(text.partition("?>\n")[2])  # noqa: S314 - our own
    assert task.find("t:Triggers/t:BootTrigger", space) is not None
    assert task.findtext("t:Principals/t:Principal/t:LogonType", namespaces=space) == "S4U"
    assert task.findtext("t:Settings/t:ExecutionTimeLimit", namespaces=space) == "PT0S"
    assert task.findtext("t:Settings/t:RestartOnFailure/t:Interval", namespaces=space) == "PT1M"
    said = task.findtext("t:Actions/t:Exec/t:Arguments", namespaces=space) or ""
    assert said.startswith('/d /c ""/opt/o g/offgrid-node" run --dir ')
    # The scheduler's schema is a sequence: it refuses parts in another order.
    order = [part.tag.rpartition("}")[2] for part in task]
    assert order == ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]
    own = task_scheduler.plan(replace(ATTIC, user=True)).content.decode("utf-16")
    assert "<LogonTrigger>" in own
    assert "InteractiveToken" in own
