"""The verbs: one module per command; the only place where Ray is imported."""
