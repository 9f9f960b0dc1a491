"""A filter of system calls for programs in the sandbox, as classic BPF (seccomp(2)): what bubblewrap lets through and
no job needs.

Namespaces do not hold the kernel's keyrings, the processors' counters, io_uring, or sockets of families that know no
network namespace (a virtual machine's AF_VSOCK reaches its host). Memory that counts against no limit (memfd, System V)
is "not implemented", for which programs have a way around. Numbers: the kernel's unistd_64.h and asm-generic/unistd.h.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from struct import Struct

import msgspec

_STATEMENT = Struct("=HBBI")
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16  # offsets into struct seccomp_data; of an argument the low half
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_X32 = 0x40000000  # x86-64's other table of calls
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW… flag
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, all of which a network namespace holds


class Calls(msgspec.Struct, frozen=True):
    """An architecture's numbers: refused calls, those that "do not exist", and three that are looked into."""

    arch: int
    refused: Mapping[str, int]
    missing: Mapping[str, int]
    socket: int
    clone: int


X86_64 = Calls(
    0xC000003E,
    {
        "ptrace": 101, "syslog": 103, "pivot_root": 155, "acct": 163, "mount": 165, "umount2": 166, "swapon": 167,
        "reboot": 169, "init_module": 175, "delete_module": 176, "quotactl": 179, "kexec_load": 246, "add_key": 248,
        "request_key": 249, "keyctl": 250, "move_pages": 279, "unshare": 272, "perf_event_open": 298,
        "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308, "process_vm_readv": 310,
        "process_vm_writev": 311, "finit_module": 313, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
        "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "chroot": 161,
        "settimeofday": 164, "clock_settime": 227, "iopl": 172, "ioperm": 173, "mount_setattr": 442,
    },
    {"shmget": 29, "msgget": 68, "semget": 64, "memfd_create": 319, "clone3": 435, "memfd_secret": 447},
    socket=41,
    clone=56,
)  # fmt: skip
AARCH64 = Calls(
    0xC00000B7,
    {
        "ptrace": 117, "syslog": 116, "pivot_root": 41, "acct": 89, "mount": 40, "umount2": 39, "swapon": 224,
        "reboot": 142, "init_module": 105, "delete_module": 106, "quotactl": 60, "kexec_load": 104, "add_key": 217,
        "request_key": 218, "keyctl": 219, "move_pages": 239, "unshare": 97, "perf_event_open": 241,
        "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
        "process_vm_writev": 271, "finit_module": 273, "kexec_file_load": 294, "bpf": 280, "userfaultfd": 282,
        "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsmount": 432, "chroot": 51,
        "settimeofday": 170, "clock_settime": 112, "mount_setattr": 442,
    },
    {"shmget": 194, "msgget": 186, "semget": 190, "memfd_create": 279, "clone3": 435, "memfd_secret": 447},
    socket=198,
    clone=220,
)  # fmt: skip
BY_MACHINE = {"x86_64": X86_64, "aarch64": AARCH64}


def filter_for(machine: str = "") -> bytes:
    """The program for this machine (or the one named); empty for one whose numbers are not known."""
    calls = BY_MACHINE.get(machine or platform.machine())
    return program(calls) if calls is not None and sys.byteorder == "little" else b""


def program(calls: Calls) -> bytes:
    """Loads the number once, then one comparison for each call; what is not named is allowed.

    clone3 passes its flags by address, where no filter can look: it "does not exist", and every C library then takes
    clone, whose flags are in its first argument."""
    lines = [
        *_unless_equal(_ARCH, calls.arch, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL if calls is X86_64 else _ALLOW),
    ]
    for numbers, errno in ((calls.refused.values(), _EPERM), (calls.missing.values(), _ENOSYS)):
        for number in numbers:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno)]
    lines += [
        (_EQUAL, 0, 4, calls.clone),
        (_LOAD, 0, 0, _ARGUMENT_0),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
        (_EQUAL, 0, len(FAMILIES) + 2, calls.socket),
        (_LOAD, 0, 0, _ARGUMENT_0),
        *((_EQUAL, len(FAMILIES) - at, 0, family) for at, family in enumerate(FAMILIES)),
        (_RETURN, 0, 0, _ERRNO | _EAFNOSUPPORT),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_STATEMENT.pack(*line) for line in lines)


def _unless_equal(offset: int, value: int, otherwise: int) -> Sequence[tuple[int, int, int, int]]:
    return (_LOAD, 0, 0, offset), (_EQUAL, 1, 0, value), (_RETURN, 0, 0, otherwise)
