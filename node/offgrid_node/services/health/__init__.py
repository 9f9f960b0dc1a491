"""How this node and the applications at it do: figures, judged against thresholds."""
