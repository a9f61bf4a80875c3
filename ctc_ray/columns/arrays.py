"""Arrow types that several rooms share."""

import pyarrow as pa

TEXT = pa.large_string()  # for whole columns: 10 million URIs exceed the 2 GiB of a string array
