"""The embedded demo: handwritten digits, rendered glyphs, a small zoo."""
