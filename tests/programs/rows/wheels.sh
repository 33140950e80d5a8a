# Extension modules of many projects, in C, C++, Rust and Cython, in one process.
# packages:
# python: cryptography lxml orjson pydantic_core Pillow grpcio pyzmq uvloop gevent h5py shapely
# emulated: python
python - <<'END'
import asyncio, io
import gevent, grpc, h5py, lxml.etree, numpy, orjson, pydantic_core, shapely, uvloop, zmq
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from PIL import Image, features

key = ec.derive_private_key(12345, ec.SECP256R1())
print(key.public_key().public_numbers().x)
signature = key.sign(b"text", ec.ECDSA(hashes.SHA256()))
key.public_key().verify(signature, b"text", ec.ECDSA(hashes.SHA256()))
try:
    Fernet(b"A" * 43 + b"=").decrypt(b"no token")
except InvalidToken as error:
    print(repr(error))

root = lxml.etree.XML("<a><b c='1'/><b c='2'/></a>")
print(root.xpath("sum(//b/@c)"), lxml.etree.LXML_VERSION)
sheet = "<x:stylesheet version='1.0' xmlns:x='http://www.w3.org/1999/XSL/Transform'><x:template match='/'><o><x:value-of select='count(//b)'/></o></x:template></x:stylesheet>"
print(lxml.etree.XSLT(lxml.etree.XML(sheet))(root))
try:
    lxml.etree.XML("<a>")
except lxml.etree.XMLSyntaxError as error:
    print(error)

print(orjson.dumps({"a": [1, 2.5, None, "é"]}), orjson.loads(b'{"b": 1e3}'))
validator = pydantic_core.SchemaValidator(pydantic_core.core_schema.int_schema(gt=3))
print(validator.validate_python("5"))
try:
    validator.validate_python(1)
except pydantic_core.ValidationError as error:
    print(error.errors(include_url=False))

for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
    file = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").resize((64, 64)).save(file, kind)
    print(kind, len(file.getvalue()), Image.open(file).getpixel((5, 5)))
print(features.get_supported())

context = zmq.Context()
left, right = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
left.bind("inproc://pair")
right.connect("inproc://pair")
right.send(b"message")
print(left.recv(), zmq.zmq_version())
left.close(), right.close(), context.term()

async def count():
    await asyncio.sleep(0.01)
    return type(asyncio.get_running_loop()).__module__
print(uvloop.run(count()))

jobs = [gevent.spawn(lambda n: (gevent.sleep(0), n * n)[1], n) for n in range(5)]
gevent.joinall(jobs)
print([job.value for job in jobs])

with h5py.File("numbers.h5", "w") as file:
    file.create_dataset("squares", data=numpy.arange(10) ** 2, compression="gzip")
with h5py.File("numbers.h5") as file:
    print(file["squares"][3:6], h5py.version.hdf5_version)
print(shapely.union_all([shapely.box(0, 0, 2, 2), shapely.box(1, 1, 3, 3)]).area, shapely.geos_version)

from concurrent import futures
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Echo(),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    print(channel.unary_unary("/a/b")(b"abc", timeout=20))
server.stop(None).wait()
END
