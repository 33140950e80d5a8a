# projects: pandas numpy pyarrow python-dateutil tzdata
# one: numpy.libs/libscipy_openblas64_
import io

import numpy as np
import pandas as pd

rng = np.random.default_rng(3)
days = pd.date_range("2026-01-01", periods=200, freq="h", tz="Europe/Berlin")
table = pd.DataFrame(
    {"value": rng.standard_normal(200), "kind": rng.choice(list("abc"), 200)}, days
)
print(pd.__version__, table.groupby("kind").value.agg(["mean", "std", "count"]).round(6))
print(table.resample("2D").value.sum().round(6))
text = table.to_csv()
again = pd.read_csv(io.StringIO(text), index_col=0, parse_dates=True)
print(again.describe().round(4), len(text))
print(table.reset_index().merge(pd.DataFrame({"kind": list("ab"), "n": [1, 2]}), on="kind").n.sum())
print(table.pivot_table(index=table.index.hour, columns="kind", values="value").iloc[:3].round(4))
print(table.value.rolling(10).median().dropna().head(3).round(6).tolist())
print(
    pd.Timestamp("2026-03-29 01:30", tz="Europe/Berlin") + pd.Timedelta(hours=1),
    pd.Period("2026Q1").end_time,
)
print(pd.Series(["x1", "y2", None]).str.extract(r"(\w)(\d)"), pd.Categorical(list("aba")).codes)
try:
    pd.to_datetime("no date")
except ValueError as error:
    print(type(error).__name__, error)
