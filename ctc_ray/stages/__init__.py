"""The verbs: one module or folder per command. Only `cluster`, `train` and `tune` import Ray."""
