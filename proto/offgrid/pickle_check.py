"""Looks through a stranger's pickle before it is read: Python's own reader can be made to take any amount of memory by
a few bytes (it makes room for each place of its memo up to the one that is named), and to crash the process (hashing
tuples, it calls itself once for each level).

Let through are the operations that picklers of protocol 5 write, and tuples no deeper than those can be. What is named
(the older way as well) and called is the reader's business. The operations: Lib/pickletools.py.
"""

from __future__ import annotations

DEPTH_MAX = 1_000  # of tuples in tuples: Python's pickler gives up before that

# How many bytes follow the operation; or how many the length of what follows has.
_FOLLOWED = {0x80: 1, 0x95: 8, 0x4A: 4, 0x4B: 1, 0x4D: 2, 0x47: 8, 0x68: 1, 0x6A: 4}
_LENGTH = {0x43: 1, 0x42: 4, 0x8E: 8, 0x8C: 1, 0x58: 4, 0x8D: 8, 0x96: 8, 0x8A: 1, 0x8B: 4}
_PLAIN = frozenset(b"JKMG" + b"CB\x8e\x8cX\x8d\x96\x8a\x8b" + b"N\x88\x89" + b"]})\x8fc")  # puts one value on the stack
_NOTHING = frozenset(b"\x80\x95")
_MARK, _STOP, _POP, _POP_MARK, _MEMOIZE, _GET, _GET_LONG = b"(.01\x94hj"
_TUPLE, _FROZENSET, _APPEND, _BUILD, _SETITEM, _GLOBAL, _CALL, _CALL_NAMED = b"t\x91abs\x93R\x92"
_NEW, _GLOBAL_LINES = 0x81, 0x63
_OF_MARKED = frozenset(b"eu\x90")  # many values go into the container below them
_TUPLES = {0x85: 1, 0x86: 2, 0x87: 3}
_DROPS = {_POP: 1, _APPEND: 1, _BUILD: 1, _SETITEM: 2}


def check(data: bytes) -> None:
    """Raises ValueError for what no pickler of protocol 5 writes, or for too deep a tuple."""
    try:
        _walk(data)
    except IndexError:
        raise ValueError("it is cut off or not in order") from None


def _walk(data: bytes) -> None:
    """The stack holds of each value how deep it is as a tuple: nothing else can be hashed through."""
    stack: list[int] = []
    marks: list[int] = []
    memo: list[int] = []
    at = 0
    while True:
        operation = data[at]
        at += 1
        argument = at
        if operation in _FOLLOWED:
            at += _FOLLOWED[operation]
        elif operation in _LENGTH:
            at += _LENGTH[operation]
            at += int.from_bytes(data[argument:at], "little")
        elif operation == _GLOBAL_LINES:
            at = data.index(b"\n", data.index(b"\n", at) + 1) + 1
        if at > len(data):
            raise IndexError
        if operation in _PLAIN:
            stack.append(0)
        elif operation == _MEMOIZE:
            memo.append(stack[-1])
        elif operation in (_GET, _GET_LONG):
            stack.append(memo[int.from_bytes(data[argument:at], "little")])
        elif operation == _MARK:
            marks.append(len(stack))
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            _join(stack, len(stack) - count)
        elif operation in (_TUPLE, _FROZENSET):
            _join(stack, marks.pop())
        elif operation in _OF_MARKED or operation == _POP_MARK:
            del stack[marks.pop() :]
        elif operation in (_CALL, _NEW, _GLOBAL):
            _join(stack, len(stack) - 2)
        elif operation == _CALL_NAMED:
            _join(stack, len(stack) - 3)
        elif operation in _DROPS:
            if operation == _POP and marks and marks[-1] == len(stack):
                marks.pop()
            else:
                del stack[_from(stack, _DROPS[operation]) :]
        elif operation == _STOP:
            return
        elif operation not in _NOTHING:
            raise ValueError(f"it has the operation {operation:#04x}, which no pickler of protocol 5 writes")


def _from(stack: list[int], count: int) -> int:
    if len(stack) < count:
        raise IndexError
    return len(stack) - count


def _join(stack: list[int], start: int) -> None:
    """Puts one value in the place of those from `start` on."""
    if not 0 <= start <= len(stack):
        raise IndexError
    depth = max(stack[start:], default=0) + 1
    if depth > DEPTH_MAX:
        raise ValueError(f"it holds tuples more than {DEPTH_MAX} deep")
    stack[start:] = [depth]
