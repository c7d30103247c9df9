"""
Takes HAProxy backend servers out of service and puts them back, in all
backends of all HAProxy instances of a minion.

:depends: the program ``haproxy_server``

The program is looked up when a function is called, so that a state earlier in
the same run may install it: on the ``PATH`` of the minion, then in
``/usr/bin`` and ``/usr/local/bin``. Another place is set in the configuration
of the minion, or in its pillar:

.. code-block:: yaml

    haproxy_server:
      executable: /opt/haproxy_server/bin/haproxy_server

Every function returns the report of the program. What has failed raises an
error with the program's own sentences, so that the exit code is not zero.
"""

import salt.utils.args
import salt.utils.json
import salt.utils.path
import salt.utils.platform
from salt.exceptions import (
    CommandExecutionError,
    CommandNotFoundError,
    SaltInvocationError,
)

__virtualname__ = "haproxy_server"

# Looked in after PATH, which a service or sudo may have cut short.
_FOLDERS = ("/usr/bin", "/usr/local/bin")

# The version of the program that this extension was made for and tested with: its own.
_MADE_FOR = "1.0.0"

# The fields of a request that ask for a change.
_CHANGES = ("state", "weight", "health", "agent")


def __virtual__():
    """
    The program is not looked for here: it may be installed later.
    """
    if salt.utils.platform.is_linux():
        return __virtualname__
    return (
        False,
        "The haproxy_server execution module cannot be loaded: it needs Linux.",
    )


def status(server=None, test=None, **kwargs):
    """
    Tells how servers are, and changes nothing. In the report, ``ok`` says
    whether each of them is ready and takes traffic; with ``guard``, whether
    every backend has that many usable servers.

    server
        Names, ``backend/server``, or patterns, as a list or with commas
        between them. All servers by default.

    test
        Accepted, and of no effect.

    The fields ``backend``, ``address``, ``instances``, ``ignore_instances``, ``guard``,
    ``on_missing``, ``on_unreachable``, ``timeout``, ``deadline`` and ``diff`` of
    :py:func:`haproxy_server.apply <haproxy_server.apply>` can be given as well.

    CLI Example:

    .. code-block:: bash

        salt '*' haproxy_server.status
        salt '*' haproxy_server.status web1 instances=http
        salt '*' haproxy_server.status backend=app guard='{min_available: 2}'
    """
    for field in _CHANGES:
        if kwargs.get(field) is not None:
            raise SaltInvocationError(
                f"haproxy_server.status changes nothing: use haproxy_server.apply for '{field}'"
            )
    return _run(dict(kwargs, server=server), test)


def ready(server=None, test=None, **kwargs):
    """
    Puts servers back into service.

    server
        Names, ``backend/server``, or patterns, as a list or with commas
        between them.

    test
        Whether to report only what would be done.

    All fields of :py:func:`haproxy_server.apply <haproxy_server.apply>` but
    ``state`` can be given as well.

    CLI Example:

    .. code-block:: bash

        salt '*' haproxy_server.ready web1
        salt '*' haproxy_server.ready web1 wait='{timeout: 120, stable: 5}' owner=alice
    """
    return _set("ready", server, test, kwargs)


def drain(server=None, test=None, **kwargs):
    """
    Keeps new traffic away from servers, but for that of their persistence
    clients.

    To take servers out of service once they are drained, use
    :py:func:`haproxy_server.maint <haproxy_server.maint>` with ``drain``.

    server
        Names, ``backend/server``, or patterns, as a list or with commas
        between them.

    test
        Whether to report only what would be done.

    All fields of :py:func:`haproxy_server.apply <haproxy_server.apply>` but
    ``state`` can be given as well.

    CLI Example:

    .. code-block:: bash

        salt '*' haproxy_server.drain web1
        salt '*' haproxy_server.drain app/web1 wait='{timeout: 300}'
    """
    return _set("drain", server, test, kwargs)


