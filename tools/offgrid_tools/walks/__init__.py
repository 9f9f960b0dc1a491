"""What README and guides tell to type, typed: each page is a walk over real nodes in a temporary folder.

A page's fences say what they are: `sh` commands, `console` commands behind `$ ` and what they answer, `python` a
program, `toml` lines of a configuration; `text` and its like are nothing to run. Words behind that say where and how:

    NAME          at that machine (in its folder); the first one unless said
    dies=NAME     that machine's node is killed first
    stream        goes on for ever: ended by Ctrl-C after a moment
    later         what it asks for may not be there yet: tried again while it is refused, for a minute
    soak          too long for the tests: `soak docs` alone runs it
    not-run=WHY   is not run by anything; WHY stands in `not_run.py`
"""
