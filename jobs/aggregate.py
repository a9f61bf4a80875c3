# Combine predictions per image to predictions per event anew. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/aggregate.py --config jobs/aggregate.yaml
#
# Options behind the file win over it; `ctc aggregate --help` lists them.
"""`ctc aggregate` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["aggregate", *sys.argv[1:]])
