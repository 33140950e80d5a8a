# Modules from `load_module`; one request on 127.0.0.1.
# packages: nginx-light libnginx-mod-http-echo curl
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir logs
{
  for module in /usr/lib/nginx/modules/*.so; do echo "load_module $module;"; done
  cat <<END
pid $PWD/nginx.pid; error_log stderr notice; daemon off; user root;
events {}
http {
  access_log off;
  client_body_temp_path $PWD/body; proxy_temp_path $PWD/proxy; fastcgi_temp_path $PWD/fastcgi;
  scgi_temp_path $PWD/scgi; uwsgi_temp_path $PWD/uwsgi;
  server { listen 127.0.0.1:$port; location / { echo hello; echo \$request_method; } }
}
END
} >nginx.conf
nginx -p "$PWD" -c "$PWD/nginx.conf" -t 2>errors; echo "$?"; grep -c 'syntax is ok' errors
nginx -p "$PWD" -c "$PWD/nginx.conf" 2>errors & server=$!
for try in $(seq 100); do [ -s nginx.pid ] && break; sleep 0.05; done
curl -s --retry 5 --retry-connrefused "http://127.0.0.1:$port/"; echo "$?"
kill -HUP $server; sleep 0.5
curl -s -X POST --retry 5 --retry-connrefused "http://127.0.0.1:$port/"; echo "$?"
kill -QUIT $server; wait $server; echo "$?"
