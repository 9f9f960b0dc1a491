"""`offgrid-node debug bundle`: what somebody who helps wants to see of a node, in one file that can be sent.

`redaction.py` says what never leaves the machine; `collecting.py` gathers, and has every byte pass through that.
"""
