"""Drawn photographs of camera traps, for the demo and the tests."""
