# From the csv to predictions and an exported model. From the root of the checkout:
#
#   ray job submit --working-dir . -- python jobs/pipeline.py
#   ray job submit --working-dir . -- python jobs/pipeline.py programmes/serengeti
#
# The stages read the YAML files of their names in jobs/, or in the folder given. The first stage
# that fails ends the job with its exit code; submitted again, finished work is not done twice.
# Tuning is no part of it: read what jobs/tune.py found, and write it into train.yaml.
"""Every stage in the order of the data, as one job on a Ray cluster."""

import subprocess
import sys
from pathlib import Path

STAGES = ("create_inventory", "create_dataset", "train", "predict", "export")

if __name__ == "__main__":
    jobs = Path(__file__).parent
    configs = Path(sys.argv[1]) if len(sys.argv) > 1 else jobs
    for stage in STAGES:
        command = [sys.executable, jobs / f"{stage}.py", "--config", configs / f"{stage}.yaml"]
        code = subprocess.run(command, check=False).returncode
        if code != 0:
            sys.exit(code)
