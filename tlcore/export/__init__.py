"""The parity gate, file metadata, prediction from a file."""
