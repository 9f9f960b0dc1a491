"""What must be lost before the thing is: the one figure behind "acked", "durable" and "what may be lost".

An object is lost when fewer than `needed` of its shards are left. Who has acked holds certain shards and weighs so
much; the survival is the least weight of hosts whose loss loses the object. Of full copies, one of which is enough, it
is the weight of all who acked, as for any other quorum; of coded ones, the least weight that takes so many shards away
(a knapsack over members, small since shards are few).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def survival_milli(
    ackers: Iterable[str], weights: Mapping[str, int], shards: Mapping[str, tuple[int, ...]], needed: int
) -> int:
    """In thousandths; 0 when those who acked could not give it back. A host of weight 0 may be lost for nothing."""
    held = [(weights[node], len(shards[node])) for node in set(ackers) if node in weights]
    spare = sum(count for _, count in held) - needed  # so many shards may go
    if spare < 0:
        return 0
    # least[c]: the least weight of hosts that hold c shards together; the last one, of more than `spare`.
    least: list[int | None] = [0, *[None] * (spare + 1)]
    for weight, count in held:
        for have in range(spare + 1, -1, -1):
            before = least[have]
            if before is None or not count:
                continue
            reached = min(spare + 1, have + count)
            now = least[reached]
            if now is None or before + weight < now:
                least[reached] = before + weight
    return least[spare + 1] or 0
