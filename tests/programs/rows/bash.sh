# `enable -f` of all that bash-builtins has, text files among them.
# packages: bash bash-builtins
bash --norc <<'END'
for file in /usr/lib/bash/*; do
  [ -f "$file" ] || continue
  name=${file##*/}
  enable -f "$file" "$name" 2>&1 && echo "$name enabled"
done
printenv HOME >/dev/null && echo printenv
basename /a/b.c .c; dirname /a/b; csv fields 'a,"b,c",d' && echo "${fields[1]}"
cut -d: -f2 <<<a:b:c; strftime %Y 0; seq 3; realpath /usr/..; tee copy <<<text; sleep 0.01
enable -d basename && enable -f basename basename && basename /x/y
END
