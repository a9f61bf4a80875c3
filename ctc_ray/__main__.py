"""`python -m ctc_ray` is `ctc`."""

from ctc_ray.cli import main

if __name__ == "__main__":
    main()