def maint(server=None, test=None, **kwargs):
    """
    Takes servers out of service.

    server
        Names, ``backend/server``, or patterns, as a list or with commas
        between them.

    test
        Whether to report only what would be done.

    All fields of :py:func:`haproxy_server.apply <haproxy_server.apply>` but
    ``state`` can be given as well.

    CLI Example:

    .. code-block:: bash

        salt '*' haproxy_server.maint web1 test=True
        salt '*' haproxy_server.maint web1,web2 drain='{timeout: 60}' guard='{min_available: 1}'
        salt '*' haproxy_server.maint web1 owner=alice reason='new disk' expires=+2h
    """
    return _set("maint", server, test, kwargs)


def apply(server=None, state=None, test=None, **kwargs):
    """
    Brings servers into any state, weight and mode of checks that a request
    can ask for.

    server
        The servers: names, ``backend/server``, or patterns with ``*``, ``?``
        and ``[...]`` on each side of at most one ``/``; a string (commas
        separate several) or a list. Names are case-sensitive. A change requires
        this or ``address``; a status without both covers all servers.

    state
        The requested administrative state. ``ready`` takes traffic, ``drain``
        takes only the traffic of persistence clients, ``maint`` takes none.
        ``restore`` puts each server back to the state and weight that it had
        before it was taken out, if that was recorded (with ``owner``,
        ``reason`` or ``expires``); any other server is left alone, with a
        warning. It is a step towards service like ``ready``. Also accepted:
        ``enabled`` and ``enable`` for ``ready``, ``disabled`` and ``disable``
        for ``maint``. Spare slots of a ``server-template`` (without an address)
        that only a pattern matches are left alone by ``ready`` and ``drain``,
        with a warning; named ones fail with ``unreachable_state``. Unchanged by
        default.

        * ``ready``: In service.
        * ``drain``: Takes no new traffic except from persistence clients.
        * ``maint``: In maintenance: takes no traffic.
        * ``restore``: What each server was, with its weight, before it was
          taken out.

    test
        Whether to report only what would be done.

    weight
        The requested weight: a number from 0 to 256, or a percentage of the
        configured weight, such as ``"50%"``. Like the state, it is set only if
        it differs. A server with weight 0 takes no new traffic except from
        persistence clients. A percentage that rounds down to 0 fails with
        ``unreachable_state``, unless it is ``"0%"``. Unchanged by default.

    health
        Whether the servers' health checks run: ``enabled`` resumes them,
        ``disabled`` pauses them. A server without one is left as it is, with a
        warning. Unchanged by default.

        * ``enabled``: They run.
        * ``disabled``: They are paused.

    agent
        Whether the servers' agent checks run: ``enabled`` resumes them,
        ``disabled`` pauses them, so that an agent cannot override the state. A
        server without one is left as it is, with a warning. Unchanged by
        default.

        * ``enabled``: They run.
        * ``disabled``: They are paused.

    backend
        The backends in which to find the servers: names or patterns, as a
        string or a list. All backends by default.

    address
        The addresses in force of the servers: an IP address with or without a
        port, such as ``10.0.0.5``, ``10.0.0.5:8080``, ``::1`` or ``[::1]:80``;
        a string (commas separate several) or a list. Without a port, any port
        matches. With ``server`` or ``backend``, a server must match these as
        well. HAProxy does not show the paths of servers on Unix sockets: name
        these with ``server``. Any address by default.

    instances
        The HAProxy instances of the minion: names of discovered instances,
        addresses of stats sockets in HAProxy's notation (``/path``,
        ``unix@/path``, ``abns@name``, ``ipv4@127.0.0.1:9999``,
        ``ipv6@[::1]:9999``), or objects with ``name`` and ``socket``; a string
        (commas separate several) or a list. All discovered instances by
        default.

    ignore_instances
        Instances of the minion to leave alone on purpose: names or patterns of
        ``*``, ``?`` and ``[...]``, as a string or a list. Discovery skips them
        without a warning, even where it could not manage them. It has no effect
        on instances that ``instances`` names. None by default.

    drain
        With ``state: maint``: drains the servers first, in all backends of all
        instances at once and under one deadline; each goes to maint as soon as
        it has no session and no queued request left (``scur`` and ``qcur`` of
        ``show stat``, which do not count idle keep-alive connections), no
        session has begun on it since the previous poll (``stot``), and both
        have held for ``stable`` seconds. Sessions on processes from before a
        reload count if a master CLI shows them. A server that is down goes
        there at once, one that is in maint stays there. ``true`` means 300 s,
        ``fail`` and 0 s. Off by default.

        * ``on_timeout``: What happens to servers that still have sessions then.
          ``fail``: They stay in drain, and the run fails. ``rollback``: They
          are rolled back, and so is everything else that the run has changed;
          the run fails. ``maint``: They go to maint, with a warning; their
          sessions continue. ``shutdown``: They go to maint and their sessions
          are ended, with a warning. ``fail`` by default.
        * ``stable``: How long a server must have had no session, old or new, in
          seconds; from 0 to 86400. ``0`` by default.
        * ``timeout``: The longest wait for sessions to end, in seconds; from 0
          (they are polled twice) to 86400. ``300`` by default.

    shutdown_sessions
        With ``state: maint``: ends the sessions that are left after the change,
        again and again until none is left. Fails with ``not_drained`` when the
        time is up: that of ``drain``, otherwise of ``wait``, otherwise
        ``timeout``. Clients see their connections cut; with ``{"over":
        SECONDS}`` they are ended evenly over that time, so that their clients
        do not all reconnect at once. ``false`` by default.

        * ``over``: The time over which the sessions are ended evenly, in
          seconds; from 0 (all at once) to 86400. ``0`` by default.

    wait
        Waits for the effect of ``state``, or of ``weight: 0``. With ``ready``,
        a server that leaves maint goes through drain, where HAProxy checks it
        without giving it new traffic, and becomes ready once a check has
        passed; then it must take traffic: its weight is above 0 and slowstart
        is over. If a passed check cannot be seen (``fall 1``, ``init-state
        fully-up``, an agent check alone), it must stay up for 5 s instead. A
        server without a check, or with a paused one, becomes ready at once.
        After ``drain``, ``maint`` and ``weight: 0``, waits until no session is
        left. Fails with ``not_up`` or ``not_drained``. ``true`` means 60 s. Off
        by default.

        * ``need``: With ``ready``: in how many of its matched backends a server
          must take traffic. ``all``: In each of them. ``any``: In at least one
          on each instance, as with a primary and its replicas; in the others it
          becomes ready once a check has failed there, or when the time is up:
          before that, HAProxy would give it the traffic of a role that it may
          not have. ``all`` by default.
        * ``stable``: After ``ready``: how long a server must take traffic
          without interruption, in seconds; from 0 to 86400. ``0`` by default.
        * ``timeout``: The longest wait, in seconds; from 0 to 86400. ``60`` by
          default.
        * ``via``: With ``ready``: the state in which a server that leaves maint
          is checked first. ``drain``: Drain: HAProxy checks it and gives it no
          new traffic; it becomes ready once a check has passed since it left
          maint. A server without checks becomes ready at once. ``ready``:
          Ready: clients may find out that it does not work before a check does.
          ``drain`` by default.

    old_processes
        With ``drain``, or with ``wait`` after ``drain`` and ``maint``: how
        processes from before a reload that still run count. ``count`` by
        default.

        * ``count``: Their sessions count if they can be seen; otherwise they
          are a warning.
        * ``wait``: No server is free until they have ended, within the time of
          ``drain`` or ``wait``.

    guard
        Refuses, before anything is sent anywhere, a change that lowers the
        number of usable servers of a backend below this. Usable servers take
        traffic: they are ready, running or starting, with a weight above 0, in
        a backend that is neither ``disabled`` nor unpublished. Backup servers
        count as HAProxy uses them: only if no other server is usable, and then
        as one. Servers that track a changed one count as they would be after
        the change. Needs the lock that keeps other runs out. In a status, the
        report's ``ok`` then means that every matched backend keeps at least
        that many servers in traffic, and the text form lists only servers of
        backends that do not. No guard by default.

        * ``min_available``: The fewest usable servers of a backend: a number
          from 0 to 1000000, or a percentage from ``"0%"`` to ``"100%"`` of its
          servers that the configuration neither disables nor marks ``backup``,
          spare slots aside, rounded up.

    expect
        Refuses as ``expectation_failed``, before anything is sent anywhere, a
        change of a server that is in another state than this. Servers that need
        no change may be in any state, so a second run passes. No expectation by
        default.

        * ``admin_state``: The effective administrative state of every server
          that is changed. Any by default. ``ready``: In service. ``drain``:
          Takes no new traffic except from persistence clients. ``maint``: In
          maintenance: takes no traffic.
        * ``operational_state``: The operational state of every server that is
          changed. Any by default. ``stopped``: Takes no traffic: it is down, or
          in maintenance. ``starting``: Takes a growing share of traffic:
          ``slowstart`` is in progress. ``running``: Takes traffic.
          ``stopping``: Takes only the traffic of its persistence clients: its
          check answers 404.

    on_failure
        What happens to the changes of this run when a later part of it fails,
        or when a signal ends it. Whatever somebody else has changed in the
        meantime is left alone. ``keep`` by default.

        * ``keep``: They are kept.
        * ``rollback``: They are rolled back, in reverse order.

    state_file
        Keeps HAProxy's server-state file in step with the state of the servers,
        so that it survives a reload: the absolute path of the file (for a
        single instance), or an object of names and paths. A name is
        ``instance``, for all rows of that instance, or ``instance/backend``,
        for the rows of one backend (``load-server-state-from-file local``);
        each file may be given only once. The rows of the matched servers are
        compared even if HAProxy needs no command; a difference is written and
        counts as ``changed``. The configuration must load the file
        (``server-state-file`` and ``load-server-state-from-file``). None by
        default.

    owner
        Who takes the server out, or puts it back: recorded on the minion with
        ``drain`` and ``maint``; ``ready`` and ``restore`` are refused
        (``owned``) if another owner is recorded, or any owner if this is
        missing. At most 200 characters. None by default.

    reason
        Why the server is taken out: recorded with ``drain`` and ``maint``, and
        shown in a status. At most 200 characters. None by default.

    expires
        With ``drain`` and ``maint``: until when the server is meant to be out,
        as an RFC 3339 time with its offset, or ``+`` and a duration in units of
        s, m, h, d and w; in the future, at most a hundred years ahead. After
        that, ``ready`` is no longer refused and a status says ``expired``, but
        nothing puts the server back automatically. No expiry by default: the
        record counts as long as the server stays in that state.

    ignore_owner
        With ``state: ready``, ``restore`` or ``drain``: puts a server back, or
        from maint to drain, although another owner is recorded. ``false`` by
        default.

    on_owned
        With ``state: ready``, ``restore`` or ``drain``: what happens to servers
        that another owner has taken out. ``fail`` by default.

        * ``fail``: The whole run is refused (``owned``), and nothing is changed
          anywhere.
        * ``skip``: They are left alone, with a warning; the others are managed.
          For runs that repeat by themselves.

    syslog
        Whether each change of a server is written to the system log
        (``/dev/log``) as well: one line with the instance, the server, the
        states before and after, owner, reason and calling user. A host without
        a system log is fine. ``true`` by default.

    lock_timeout
        The longest wait for another run that changes servers of the same
        HAProxy, in seconds; from 0 (one attempt) to 86400, 60 by default. Fails
        with ``locked``. It starts again each time that the lock is retaken
        after a wait.

    on_missing
        What a listed server or backend that matches nothing means. ``fail`` by
        default.

        * ``fail``: An error if no selected instance has it.
        * ``fail_each``: An error if any selected instance lacks it.
        * ``elsewhere_ok``: An error if no instance of the minion has it,
          selected or not.
        * ``ignore``: Never an error.

    on_unreachable
        What an instance that does not answer means. ``fail`` by default.

        * ``fail``: An error, and nothing is changed anywhere.
        * ``skip``: A warning; the other instances are managed.

    dry_run
        The same as ``test``. ``False`` by default.

    diff
        Adds ``diff`` to the report: a line for each server, before and after;
        in the text form for each server that changes. ``false`` by default.

    timeout
        The longest that one instance may take for one step in total, however
        often it answers in between, in seconds: for connecting, observing, one
        batch of commands, reading back, or one poll; from 0.001 to 86400, 10 by
        default. Fails with ``timeout``. A dump that has begun is read to its
        end, or until 5 s of silence or 300 s in total, however short this is.

    deadline
        The longest that the whole run may take, in seconds; from 0.001 to
        86400. When the time is over, nothing new is sent, what was sent is read
        back, which may take another ``timeout``, and the run fails with
        ``timeout``. A rollback that ``on_failure`` requests is carried out
        nevertheless. No limit by default.

    CLI Example:

    .. code-block:: bash

        salt '*' haproxy_server.apply web1 weight=20
        salt '*' haproxy_server.apply web1 state=drain health=disabled test=True
    """
    return _run(dict(kwargs, server=server, state=state), test)


