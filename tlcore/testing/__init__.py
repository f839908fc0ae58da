"""Fixtures and conformance checks for plugin authors."""
