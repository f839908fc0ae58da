"""Prefect flows and tasks, and the command line. Importing the package imports neither Prefect nor torch."""