def _set(state, server, test, kwargs):
    """
    Runs a request whose state the name of the function says.
    """
    if kwargs.get("state") is not None:
        raise SaltInvocationError(
            f"haproxy_server.{state} says the state already: leave out 'state', "
            "or use haproxy_server.apply"
        )
    return _run(dict(kwargs, server=server, state=state), test)


def _run(request, test):
    """
    Hands a request to the program and returns its report.
    """
    request = salt.utils.args.clean_kwargs(**request)
    # Besides `dry_run`, so that neither lifts the other; the program reads both alike.
    request["_noop"] = test
    executable = __salt__["config.get"]("haproxy_server:executable", "haproxy_server")
    program = _find(executable)
    ran = __salt__["cmd.run_all"](
        [program],
        # What JSON does not know, as a date from a renderer in Python, becomes text: the program
        # judges it.
        stdin=salt.utils.json.dumps(request, default=str),
        python_shell=False,
        ignore_retcode=True,
    )
    try:
        report = _printable(salt.utils.json.loads(ran["stdout"]))
        failed = report["failed"]
    except (ValueError, TypeError, KeyError):
        said = _printable(ran["stderr"] or ran["stdout"] or "nothing")
        raise CommandExecutionError(
            f"{program} gave no report, ended with exit code {ran['retcode']} and said: {said}"
        ) from None
    version = report.get("version", _MADE_FOR)
    if version != _MADE_FOR:
        other = f"this minion has haproxy_server {version}, and the Salt modules were made for {_MADE_FOR}"
        report.setdefault("warnings", []).append(other)
    if failed:
        sentences = _failures(report)
        if version != _MADE_FOR:
            sentences.append(other)
        error = CommandExecutionError("\n".join(sentences))
        # For the states, and not as an argument, which would add all of it to the text.
        error.info = report
        raise error
    return report


def _find(executable):
    """
    Returns the path of the program.
    """
    places = [executable]
    if "/" not in executable:
        places += [f"{folder}/{executable}" for folder in _FOLDERS]
    program = next(filter(None, map(salt.utils.path.which, places)), None)
    if program is None:
        raise CommandNotFoundError(
            f"the program '{executable}' is not on this minion: install it in /usr/bin, or "
            "set 'haproxy_server:executable' in the configuration of the minion"
        )
    return program


def _printable(value):
    """
    Escapes what a terminal would obey, at any depth.
    """
    if isinstance(value, dict):
        return {_printable(name): _printable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(
        sign if sign.isprintable() or sign == "\n" else f"\\u{{{ord(sign):x}}}" for sign in value
    )


def _failures(report):
    """
    Returns a sentence for each failure: the one of the report, which names
    the first, and those of the others.
    """
    sentences = [report["msg"]]
    for part in report["instances"] + report["servers"]:
        error = part.get("error")
        if error and error != report["error"]:
            sentence = error["msg"]
            if error.get("instance"):
                sentence = f"{error['instance']}: {sentence}"
            if sentence not in sentences:
                sentences.append(sentence)
    return sentences
