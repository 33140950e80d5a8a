# Every opcode library.
# packages: csound
csound -z >output 2>&1; echo "$?"
grep -v "Elapsed time" output | sort
cat >tone.csd <<'END'
<CsoundSynthesizer>
<CsOptions>
-W -o tone.wav
</CsOptions>
<CsInstruments>
sr = 8000
ksmps = 10
nchnls = 1
0dbfs = 1
instr 1
out oscili(0.5, 440)
endin
</CsInstruments>
<CsScore>
i 1 0 1
e
</CsScore>
</CsoundSynthesizer>
END
csound tone.csd >/dev/null 2>&1; echo "$?"; wc -c <tone.wav
