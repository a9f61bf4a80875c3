"""Files and URIs: reading, writing, retrying; no knowledge of camera traps."""
