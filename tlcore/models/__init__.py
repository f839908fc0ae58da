"""Safe weights and the local index format, shared by model sources."""
