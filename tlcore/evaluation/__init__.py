"""Metrics, intervals, baselines."""
