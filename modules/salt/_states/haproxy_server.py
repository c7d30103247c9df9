"""
Keep HAProxy backend servers in or out of service
=================================================

:depends: the execution module ``haproxy_server``

.. code-block:: yaml

    web1:
      haproxy_server.maint:
        - drain:
            timeout: 300
        - guard:
            min_available: 1
        - owner: alice
        - reason: new disk

The name of a state is the server, or several with commas between them;
``server`` takes a list as well, and then the name is only a name. All other
fields of :py:func:`haproxy_server.apply <haproxy_server.apply>` are arguments
under their own names, but for ``state``, which Salt keeps for itself: see
:py:func:`haproxy_server.apply <haproxy_server.apply>` of the states.

With ``test=True`` the program plans and reports, and sends nothing that
changes anything.

A restart of HAProxy forgets what was set. A state compares with HAProxy
itself each time, so ``watch: [{service: haproxy}]`` is enough to run it after
the restart and to set again what was forgotten; ``listen`` does so at the end
of the run.
"""

import salt.utils.args
import salt.utils.stringutils
from salt.exceptions import CommandExecutionError, CommandNotFoundError, SaltInvocationError

__virtualname__ = "haproxy_server"


def __virtual__():
    """
    Goes with the execution module.
    """
    if "haproxy_server.apply" in __salt__:
        return __virtualname__
    return (
        False,
        "The haproxy_server state module cannot be loaded: "
        "the execution module haproxy_server is not there.",
    )


def status(name, server=None, **kwargs):
    """
    Holds when every server is ready and takes traffic, or with ``guard`` when
    every backend has that many usable servers; changes nothing.

    name
        The servers, unless ``server`` is given: names, ``backend/server``, or
        patterns, with commas between them.

    server
        The servers, as a list or as text.

    .. code-block:: yaml

        web1:
          haproxy_server.status:
            - retry:
                attempts: 10
                interval: 3
    """
    ret, report = _run(name, "status", server, kwargs)
    if ret["result"] and not report["ok"]:
        ret["result"] = False
        out = [_describe(each) for each in report["servers"] if not each["ok"]]
        ret["comment"] = "\n".join([ret["comment"]] + out)
    return ret


def ready(name, server=None, **kwargs):
    """
    Keeps servers in service.

    name
        The servers, unless ``server`` is given: names, ``backend/server``, or
        patterns, with commas between them.

    server
        The servers, as a list or as text.

    .. code-block:: yaml

        web1:
          haproxy_server.ready:
            - wait:
                timeout: 120
                stable: 5
            - owner: alice
    """
    return _run(name, "ready", server, kwargs)[0]


def drain(name, server=None, **kwargs):
    """
    Keeps new traffic away from servers, but for that of their persistence
    clients.

    name
        The servers, unless ``server`` is given: names, ``backend/server``, or
        patterns, with commas between them.

    server
        The servers, as a list or as text.

    .. code-block:: yaml

        app/web1:
          haproxy_server.drain
    """
    return _run(name, "drain", server, kwargs)[0]


def maint(name, server=None, **kwargs):
    """
    Keeps servers out of service.

    name
        The servers, unless ``server`` is given: names, ``backend/server``, or
        patterns, with commas between them.

    server
        The servers, as a list or as text.

    .. code-block:: yaml

        the web servers of the first rack:
          haproxy_server.maint:
            - server:
                - web1
                - web2
            - drain: true
            - guard:
                min_available: 50%
    """
    return _run(name, "maint", server, kwargs)[0]


