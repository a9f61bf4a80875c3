"""Arithmetic on Arrow columns: no I/O, no knowledge of camera traps."""
