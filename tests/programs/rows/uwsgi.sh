# The plugin of Python.
# packages: uwsgi-core uwsgi-plugin-python3
cat >page.py <<'END'
import hashlib, json, zlib
print(hashlib.sha256(b"abc").hexdigest(), zlib.crc32(b"hello"), json.dumps([1]))
import uwsgi
print(uwsgi.version_info[:2])
def application(environment, start): start("200 OK", []); return [b"hello"]
import os, signal
END
uwsgi --plugin python3 --pyrun page.py --no-site 2>/dev/null; echo "$?"
uwsgi --plugin python3 --plugin nonesuch --plugin-list >output 2>&1; echo "$?"
grep -e python -e nonesuch output