def apply(name, server=None, admin_state=None, **kwargs):
    """
    Keeps servers in any state, weight and mode of checks that a request can
    ask for.

    name
        The servers, unless ``server`` is given: names, ``backend/server``, or
        patterns, with commas between them.

    server
        The servers, as a list or as text.

    admin_state
        The requested administrative state: ``ready``, ``drain`` or ``maint``.
        This is the field ``state`` of a request. Salt takes an argument of
        that name for its own, and drops it without a word.

    .. code-block:: yaml

        web1:
          haproxy_server.apply:
            - admin_state: ready
            # Of a configured weight of 1, HAProxy's default, 50% would be 0.
            - weight: 50%
            - health: enabled
    """
    kwargs["state"] = admin_state
    if all(kwargs.get(field) is None for field in ("state", "weight", "health", "agent")):
        return {
            "name": name,
            "result": False,
            "changes": {},
            "comment": "nothing is asked for: give 'admin_state' (Salt drops 'state'), "
            "'weight', 'health' or 'agent'",
        }
    return _run(name, "apply", server, kwargs)[0]


def mod_watch(name, sfun=None, **kwargs):
    """
    Runs the state again after what it watches has changed.

    .. note::
        This is for the ``watch`` and ``listen`` requisites, not to be called.
    """
    states = {"status": status, "ready": ready, "drain": drain, "maint": maint, "apply": apply}
    if sfun not in states:
        return {
            "name": name,
            "result": False,
            "changes": {},
            "comment": f"haproxy_server.{sfun} cannot watch anything",
        }
    ret = states[sfun](name, **kwargs)
    if __opts__["test"] and ret["result"] is True and sfun != "status":
        # What HAProxy will forget when it is restarted in earnest, nobody can see now.
        ret["result"] = None
        ret["comment"] += "; it would be compared again after the change of what it watches"
    return ret


def _run(name, function, server, kwargs):
    """
    Calls the execution function; returns what Salt wants of a state, and the
    report.
    """
    ret = {"name": name, "result": True, "changes": {}, "comment": ""}
    request = salt.utils.args.clean_kwargs(**kwargs)
    request["server"] = name if server is None else server
    if __opts__["test"]:
        request["test"] = True
    try:
        report = __salt__[f"haproxy_server.{function}"](**request)
    except CommandNotFoundError as error:
        # In test mode a state before this one has not installed the program.
        ret["result"] = None if __opts__["test"] else False
        ret["comment"] = str(error)
        return ret, {}
    except (CommandExecutionError, SaltInvocationError) as error:
        ret["result"] = False
        ret["comment"] = str(error)
        report = getattr(error, "info", None) or {}
    else:
        ret["comment"] = report["msg"]
        if report["dry_run"] and report["changed"]:
            ret["result"] = None
    ret["changes"] = _changes(report)
    if report.get("warnings"):
        ret["warnings"] = report["warnings"]
    return ret, report


def _changes(report):
    """
    Returns what was changed, or would be, in Salt's form.
    """
    changes = {}
    for server in report.get("servers", []):
        if server["changed"]:
            changes[_place(server)] = _difference(server)
    for instance in report.get("instances", []):
        whole = instance.get("state_file")
        for state_file in ([whole] if whole else []) + instance.get("state_files", []):
            if state_file["changed"]:
                changes[state_file["path"]] = "updated"
    diff = report.get("diff") or {}
    if diff.get("before") != diff.get("after"):
        before, after = (diff[part].splitlines(True) for part in ("before", "after"))
        changes["diff"] = salt.utils.stringutils.get_diff(before, after)
    return changes


def _difference(server):
    """
    Returns the settings of a server that are not as before.
    """
    before, after = server["before"], server["after"] or {}
    old, new = {}, {}
    for setting in ("admin_state", "operational_state", "weight"):
        if before[setting] != after.get(setting):
            old[setting], new[setting] = before[setting], after.get(setting)
    # Whether checks run is told by the commands only.
    for command in server["commands"]:
        verb, subject = command.split()[:2]
        if subject in ("health", "agent"):
            states = ("disabled", "enabled")
            old[subject], new[subject] = states if verb == "enable" else states[::-1]
    return {"old": old, "new": new}


def _place(server):
    return f"{server['backend']}/{server['server']} on {server['instance']}"


def _describe(server):
    state = server["after"] or server["before"]
    return f"{_place(server)}: {state['operational_state']}, {state['admin_state']}"
