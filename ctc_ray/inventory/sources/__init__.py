"""One reader per kind of source, and what several readers share."""
