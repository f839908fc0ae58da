"""Data sources and data checks: one file a strategy."""
