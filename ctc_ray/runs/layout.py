"""Names inside an output folder."""

WORK_FOLDER = "_work"
