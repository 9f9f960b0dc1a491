"""What every adapter has to keep, as tests that are run on it, also by who wrote one outside this project:

    pytest --pyargs offgrid_transports.conformance --transport "udp:127.0.0.1:0?multicast=on"

`plugin.py` has the option, `live.py` the loop and the two ends, `test_transport.py` the rules.
"""
