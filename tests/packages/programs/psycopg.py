# projects: psycopg psycopg-binary typing-extensions
import datetime
import decimal
import socket
import threading

import psycopg
from psycopg import adapt, conninfo, pq, sql

print(pq.__impl__, pq.version() >= 150000, psycopg.__version__)
print(
    conninfo.make_conninfo("host=a dbname='b c'", port=5),
    conninfo.conninfo_to_dict("postgresql://u:p@h/d?connect_timeout=3"),
)
print(
    sql.SQL("select {} from {} where x = {}")
    .format(sql.Identifier('a"b'), sql.Identifier("t"), sql.Literal("it's"))
    .as_string(None)
)
maker = adapt.Transformer()
for value in (
    5,
    2**40,
    decimal.Decimal("1.50"),
    datetime.datetime(2026, 11, 30, 12, 5),
    "é",
    b"\0x",
    [1, 2],
    {"a": 1}.keys(),
):
    try:
        dumper = maker.get_dumper(value, adapt.PyFormat.TEXT)
    except psycopg.ProgrammingError as error:
        print(error)
    else:
        print(type(dumper).__name__, type(dumper).__module__, bytes(dumper.dump(value)), dumper.oid)
print(
    maker.get_loader(1114, pq.Format.TEXT).load(b"2026-11-30 12:05:07"),
    pq.Escaping().escape_bytea(b"\0\1"),
)

# A server that refuses.
with socket.create_server(("127.0.0.1", 0)) as server:

    def refuse():
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            fields = b"SFATAL\0C28000\0Mno entry\0\0"
            connection.sendall(b"E" + (4 + len(fields)).to_bytes(4, "big") + fields)

    thread = threading.Thread(target=refuse)
    thread.start()
    port = server.getsockname()[1]
    try:
        psycopg.connect(
            f"host=127.0.0.1 port={port} user=x dbname=x sslmode=disable gssencmode=disable"
        )
    except psycopg.OperationalError as error:
        print(str(error).replace(str(port), "PORT"))
    thread.join()
