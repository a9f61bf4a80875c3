"""A run in its output folder: units, resume, failures, the manifest."""
