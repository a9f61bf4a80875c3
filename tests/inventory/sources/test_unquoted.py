import io

import pytest

from ctc_ray.inventory.sources.csv_table import QuoteFoundError, UnquotedStream, read_columns


def test_bytes_come_as_they_are_until_a_quote_does():
    stream = UnquotedStream(io.BytesIO(b'a,b\n1,"2'))

    assert stream.read(4) == b"a,b\n"
    with pytest.raises(QuoteFoundError):
        stream.read(100)


def test_a_quote_far_behind_the_first_block_is_read_as_a_quote(tmp_path):
    plain = "".join(f"{n},{n:0100}\n" for n in range(100_000))  # 10 MB, a block has 8 MiB
    csv = tmp_path / "rows.csv"
    csv.write_text(f'id,file\n{plain}x,"a\nb,c"\n', newline="")

    table = read_columns(str(csv), ["id", "file"])

    assert table.num_rows == 100_001
    assert table.slice(99_999).to_pylist() == [
        {"id": "99999", "file": f"{99_999:0100}"},
        {"id": "x", "file": "a\nb,c"},
    ]
