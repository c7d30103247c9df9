# What the installs beside this file need from the system. They source it after `repository` and `tool` are set.
# shellcheck shell=bash

: "${repository:?}" "${tool:?}"

say() { printf '%s\n' "make: $tool: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# need PACKAGE COMMAND...: where the command fails, installs the Debian package, if that can be done here.
need() {
    local package=$1
    shift
    if "$@" >/dev/null 2>&1; then return; fi
    install_packages "$package" || fail "'$*' does not work: install the package $package"
    "$@" >/dev/null 2>&1 || fail "'$*' does not work even with the package $package"
}

# Installs Debian packages as root, one run at a time, and starts no service. The lists may be old, or there may be none.
install_packages() {
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then return 1; fi
    say "installing $*"
    local log=$repository/.cache/apt-$tool.log
    mkdir -p "$repository/.cache"
    (
        flock -w 900 9 || exit 1
        export SYSTEMD_OFFLINE=1 RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
        install=(timeout 600 apt-get -o DPkg::Lock::Timeout=120 install -qq --yes --no-install-recommends "$@")
        "${install[@]}" >"$log" 2>&1 9>&- && exit 0
        timeout 180 apt-get -qq update >>"$log" 2>&1 9>&- || true
        "${install[@]}" >>"$log" 2>&1 9>&-
    ) 9>"$repository/.cache/apt.lock" || { tail -n 5 "$log" >&2 && return 1; }
}
