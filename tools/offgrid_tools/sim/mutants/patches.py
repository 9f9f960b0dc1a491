"""What a planted bug is: a small patch of the node from outside, in force within a `with`; and the common ways to break
a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from offgrid_node.protocol.effects import Put
from offgrid_tools.sim.plan import HOME

Sound = Callable[..., Any]  # the method as it is
Break = Callable[[Sound], Sound]  # gets it and returns the broken one


class Patch(msgspec.Struct, frozen=True):
    """`owner.name` becomes `breaks(the sound one)`."""

    owner: Any
    name: str
    breaks: Break


class Mutant(msgspec.Struct, frozen=True):
    """A planted bug: what it says about itself, what it changes, and in which of the meshes it shows."""

    says: str
    patches: tuple[Patch, ...]
    mesh: str = HOME

    @contextmanager
    def planted(self) -> Iterator[None]:
        sound = [getattr(patch.owner, patch.name) for patch in self.patches]
        try:
            for patch, method in zip(self.patches, sound, strict=True):
                setattr(patch.owner, patch.name, patch.breaks(method))
            yield
        finally:
            for patch, method in zip(self.patches, sound, strict=True):
                setattr(patch.owner, patch.name, method)


def never(value: object) -> Break:
    """Does nothing and returns this."""
    return lambda sound: lambda *args, **kwargs: value


def after(then: Callable[[Any], None]) -> Break:
    """Does what it should, and then this as well."""

    def breaks(sound: Sound) -> Sound:
        def method(self: Any, *args: Any) -> Any:
            result = sound(self, *args)
            then(self)
            return result

        return method

    return breaks


def early(hasty_one: Callable[[object], bool]) -> Break:
    """These effects of a batch leave as soon as it is gathered."""

    def breaks(gather: Sound) -> Sound:
        def gather_and_release(self: Any) -> Any:
            pending = gather(self)
            if pending is not None:
                hasty = [effect for effect in pending.outgoing if hasty_one(effect)]
                pending.outgoing = [effect for effect in pending.outgoing if not hasty_one(effect)]
                for effect in hasty:
                    self._release(effect)
            return pending

        return gather_and_release

    return breaks


def a_batch_later(table: str) -> Break:
    """Rows of this table are written in the transaction after the one to which they belong."""

    def breaks(sound: Sound) -> Sound:
        def step(self: Any, inputs: Any, now: Any, rng: Any) -> Any:
            held, since = getattr(self, "held_back", ([], now))
            kept: list[Any] = held if since != now else []
            late: list[Any] = [] if since != now else held
            for effect in sound(self, inputs, now, rng):
                (late if isinstance(effect, Put) and effect.table == table else kept).append(effect)
            self.held_back = late, now
            return kept

        return step

    return breaks
