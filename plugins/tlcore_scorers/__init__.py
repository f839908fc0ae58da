"""Transferability scores: one file a strategy."""
