"""Rows about images, before any pixel is read."""
