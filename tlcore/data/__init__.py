"""The image table: schema, decoding, splits."""
