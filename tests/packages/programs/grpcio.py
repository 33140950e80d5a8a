# projects: grpcio typing-extensions
from concurrent import futures

import grpc


def double(request, context):
    if request == b"bad":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a bad one")
    return request * 2


def count(request, context):
    yield from (str(i).encode() for i in range(int(request)))


handlers = {
    "Double": grpc.unary_unary_rpc_method_handler(double),
    "Count": grpc.unary_stream_rpc_method_handler(count),
}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/test.Service/Double")
    print([call(f"request {i} ".encode()) for i in range(10)])
    print(list(channel.unary_stream("/test.Service/Count")(b"7")))
    try:
        call(b"bad")
    except grpc.RpcError as error:
        print(error.code(), error.details())
server.stop(0).wait()
print(grpc.__version__)
