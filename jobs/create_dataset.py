# Decode, resize and split the images of an inventory into shards. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/create_dataset.py --config jobs/create_dataset.yaml
#
# Options behind the file win over it; `ctc create-dataset --help` lists them.
"""`ctc create-dataset` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["create-dataset", *sys.argv[1:]])
