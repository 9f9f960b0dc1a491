"""A node as a service of its machine: started at boot, or at its owner's login, and again when it fails.

`order.py` says what is to be kept running; `systemd.py`, `launchd.py` and `task_scheduler.py` turn that into the file
and the commands of one system each, purely; `acting.py` writes and runs them.
"""
