# Modules of GIO, queried and used.
# packages: glib-networking gvfs libglib2.0-bin
folder=$(dirname "$(find /usr/lib -name libgiognutls.so -o -name libgioopenssl.so | head -n 1)")
mkdir modules && ln -s "$folder"/*.so modules
$(find /usr/lib /usr/bin -name gio-querymodules | head -n 1) modules
sort modules/giomodule.cache
echo text >file && gio info -a standard::size,standard::content-type file
gio info nonesuch:///x 2>&1; echo "$?"
gio mime text/plain | head -n 1
