# Other preloads beside ours: an allocator, a clock, an identity.
# packages: libjemalloc2 fakeroot faketime perl
add() { preload="$1${LD_PRELOAD:+:$LD_PRELOAD}"; shift; LD_PRELOAD=$preload "$@"; echo "$?"; }
script='use Digest::SHA; use POSIX; use Encode::JP; print Digest::SHA::sha1_hex("abc"), " $<\n"; print POSIX::strftime("%Y", gmtime), "\n" if @ARGV'
add /usr/lib/x86_64-linux-gnu/libjemalloc.so.2 perl -e "$script"
faketime '2001-02-03 04:05:06' perl -e "$script" year; echo "$?"
fakeroot perl -e "$script"; echo "$?"
fakeroot sh -c 'touch file; chown 12:34 file; stat -c "%u %g" file'; echo "$?"
faketime 2001-01-01 fakeroot date +%Y; echo "$?"
stdbuf -oL perl -e "$script"; echo "$?"
