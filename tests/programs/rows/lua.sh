# C modules of Lua; foreign functions of LuaJIT.
# packages: lua5.4 lua-socket lua-lpeg lua-cjson lua-sec lua-filesystem luajit
# quick
# emulated: lua5.4 luajit
lua5.4 - <<'END'
local socket, lpeg, cjson = require "socket", require "lpeg", require "cjson"
local ssl, lfs = require "ssl", require "lfs"
print(lpeg.match(lpeg.R("09") ^ 1 * lpeg.Cp(), "12345x"), cjson.encode({1, 2, {3}}))
print(cjson.decode('{"a": 5}').a, lfs.attributes(".", "mode"), ssl._VERSION)
local server = assert(socket.bind("127.0.0.1", 0))
local _, port = server:getsockname()
local client = assert(socket.connect("127.0.0.1", port))
local peer = server:accept()
client:send("line\n")
print(peer:receive(), ssl.newcontext { mode = "client", protocol = "any" } ~= nil)
print(pcall(require, "nonesuch.module") == false)
print(package.loadlib("/nonesuch.so", "luaopen_x"))
END
echo "$?"
luajit - <<'END'
local ffi = require "ffi"
ffi.cdef "unsigned long crc32(unsigned long, const char *, unsigned); double cos(double); int abs(int);"
local z, m = ffi.load "libz.so.1", ffi.load "libm.so.6"
print(tonumber(z.crc32(0, "hello", 5)), m.cos(0.5), ffi.C.abs(-3))
print(pcall(ffi.load, "nonesuch"))
print(pcall(function() return z.nonesuch end))
END
echo "$?"
