"""Exporters: one file a strategy."""
