# Every extension module of the standard library; then some are used.
# packages:
# quick
python3 - <<'END'
import ctypes, ctypes.util, decimal, hashlib, importlib, json, pathlib, ssl, sqlite3, sys, sysconfig, zlib

folder = pathlib.Path(sysconfig.get_path("stdlib"), "lib-dynload")
for path in sorted(folder.glob("*.so")):
    name = path.name.split(".")[0]
    try:
        print(name, importlib.import_module(name).__name__)
    except ImportError as error:
        print(name, error)
print(hashlib.sha3_256(b"abc").hexdigest(), hashlib.new("sha512", b"abc").hexdigest())
print(ssl.OPENSSL_VERSION, len(ssl.create_default_context().get_ciphers()))
base = sqlite3.connect(":memory:")
print(base.execute("select sqlite_version(), upper('abc'), json_extract('{\"a\": 5}', '$.a')").fetchall())
print(decimal.Decimal(2).sqrt(), zlib.crc32(b"abc"), json.dumps({"a": [1, 2.5, None]}))
libm = ctypes.CDLL(ctypes.util.find_library("m"))
libm.cos.restype, libm.cos.argtypes = ctypes.c_double, [ctypes.c_double]
print(libm.cos(0.5))
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
values = (ctypes.c_int * 5)(5, 1, 4, 2, 3)
ctypes.CDLL(None).qsort(values, 5, 4, callback(lambda a, b: a[0] - b[0]))
print(list(values))
whole = min(folder.glob("*.so")).read_bytes()
bad = {
    "short": b"text", "text": b"text " * 50, "archive": b"!<arch>\n" * 9, "empty": b"", "zero": bytes(100),
    "cut4": whole[:4], "cut63": whole[:63], "cut64": whole[:64],
    "narrow": whole[:4] + b"\1" + whole[5:], "big": whole[:5] + b"\2" + whole[6:], "old": whole[:6] + b"\0" + whole[7:],
    "machine": whole[:18] + b"\x2b" + whole[19:], "program": whole[:16] + b"\2" + whole[17:],
    "object": whole[:16] + b"\1" + whole[17:], "abi": whole[:7] + b"\x09" + whole[8:],
}
for name, content in bad.items():
    pathlib.Path(name).write_bytes(content)
for name in [*bad, "nonesuch"]:
    for path in (f"./{name}", name):
        try:
            print(ctypes.CDLL(path))
        except OSError as error:
            print(error)
for name in (".", "/", "/dev/null", "", "./short/x", "x" * 300):
    try:
        ctypes.CDLL(name, 0)._name
        print("opened")
    except OSError as error:
        print(error)
END
