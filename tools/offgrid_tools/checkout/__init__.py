"""What works on a checkout of the project: its environment, its locks, its checks. Standard library only.

`tools/run.py` is the way in; nothing of an installed node needs this package.
"""
