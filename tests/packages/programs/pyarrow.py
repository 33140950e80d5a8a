# projects: pyarrow numpy pandas python-dateutil tzdata
# one: pyarrow/libarrow.so
# one: pyarrow/libparquet.so
# one: numpy.libs/libscipy_openblas64_
import hashlib
import io

import pyarrow as pa
from pyarrow import compute, csv, dataset, feather, json, parquet

table = pa.table(
    {
        "n": pa.array(range(1000), pa.int32()),
        "s": pa.array([f"text {i % 17}" for i in range(1000)]).dictionary_encode(),
        "f": pa.array([i / 7 if i % 5 else None for i in range(1000)]),
        "l": pa.array([[i, i + 1] for i in range(1000)]),
    }
)
for codec in ("none", "snappy", "zstd", "gzip", "brotli", "lz4"):
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression=codec, row_group_size=300)
    data = sink.getvalue()
    again = parquet.read_table(pa.BufferReader(data), columns=["n", "f", "l", "s"])
    print(
        codec,
        data.size,
        again.select(table.column_names).equals(table),
        parquet.ParquetFile(pa.BufferReader(data)).num_row_groups,
    )
plain = table.set_column(1, "s", table["s"].cast(pa.string()))
print(
    plain.group_by("s")
    .aggregate([("f", "mean"), ("n", "max")])
    .sort_by("s")
    .slice(0, 3)
    .to_pylist()
)
print(
    compute.sum(table["f"]), compute.quantile(table["n"], q=[0.1, 0.9]), table["n"].to_numpy()[:3]
)
print(dataset.InMemoryDataset(table).to_table(filter=dataset.field("n") < 3).to_pydict())
print(
    csv.read_csv(io.BytesIO(b"a,b\n1,x\n2,y\n")).schema,
    json.read_json(io.BytesIO(b'{"a": [1.5]}\n{"a": null}\n')).to_pylist(),
)
with pa.BufferOutputStream() as sink:
    feather.write_feather(table, sink)
    print(hashlib.sha256(feather.read_table(sink.getvalue())["n"].to_numpy().tobytes()).hexdigest())
try:
    pa.array([1, "x"])
except pa.ArrowInvalid as error:
    print(error)
print(pa.__version__, pa.cpp_version)
