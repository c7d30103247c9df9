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
        Names, ``backend/server``, or patterns of ``*``, ``?`` and ``[...]``,
        as a list or with commas between them. A change requires this or
        ``address``.

    state
        The requested administrative state: ``ready``, ``drain``, ``maint``, or
        ``restore`` (what each server was before it was taken out);
        also ``enabled`` and ``enable``, ``disabled`` and ``disable``.

    test
        Whether to report only what would be done.

    weight
        The requested weight: 0 to 256, or a percentage of the configured one,
        such as ``50%``. Of a configured weight of 1, HAProxy's default, that
        is 0.

    health
        ``enabled`` resumes health checks, ``disabled`` pauses them.

    agent
        ``enabled`` resumes agent checks, ``disabled`` pauses them.

    backend
        Only in these backends: names or patterns. All by default.

    address
        Only servers at these addresses: ``10.0.0.5`` with any port,
        ``10.0.0.5:8080``, or ``[::1]:80``. Any by default.

    instances
        The HAProxy instances of the minion: names, addresses of stats
        sockets, or dictionaries of ``name`` and ``socket``. All discovered
        ones by default.

    ignore_instances
        Instances of the minion to leave alone on purpose, without a warning:
        names or patterns. None by default.

    drain
        With ``maint``: drains the servers first. ``True``, or a dictionary of
        ``timeout`` (in seconds, 300 by default), ``stable`` (how long a
        server must have had no session, in seconds, 0 by default) and
        ``on_timeout`` (``fail``, ``rollback``, ``maint`` or ``shutdown``,
        ``fail`` by default).

    shutdown_sessions
        With ``maint``: ends the sessions that are left. ``False`` by default;
        ``True``, or a dictionary of ``over`` (the time over which they are
        ended evenly, in seconds, 0 by default).

    wait
        Waits for the effect of ``state``, or of a ``weight`` of 0: until
        servers take traffic (``ready``), or have no session left (``drain``,
        ``maint``, weight 0). ``True``, or a dictionary of ``timeout`` (in
        seconds, 60 by default), ``stable`` (how long servers must take
        traffic without interruption, in seconds, 0 by default), ``via`` (the
        state in which a server that leaves maint is checked first: ``drain``
        or ``ready``, ``drain`` by default) and ``need`` (whether a server
        must take traffic in ``all`` of its backends or in ``any``, ``all`` by
        default).

    old_processes
        With ``drain``, or with ``wait`` after ``drain`` and ``maint``: how
        processes from before a reload that still run count. ``count`` counts
        their sessions if they can be seen, ``wait`` waits until they have
        ended. ``count`` by default.

    guard
        Refuses a change that lowers the usable servers of a backend below
        this: a dictionary of ``min_available``, a number or a percentage,
        such as ``50%``. In a status, what every backend should have.

    expect
        Refuses a change of servers that are in another state: a dictionary
        of ``admin_state`` (``ready``, ``drain`` or ``maint``),
        ``operational_state`` (``stopped``, ``starting``, ``running`` or
        ``stopping``), or both.

    on_failure
        What happens to the changes when a later part fails: ``keep`` or
        ``rollback``, ``keep`` by default.

    state_file
        HAProxy's server-state file to keep in step: a path, or a dictionary
        of paths by ``instance`` or ``instance/backend``.

    owner
        Who takes the servers out, or puts them back. ``ready`` is refused
        if another owner has taken them out.

    reason
        Why they are taken out.

    expires
        Until when, as in ``+2h`` or ``2030-01-31T18:00:00Z``.

    ignore_owner
        With ``ready`` or ``drain``: puts servers back, or from maint to
        drain, although another owner has taken them out. ``False`` by
        default.

    on_owned
        With ``ready`` or ``drain``: what happens to servers that another
        owner has taken out. ``fail`` refuses the whole run, ``skip`` leaves
        them alone, ``fail`` by default.

    syslog
        Whether each change is written to the system log of the minion as
        well. ``True`` by default.

    lock_timeout
        The longest wait for another run on the same HAProxy, in seconds. 60
        by default.

    on_missing
        What a listed name that matches nothing means: ``fail``,
        ``fail_each``, ``elsewhere_ok`` or ``ignore``, ``fail`` by default.

    on_unreachable
        What an instance that does not answer means: ``fail`` or ``skip``,
        ``fail`` by default.

    dry_run
        The same as ``test``. ``False`` by default.

    diff
        Adds ``diff`` to the report: a line for each server, before and
        after. ``False`` by default.

    timeout
        The longest that one instance may take for one step in total, in
        seconds. 10 by default.

    deadline
        The longest that the whole run may take, in seconds. When the time is
        over, nothing new is sent, and the run fails. No limit by default.

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
