"""Names of Arrow types and of numpy arrays that several rooms share."""

import pyarrow as pa

TEXT = pa.large_string()  # while columns are whole: 10 million URIs are more than 2 GiB of text
