"""What stands beside a node: the `offgrid` command, simulators, soak, benchmarks, emulators of radios."""
