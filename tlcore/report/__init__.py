"""The run card: one self-contained HTML file."""
