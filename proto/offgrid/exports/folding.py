"""What the events of an export come to, from the first one or, where that is missing, from the export's base."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from offgrid.exports.document import Head
from offgrid.reducers import Recorded, Reducer, ReducerFailed, initial_state, show_state


class Fold:
    """`number`: of the newest event that is in it. Raises ReducerFailed, StateTooLarge."""

    def __init__(self, reducer: Reducer, head: Head | None = None) -> None:
        """Of any events, or of those of an export."""
        self.reducer, self.number = reducer, 0
        for base in head.bases if head is not None else ():
            if (base.reducer, base.version) == (reducer.name, reducer.version):
                self._state: Any = deepcopy(base.state)  # a reducer may change it in its place
                self.number = base.number
                return
        self._state = initial_state(reducer)

    def add(self, event: Recorded) -> None:
        """Events come in their order; what a base has already is passed over."""
        if event.number <= self.number:
            return
        try:
            self._state = self.reducer.apply(self._state, event)
        except Exception as error:
            raise ReducerFailed.at(self.reducer, event.number, error) from error
        self.number = event.number

    def shown(self) -> tuple[bytes, str]:
        """As JSON, and its digest in hex."""
        shown, digest = show_state(self.reducer, self._state)
        return shown, digest.hex()
