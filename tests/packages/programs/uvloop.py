# projects: uvloop
import asyncio

import uvloop


async def main():
    async def echo(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client(n):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in range(20):
            writer.write(f"client {n} line {i}\n".encode())
        writer.write_eof()
        text = await reader.read()
        writer.close()
        return len(text), text[-17:]

    print(await asyncio.gather(*(client(n) for n in range(5))))
    done = await asyncio.create_subprocess_exec(
        "/bin/echo", "from a child", stdout=asyncio.subprocess.PIPE
    )
    print((await done.communicate())[0], type(asyncio.get_running_loop()).__module__)
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except TimeoutError as error:
        print(type(error).__name__)
    print(await asyncio.get_running_loop().run_in_executor(None, sum, range(1000)))
    server.close()


uvloop.run(main())
print(uvloop.__version__)
