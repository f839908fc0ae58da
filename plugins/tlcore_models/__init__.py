"""Model sources: one file a strategy."""
