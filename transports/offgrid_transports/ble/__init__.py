"""Bluetooth LE: nodes that find each other by advertisements and keep a channel to each neighbour.

`adapter` is the Transport and knows rules only; `link` says what it needs of a radio; `bumble_radio` gives it that over
any controller that speaks HCI. The rest are rules without clock and radio.
"""
