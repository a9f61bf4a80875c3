# Search for the settings that give the best model. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/tune.py --config jobs/tune.yaml
#
# Options behind the file win over it; `ctc tune --help` lists them.
"""`ctc tune` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["tune", *sys.argv[1:]])
