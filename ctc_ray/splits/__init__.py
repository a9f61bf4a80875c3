"""Which split every capture event belongs to, and a report about the splits."""
