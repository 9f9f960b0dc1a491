"""What a node counts of itself: plain numbers in memory, one set per node, read by whoever shows them.

Counting costs a dictionary look-up and an addition, and knows no exposition format: `gateway/metrics.py` turns the
numbers into Prometheus' text when somebody asks. All of it belongs to the thread of the runtime.
"""

from .instruments import Counter, Histogram
from .meters import Meters

__all__ = ["Counter", "Histogram", "Meters"]
