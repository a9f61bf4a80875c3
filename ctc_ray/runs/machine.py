"""What this machine gives a process."""

import os


def n_cpus() -> int:
    """CPUs that this process may use, at least 1."""
    return max(
        1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
