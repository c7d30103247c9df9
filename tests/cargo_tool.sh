# Installs programs from crates.io, pinned, under .cache/tools. Sourced by the scripts that run them.
#
# Before a call the script sets `repository`, and has a function `say`.
# shellcheck shell=bash

readonly cargo_tool_limit=1800

# cargo_tool CRATE VERSION [OPTION...]: sets `bin` to the folder with its programs, and installs it where it is missing.
cargo_tool() {
    local crate=$1 version=$2 tools=${repository:?}/.cache/tools
    shift 2
    local root=$tools/$crate-$version
    # shellcheck disable=SC2034 # for the script that sources this
    bin=$root/bin
    if cargo_tool_present "$root" "$crate" "$version"; then return; fi
    mkdir -p "$tools"
    exec 9>"$tools/.$crate.lock"
    flock -w "$cargo_tool_limit" 9
    if ! cargo_tool_present "$root" "$crate" "$version"; then # or else another run was faster
        say "installing $crate $version into .cache/tools, which takes some minutes"
        local build=$tools/.$crate-build log=$tools/$crate.log
        # Not optimized: it runs for a moment, and builds in a third of the time. What is meant for the program is not
        # meant for its tools.
        if ! env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_PROFILE_DEV_DEBUG=0 timeout "$cargo_tool_limit" \
            "${CARGO:-cargo}" install "$crate" --version "=$version" --locked --debug "$@" --root "$root" \
            --target-dir "$build" >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            say "$crate $version cannot be installed: see above"
            exit 1
        fi
        rm -rf "$build"
    fi
    exec 9>&-
}

# Whether Cargo has noted this version as installed there, and everything that it put there starts.
cargo_tool_present() {
    grep -qs "\"$2 $3 " "$1/.crates2.json" || return 1
    local program
    for program in "$1"/bin/*; do
        "$program" --version >/dev/null 2>&1 || "$program" --help >/dev/null 2>&1 || return 1
    done
}
