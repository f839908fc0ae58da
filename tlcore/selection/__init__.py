"""Ranking source models."""
