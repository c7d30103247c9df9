# Installs programs from PyPI, pinned, under .cache/tools. Sourced by the scripts that run them.
#
# Before a call the script sets `repository`, and has a function `say`.
# shellcheck shell=bash

readonly python_tools_limit=300

# python_tools NAME FILE: sets `venv` to an environment of its own with the requirements in the file.
python_tools() {
    local tools whole
    mkdir -p "${repository:?}/.cache/tools"
    # Where it really is, since clones may share it by a link.
    tools=$(cd "$repository/.cache/tools" && pwd -P)
    venv=$tools/$1
    # A venv does not survive a move, so that its place is part of what it is.
    whole=$(cat "$2"; printf '%s' "$venv")
    if python_tools_present; then return; fi
    exec 9>"$venv.lock"
    flock -w "$python_tools_limit" 9
    if ! python_tools_present; then # or else another run was faster
        say "installing $1 into .cache/tools"
        python3 -m venv --clear "$venv" || {
            say "python3 cannot make environments: install the package python3-venv"
            exit 1
        }
        timeout "$python_tools_limit" "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
            --requirement "$2"
        printf '%s' "$whole" >"$venv/whole"
    fi
    exec 9>&-
}

python_tools_present() { [[ $(cat "$venv/whole" 2>/dev/null) == "$whole" ]] && "$venv/bin/python" -c '' 2>/dev/null; }
