"""What may be wrong with a node for good, whatever passes for all others."""

REMOVED = "removed"  # its membership ends
LIES = "lies"  # about replicas, and as an owner
ROTS = "rots"  # its disk loses what it kept, or flips a bit of it, again and again
FORKS = "forks"  # it says two things as a witness
RESTORED = "restored"  # an older copy of its disk is put in its place
PENNILESS = "penniless"  # it takes no part in the economy
DEAD = "dead"  # it never comes back
WIPED = "wiped"  # its disk is lost, its key is not
FORGETFUL = frozenset({ROTS, RESTORED, WIPED})  # what they vouched for may be gone
