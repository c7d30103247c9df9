# bash completion for haproxy_server. Written by `make schema`.
# shellcheck shell=bash

_haproxy_server() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev='' key='' words=''
    COMPREPLY=()
    if ((COMP_CWORD > 0)); then prev=${COMP_WORDS[COMP_CWORD - 1]}; fi
    # `=` is a word of its own here.
    if [[ $cur == '=' ]]; then
        key=$prev cur=''
    elif [[ $prev == '=' ]] && ((COMP_CWORD > 1)); then
        key=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case ${key:-$prev} in
        -f | --format) words='json text table nagios' ;;
        --schema) words='request report' ;;
    esac
    case $key in
        state) words='ready drain maint restore' ;;
        agent) words='enabled disabled' ;;
        diff) words='true false' ;;
        drain) words='true false' ;;
        drain.on_timeout) words='fail rollback maint shutdown' ;;
        dry_run) words='true false' ;;
        expect.admin_state) words='ready drain maint' ;;
        expect.operational_state) words='stopped starting running stopping' ;;
        health) words='enabled disabled' ;;
        ignore_owner) words='true false' ;;
        old_processes) words='count wait' ;;
        on_failure) words='keep rollback' ;;
        on_missing) words='fail fail_each elsewhere_ok ignore' ;;
        on_owned) words='fail skip' ;;
        on_unreachable) words='fail skip' ;;
        shutdown_sessions) words='true false' ;;
        syslog) words='true false' ;;
        wait) words='true false' ;;
        wait.need) words='all any' ;;
        wait.via) words='drain ready' ;;
    esac
    if [[ -n $words || -n $key ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W '--dry-run --format --detailed-exitcodes --schema --stdin-timeout --version --help server= state= weight= backend= instances= address= agent= deadline= diff= drain= drain.on_timeout= drain.stable= drain.timeout= dry_run= expect.admin_state= expect.operational_state= expires= guard.min_available= health= ignore_instances= ignore_owner= lock_timeout= old_processes= on_failure= on_missing= on_owned= on_unreachable= owner= reason= shutdown_sessions= shutdown_sessions.over= state_file= syslog= timeout= wait= wait.need= wait.stable= wait.timeout= wait.via=' -- "$cur")
    if [[ ${COMPREPLY[*]} == *= ]]; then compopt -o nospace; fi
    if ((${#COMPREPLY[@]} == 0)); then mapfile -t COMPREPLY < <(compgen -f -- "$cur"); fi
}

complete -F _haproxy_server haproxy_server
