# Debian's own Python, a program that is not PIE and copies libc's variables: every module.
# packages: python3
# quick
# emulated: python3
# not: loongarch64 qemu-user asks this system, and not its root, where a program calls statx(2)
programs=${PROGRAMS:-/usr/bin}
env PATH="$programs:/usr/bin:/bin" sh "$(dirname "$0")/python.sh"
"$programs/python3" - <<'END'
import ctypes, os, sys
# What the program has copied is what C code sees.
program = ctypes.CDLL(None)
name = ctypes.c_char_p.in_dll(program, "program_invocation_short_name").value
print(name, bool(ctypes.c_void_p.in_dll(program, "environ").value))
program.getenv.restype = ctypes.c_char_p
os.environ["SET_LATE"] = "1"
print(program.getenv(b"SET_LATE"))
sys.stdout.flush()
program.fputs(b"by C\n", ctypes.c_void_p.in_dll(program, "stdout"))
program.fflush(None)
END
