"""The offline install kit: a folder from which a machine without an internet becomes a node.

`making.py` fills it from a package index, by the hashes of the locks; `install.py` in it needs Python and nothing else;
`serving.py` hands it to the next machine. What is in it, and for which machines, says its `kit.json` (`manifest.py`).
One digest covers all of it: that of `install.py`, which holds the digest of `kit.json`, which holds those of the
wheels.
"""
