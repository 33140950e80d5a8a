# PKCS #11 modules; plugins of SASL.
# packages: p11-kit p11-kit-modules sasl2-bin libsasl2-modules
p11-kit list-modules; echo "$?"
p11-kit list-modules -v 2>/dev/null | wc -l
saslpluginviewer 2>&1; echo "$?"
