"""Label-free validators: one file a strategy."""
