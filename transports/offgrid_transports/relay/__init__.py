"""Several hops: nodes hand on each other's frames, along ways that are looked for once and then known by labels."""
