"""What the measured figures in README.md come from; no part of the distribution."""
