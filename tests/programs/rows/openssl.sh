# Providers and engines.
# packages: openssl
# quick
# emulated: openssl
printf abc >text
openssl dgst -provider legacy -provider default -md4 text; echo "$?"
openssl dgst -md4 text 2>/dev/null; echo "$?"
openssl list -providers -provider legacy -provider default; echo "$?"
openssl enc -provider legacy -provider default -rc4 -K 0123456789abcdef -in text -out coded 2>/dev/null; echo "$?"
od -An -tx1 coded
for engine in afalg loader_attic padlock nonesuch
do
  openssl engine -t "$engine" 2>/dev/null; echo "$?"
done
openssl list -provider nonesuch -providers 2>/dev/null; echo "$?"
