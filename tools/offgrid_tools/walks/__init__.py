"""What the documents tell to type, typed: each page is a walk over real nodes in a temporary folder.

A page's fences say what they are: `sh` commands, `console` commands behind `$ ` and what they answer, `python` a
program; `toml` lines of a configuration, `link` descriptions of links, `requirements` of jobs, which are checked;
`text` and its like are nothing to run. Words behind that say where and how:

    NAME          at that machine (in its folder); the first one unless said
    dies=NAME     that machine's node is killed first
    stops=NAME    that machine's node is ended first, as by Ctrl-C
    ends=CODE     each command ends with that
    stream        goes on for ever: ended by Ctrl-C after a moment
    later         what it asks for may not be there yet: tried again while it is refused, for a minute
    soak          too long for the tests: `soak docs` alone runs it
    not-run=WHY   is not run by anything; WHY stands in `not_run.py`
"""
