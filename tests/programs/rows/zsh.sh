# Every module; some are unloaded and loaded again.
# packages: zsh
# quick
zsh -f <<'END'
for file in ${module_path[1]}/**/*.so(.on); do
  name=${${file#$module_path[1]/}%.so}
  zmodload $name 2>&1 && print "$name loaded"
done
print $(( sin(0.5) )) ${(k)sysparams}
zmodload -u zsh/mathfunc && zmodload zsh/mathfunc && print $(( cos(0.5) ))
zmodload -L | sort
zmodload zsh/nonesuch 2>&1
strftime %Y 0
zstat -H status . && print $status[nlink]
END
