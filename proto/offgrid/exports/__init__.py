"""A session as a file: what it is, its events, and a word on all of that, so that a cut or changed file shows.

    head    {"offgrid_export": 1, "node_id", "session": {…}, "content", "first", "events", "kinds": {KIND: schema}}
    event   {"number", "timestamp_us", "kind", "frame_id", "energy_delta", "data"}, one after another
    tail    {"events", "state": {"reducer", "version", "digest"}, "digest"}

`content` is "recorded" where events are as they were recorded, "hashed" where hashes stand for what their kinds'
schemas call content. `state` is what the events of the file come to, as they stand in it: of hashed ones a reducer may
make something else than of the recorded ones. `digest` is over head, events and state, not over bytes: the same events
have the same digest in every form. Where a session's first events are kept no more, the head has "bases" as well, what
the events up to a number came to by some reducers, and `state` is folded from there.

    json      JSON lines, one for each of the above
    yaml      YAML documents, likewise
    parquet   a column for each of an event's fields, `data` as JSON; head and tail as JSON in the file's metadata under
              "offgrid.head" and "offgrid.tail". Needs pyarrow: pip install 'offgrid-node[parquet]'
"""
