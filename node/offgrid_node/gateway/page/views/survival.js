// How many hosts of an object may be lost, whichever they are.

// `acks` say who holds which shards (none named: a whole copy); `needed` of them give a coded object back, 0: copies.
// {hosts: that hold something and are there, any: so many of them may be lost, now: it can be had now}
export function survival(acks, needed) {
  const there = acks.filter((ack) => !ack.away);
  if (!needed) return { hosts: there.length, any: Math.max(0, there.length - 1), now: there.length > 0 };
  const left = (some) => new Set(some.flatMap((ack) => ack.shards)).size;
  const now = left(there) >= needed;
  const mostFirst = [...there].sort((a, b) => b.shards.length - a.shards.length); // those that hold the most go first
  let any = 0;
  while (any < there.length && left(mostFirst.slice(any + 1)) >= needed) any += 1;
  return { hosts: there.length, any: now ? any : 0, now };
}
