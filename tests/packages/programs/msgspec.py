# projects: msgspec typing-extensions
import msgspec


class User(msgspec.Struct, tag=True):
    name: str
    groups: set[str] = set()
    age: int | None = None


class Group(msgspec.Struct, tag=True):
    members: list[User]


data = msgspec.json.encode(Group([User("alice", {"a"}, 3), User("bob")]))
print(data, msgspec.json.decode(data, type=User | Group), msgspec.__version__)
print(msgspec.msgpack.encode({"a": [1, 2.5, None, b"x"]}).hex(), msgspec.json.schema(User))
try:
    msgspec.json.decode(b'{"type": "User", "name": 5}', type=User | Group)
except msgspec.ValidationError as error:
    print(error)
print(msgspec.structs.asdict(User("x")), msgspec.convert("2026-11-30", __import__("datetime").date))
# A module of single-phase initialisation learns its name from the interpreter.
print(msgspec._core.__name__, msgspec._core.__package__, msgspec._core.__spec__.name)
