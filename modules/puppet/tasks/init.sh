#!/bin/sh
# The request arrives on standard input and the report leaves on standard output: there is nothing to translate.

# The PATH of a service or of sudo may lack the folder of the program.
PATH=${PATH:+$PATH:}/usr/bin:/bin:/usr/local/bin
export PATH
command -v haproxy_server >/dev/null || {
    echo '{"_error": {"kind": "haproxy_server/not_installed", "msg": "haproxy_server is neither on the PATH of this host nor in /usr/bin or /usr/local/bin; install it", "details": {}}}'
    exit 127
}
# With Bolt's `tty` both outputs are one terminal, where progress would garble the report.
if [ -t 2 ]; then exec 2>/dev/null; fi
exec haproxy_server
