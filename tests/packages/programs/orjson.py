# projects: orjson
import datetime
import uuid
from dataclasses import dataclass

import orjson


@dataclass
class Point:
    x: int
    y: float


value = {
    "points": [Point(1, 2.5), Point(-3, 1e300)],
    "when": datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC),
    "id": uuid.UUID(int=5),
    "text": "é\n😀",
}
data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
print(data.decode(), orjson.loads(data)["points"], orjson.__version__)
try:
    orjson.loads(b'{"a": [1, 2,}')
except orjson.JSONDecodeError as error:
    print(type(error).__mro__[1].__name__, error)
try:
    orjson.dumps({1: object()})
except TypeError as error:
    print(error)
