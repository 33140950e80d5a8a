# The loaders of pictures; a thumbnail.
# packages: libgdk-pixbuf2.0-bin librsvg2-common
folder=$(dirname "$(find /usr/lib -path '*gdk-pixbuf*' -name 'query-loaders*' -o -name gdk-pixbuf-query-loaders | head -n 1)")
"$folder"/gdk-pixbuf-query-loaders | sed '/^# Created by/d'
printf '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><circle cx="32" cy="32" r="20" fill="red"/></svg>' >circle.svg
gdk-pixbuf-csource --raw --name=circle circle.svg | sha256sum
gdk-pixbuf-thumbnailer -s 32 circle.svg circle.png 2>&1; echo "$?"
gdk-pixbuf-csource nonesuch.svg 2>&1; echo "$?"
