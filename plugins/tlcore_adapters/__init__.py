"""Domain adapters: one file a strategy."""
