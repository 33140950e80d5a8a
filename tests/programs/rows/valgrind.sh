# A virtual machine for code, with preloads of its own.
# packages: valgrind perl
valgrind -q --error-exitcode=5 --tool=none perl -e 'use Digest::SHA; use POSIX; print Digest::SHA::sha1_hex("abc"), POSIX::floor(2.5), "\n"' 2>&1; echo "$?"
