# Unpacks packages of Debian's releases without installing anything. Sourced by the scripts that fetch what is tested.
#
# Before a call the script sets `work`, a folder of its own, and `source_entry`, the line of `debian_source`; it has a
# function `say`.
# shellcheck shell=bash

readonly update_limit=180 download_limit=300 tries=3
# The packages of shared libraries, by their names; for the scripts that source this.
# shellcheck disable=SC2034
readonly libraries='^(lib|zlib)'

# Prints the first Debian package source of this machine as `URI KEYRING`; KEYRING is `-` where none is named.
debian_source() {
    local keyring=- file
    for file in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        if [[ -r $file ]]; then keyring=$file && break; fi
    done
    if [[ -n ${DEBIAN_URI:-} ]]; then
        printf '%s %s\n' "$DEBIAN_URI" "$keyring"
        return
    fi
    shopt -s nullglob
    local files=(/etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources})
    shopt -u nullglob
    for file in "${files[@]}"; do
        if [[ -r $file ]]; then
            case $file in
            *.list) one_line_entries "$file" ;;
            *) deb822_entries "$file" ;;
            esac
        fi
    done | awk -v keyring="$keyring" '
        {
            # Others than Debian name their suites `stable` too.
            debian = $1 ~ /debian\/?$/ || $2 ~ /debian-archive/
            for (i = 3; i <= NF; i++) {
                codename = $i ~ /^(bullseye|bookworm|trixie|forky|sid)$/
                if (!codename && !(debian && $i ~ /^((old)*stable|testing|unstable)$/)) continue
                score = 2 * debian + codename
                if (score > best) { best = score; uri = $1; key = $2 ~ /^\// ? $2 : keyring }
            }
        }
        END { if (best) print uri, key }'
}

# Both print each source as `URI KEYRING-or-dash SUITE...`.
one_line_entries() {
    awk '$1 == "deb" {
        line = $0; key = "-"
        if (match(line, /\[[^]]*\]/)) {
            options = substr(line, RSTART + 1, RLENGTH - 2)
            line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
            n = split(options, option, /[ \t]+/)
            for (i = 1; i <= n; i++) if (sub(/^signed-by=/, "", option[i])) key = option[i]
        }
        split(line, word, /[ \t]+/)
        if (word[4] == "main" || line ~ /[ \t]main([ \t]|$)/) print word[2], key, word[3]
    }' "$1"
}

deb822_entries() {
    awk '
        function flush() {
            if (types ~ /(^| )deb( |$)/ && components ~ /(^| )main( |$)/ && enabled !~ /^(no|false|0)$/) {
                split(uris, uri, / +/)
                print uri[1], key ~ /^\// ? key : "-", suites
            }
            types = uris = suites = components = enabled = key = field = ""
        }
        /^#/ { next }
        /^[ \t]*$/ { flush(); next }
        /^[^ \t]/ { field = tolower($0); sub(/:.*/, "", field); sub(/^[^:]*:/, "") }
        {
            gsub(/^[ \t]+|[ \t]+$/, ""); gsub(/[ \t]+/, " ")
            if (field == "types") types = types " " $0
            else if (field == "uris") uris = uris == "" ? $0 : uris " " $0
            else if (field == "suites") suites = suites " " $0
            else if (field == "components") components = components " " $0
            else if (field == "enabled") enabled = $0
            else if (field == "signed-by" && key == "") key = $0
        }
        END { flush() }' "$1"
}

# Runs one of apt's programs on the private root, in bounded time.
apt() {
    local limit=$1
    shift
    APT_CONFIG=$root/apt.conf DEBIAN_FRONTEND=noninteractive timeout --kill-after=10 "$limit" "$@"
}

# Makes a private apt root for one suite, or for this machine's own release (`own`), and reads its package index.
open_root() {
    local suite=$1 uri keyring option="" try
    root=${work:?}/root-$suite
    mkdir -p "$root"/etc/apt/{apt.conf.d,preferences.d,sources.list.d,trusted.gpg.d} \
        "$root"/var/lib/dpkg "$root"/var/lib/apt/lists/partial "$root"/var/cache/apt/archives/partial
    : >"$root/var/lib/dpkg/status"
    if [[ $suite == own ]]; then
        local file
        for file in sources.list sources.list.d/; do
            if [[ -r /etc/apt/$file ]]; then cp -rL "/etc/apt/$file" "$root/etc/apt/"; fi
        done
    else
        read -r uri keyring <<<"${source_entry:?}"
        if [[ $keyring != - ]]; then option="[signed-by=$keyring] "; fi
        printf 'deb %s%s %s main\n' "$option" "$uri" "$suite" >"$root/etc/apt/sources.list"
    fi
    {
        # How this machine reaches its package source, e.g. a proxy.
        apt-config dump Acquire::http Acquire::https Acquire::Check-Date 2>/dev/null || true
        printf 'Dir "%s";\n' "$root"
        printf 'Dir::State::status "%s/var/lib/dpkg/status";\n' "$root"
        printf 'Dir::Etc::trustedparts "/etc/apt/trusted.gpg.d";\n'
        printf 'APT::Sandbox::User "root";\n'
        printf 'APT::Install-Recommends "false";\n'
        printf 'Acquire::Languages "none";\n'
        printf 'Acquire::Retries "2";\n'
        # An archived release or one in the making may be past the date of its index; its signature is what counts.
        printf 'Acquire::Check-Valid-Until "false";\n'
    } >"$root/apt.conf"
    for ((try = 1; try <= tries; try++)); do
        if apt "$update_limit" apt-get -qq -o APT::Update::Error-Mode=any update >"$work/log" 2>&1; then return; fi
        sleep "$try"
    done
    cat "$work/log" >&2
    return 1
}

# The version of a package that the opened root offers.
offered() { apt 60 apt-cache show --no-all-versions "$1" 2>/dev/null | sed -n 's/^Version: //p'; }

# unpack DIR PATTERN PACKAGE...: unpacks these packages and those of their dependencies whose names match the pattern:
# DIR/files as packed, DIR/lib all shared objects.
unpack() {
    local dir=$1 pattern=$2 wanted try
    shift 2
    # Nothing is installed on the private root, so that apt's own plan names every library.
    wanted=$(apt "$update_limit" apt-get -qq -s install "$@" |
        awk -v named=" $* " -v pattern="$pattern" '$1 == "Inst" && (index(named, " " $2 " ") || $2 ~ pattern) { print $2 }')
    if [[ -z $wanted ]]; then
        say "apt finds no way to have $* on its own"
        return 1
    fi
    mkdir -p "$dir/debs" "$dir/files" "$dir/lib"
    for ((try = 1; try <= tries; try++)); do
        # shellcheck disable=SC2086 # one word a package
        if (cd "$dir/debs" && apt "$download_limit" apt-get -qq download $wanted) >"$work/log" 2>&1; then break; fi
        if ((try == tries)); then
            cat "$work/log" >&2
            return 1
        fi
        sleep "$try"
    done
    local deb
    for deb in "$dir"/debs/*.deb; do dpkg-deb -x "$deb" "$dir/files"; done
    find "$dir/files" \( -path '*/gconv/*' -o -path '*/perl*' \) -prune -o \
        \( -name '*.so' -o -name '*.so.*' \) \( -type f -o -type l \) -print0 |
        while IFS= read -r -d '' deb; do
            if [[ -f $deb ]]; then cp -Ln "$deb" "$dir/lib/" 2>/dev/null || true; fi
        done
    rm -r "$dir/debs"
}
