# Every module; requests before and after a graceful restart.
# packages: apache2-bin curl python3 binutils
# quick
folder=/usr/lib/apache2/modules
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir pages && echo 'hello from a page' >pages/index.html
{
  # Some need symbols of others that come before them.
  (cd $folder && readelf --wide --dyn-syms mod_mpm_event.so \
    $(ls *.so | grep -v -e mpm_ -e lbmethod) $(ls *.so | grep lbmethod)) |
    awk -v folder="$folder" '/^File: / { file = $2 }
      $4 == "OBJECT" && $7 != "UND" && $8 ~ /_module$/ { print "LoadModule", $8, folder "/" file }'
  cat <<END
ServerName localhost
Listen 127.0.0.1:$port
PidFile $PWD/pid
DefaultRuntimeDir $PWD
ErrorLog $PWD/errors
DocumentRoot $PWD/pages
TypesConfig /dev/null
StartServers 1
<Directory $PWD/pages>
Require all granted
</Directory>
END
} >conf
apache2 -f "$PWD/conf" -M 2>&1; echo "$?"
apache2 -f "$PWD/conf" -t 2>&1; echo "$?"
apache2 -f "$PWD/conf" -DFOREGROUND 2>&1 & server=$!
curl -s --retry 20 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/"; echo "$?"
kill -USR1 $server; sleep 1
curl -s --retry 20 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/"; echo "$?"
kill -TERM $server; wait $server; echo "$?"
grep -c 'resuming normal operations' errors
