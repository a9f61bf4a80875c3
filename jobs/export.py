# Write a model as one file that other programs run. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/export.py --config jobs/export.yaml
#
# Options behind the file win over it; `ctc export --help` lists them.
"""`ctc export` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
