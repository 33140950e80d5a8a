# Modules of NSS.
# packages: libnss3-tools
mkdir base && certutil -N -d sql:base --empty-password; echo "$?"
head -c 100 /dev/zero >noise
certutil -S -d sql:base -n own -s CN=own -x -t CTu,, -z noise -m 1 2>&1; echo "$?"
certutil -L -d sql:base; modutil -dbdir sql:base -list -force 2>&1; echo "$?"
modutil -dbdir sql:base -force -add none -libfile /nonesuch.so 2>&1; echo "$?"
