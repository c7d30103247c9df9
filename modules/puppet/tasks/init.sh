#!/bin/sh
# The request is on standard input, the report goes to standard output: there is nothing to translate.
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin
export PATH
command -v haproxy_server >/dev/null || {
    echo '{"_error": {"kind": "haproxy_server/not_installed", "msg": "haproxy_server is not on the PATH of this host; install it there", "details": {}}}'
    exit 127
}
exec haproxy_server
