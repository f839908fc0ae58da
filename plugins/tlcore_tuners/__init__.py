"""Fine-tuning strategies: one file a strategy."""
