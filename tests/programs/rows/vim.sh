# The interpreters of its scripts.
# packages: vim-nox
cat >script.vim <<'END'
set encoding=utf-8
redir! > result
silent python3 import zlib, json; print(zlib.crc32(b"hello"), json.dumps([1]))
silent perl VIM::Msg(join(",", map { $_ * 2 } 1 .. 3))
silent ruby puts [1, 2].sum
silent lua print(math.floor(2.5))
silent echo libcallnr("libm.so.6", "abs", -3) libcall("libc.so.6", "getenv", "HOME") == $HOME
silent! echo libcallnr("libnonesuch.so", "abs", -3)
redir END
qa!
END
vim -e -s -u NONE -i NONE -S script.vim </dev/null 2>&1; echo "$?"
cat result
