# Every extension.
# packages: gawk
# quick
# emulated: gawk
# not: loongarch64 qemu-user asks this system, and not its root, where a program calls statx(2)
for extension in filefuncs fnmatch fork inplace intdiv ordchr readdir readfile revoutput revtwoway rwarray time nonesuch
do
  gawk -l "$extension" 'BEGIN { print "'"$extension"' loaded"; exit }' 2>&1; echo "$?"
done
gawk -l ordchr -l readfile -l fnmatch -l intdiv 'BEGIN {
  printf "a\nb\n" >"text"; close("text")
  print ord("A"), chr(66), length(readfile("text")), fnmatch("*.c", "a.c", 0)
  intdiv(17, 5, result); print result["quotient"], result["remainder"]
}'; echo "$?"
printf 'one\ntwo\n' | gawk -l revoutput '{ REVOUT = 1; print }'; echo "$?"
