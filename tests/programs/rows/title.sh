# Programs that write a title over their environment, and open what only that leads to.
# packages: perl python3 python3-setproctitle
# quick
mkdir lib
cp -L /usr/lib/*-linux-gnu/libz.so.1 lib/libtitle.so.1
export LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
# With DLOPEN_LOG the environment is read at the start in any case.
for quiet in "" "env -u DLOPEN_LOG -u DLOPEN_LOG_FILE"; do
  $quiet perl -MDynaLoader - <<'END'
$0 = "perl worker: " . "idle " x 200;
my $library = DynaLoader::dl_load_file("libtitle.so.1", 0) or die DynaLoader::dl_error();
print DynaLoader::dl_find_symbol($library, "zlibVersion") ? "found" : "not found", "\n";
require POSIX; require Digest::SHA; require Encode;
print POSIX::floor(-2.5), " ", Digest::SHA::sha1_hex("abc"), "\n";
# Its children have the environment that it has.
system("perl", "-MDynaLoader", "-e", 'print DynaLoader::dl_load_file("libtitle.so.1") ? "found\n" : "not found\n"');
END
  for now in "" 1; do
    LD_BIND_NOW=$now $quiet /usr/bin/python3 - <<'END'
import ctypes, os, setproctitle
setproctitle.setproctitle("python worker: " + "idle " * 200)
print(setproctitle.getproctitle()[:20], len(os.environ["LD_LIBRARY_PATH"]) > 0)
print(ctypes.CDLL("libtitle.so.1").zlibVersion.restype)
import decimal, sqlite3, ssl
print(decimal.Decimal(2).sqrt(), sqlite3.connect(":memory:").execute("select 7").fetchall())
END
  done
done
