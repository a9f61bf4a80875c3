# Answer for every image and every capture event. From the root of the checkout:
#
#   ray job submit --working-dir . -- \
#     python jobs/predict.py --config jobs/predict.yaml
#
# Options behind the file win over it; `ctc predict --help` lists them.
"""`ctc predict` as a job on a Ray cluster."""

import sys

from ctc_ray.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
