"""What the commands `offgrid` and `offgrid-node` have in common: how they are found, how they end, and what they say
of an error. Everything but click is imported when it is needed, so that `--help` stays quick."""
