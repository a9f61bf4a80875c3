# List the images of a source, one row per image. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/create_inventory.py --config jobs/create_inventory.yaml
#
# The source is a csv. For another (dir, images, json, coco, camtrap-dp, megadetector) name the kind
# first:
#
#   … python jobs/create_inventory.py dir --source-uri s3://… --output-uri s3://…
#
# Options behind the file win over it; `ctc create-inventory csv --help` lists them.
"""`ctc create-inventory` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    kind = [] if sys.argv[1:] and not sys.argv[1].startswith("-") else ["csv"]
    main(["create-inventory", *kind, *sys.argv[1:]])
