"""Fuzzers for whatever reads what strangers send: a table of targets, inputs that were kept, and who feeds them.

A target takes any bytes and returns; what it raises is a find. Inputs that matter are kept in tests/corpus, a file for
each target: the tests feed them, and some mutations of them, to each target; `soak fuzz` searches for minutes.
"""
