# Every module; one request on 127.0.0.1.
# packages: lighttpd curl python3
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir pages && echo 'hello from a page' >pages/index.html
{
  echo 'server.modules = ('
  for module in /usr/lib/lighttpd/*.so; do module=${module##*/}; echo "\"${module%.so}\","; done
  echo ')'
  cat <<END
server.document-root = "$PWD/pages"
server.bind = "127.0.0.1"
server.port = $port
server.pid-file = "$PWD/pid"
index-file.names = ("index.html")
mimetype.assign = (".html" => "text/html")
status.status-url = "/status"
END
} >conf
lighttpd -tt -f conf 2>errors; echo "$?"
lighttpd -D -f conf 2>errors & server=$!
for try in $(seq 100); do [ -s pid ] && break; sleep 0.05; done
curl -s --retry 5 --retry-connrefused -i "http://127.0.0.1:$port/" | grep -v -e Date -e Last -e ETag; echo "$?"
curl -s "http://127.0.0.1:$port/nonesuch" | grep title; echo "$?"
kill -INT $server; wait $server; echo "$?"
