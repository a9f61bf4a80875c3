"""Findings about a whole inventory: labels that look like mistakes, clocks that were never set."""
