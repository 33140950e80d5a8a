# A title by setproctitle of PyPI, before the first library is opened.
# packages:
# python: setproctitle
mkdir lib
cp -L /usr/lib/*-linux-gnu/libz.so.1 lib/libtitle.so.1
for quiet in "" "env -u DLOPEN_LOG -u DLOPEN_LOG_FILE"; do
  LD_LIBRARY_PATH="$PWD/lib" $quiet python - <<'END'
import ctypes, os, subprocess, sys, setproctitle
setproctitle.setproctitle("python worker: " + "idle " * 200)
with open("/proc/self/cmdline", "rb") as line:
    print(line.read().strip(b"\0 ")[:20])
code = "import ctypes; print(ctypes.CDLL('libtitle.so.1')._name)"
exec(code)
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
import decimal, sqlite3, ssl
print(decimal.Decimal(2).sqrt(), sqlite3.connect(":memory:").execute("select 7").fetchall())
END
done
