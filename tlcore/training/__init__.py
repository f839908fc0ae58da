"""The one training loop, its plans and its checkpoints."""
