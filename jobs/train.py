# Train a model. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/train.py --config jobs/train.yaml
#
# Options behind the file win over it; `ctc train --help` lists them.
"""`ctc train` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
