"""
Fires an event when a HAProxy backend server goes out of service or comes back
==============================================================================

:depends: the execution module ``haproxy_server``

.. code-block:: yaml

    beacons:
      haproxy_server:
        - server: web/*
        - interval: 10

``server``, ``backend``, ``address``, ``instances``, ``ignore_instances``,
``on_missing``, ``on_unreachable`` and ``timeout`` are those of :py:func:`haproxy_server.status
<haproxy_server.status>`; all servers of all instances by default.

The tag of an event ends in ``out`` or ``back``. Its data has ``instance``,
``backend``, ``server``, ``admin_state``, ``operational_state``, and, where
they are recorded, ``owner``, ``reason`` and ``expires``. What is out when the
minion starts is no event. When HAProxy cannot be asked, there is one event
with the tag ``error``, until it answers again.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "haproxy_server"

_FIELDS = (
    "server",
    "backend",
    "address",
    "instances",
    "ignore_instances",
    "on_missing",
    "on_unreachable",
    "timeout",
)

# Whether each server was in service, and what went wrong, when last seen.
_last = {"servers": None, "error": None}


def __virtual__():
    """
    Goes with the execution module.
    """
    if "haproxy_server.status" in __salt__:
        return __virtualname__
    return (
        False,
        "The haproxy_server beacon cannot be loaded: "
        "the execution module haproxy_server is not there.",
    )


def validate(config):
    """
    Validates the configuration.
    """
    if not isinstance(config, list):
        return False, "Configuration for haproxy_server beacon must be a list."
    own = ("interval", "enabled", "beacon_module", "disable_during_state_run")
    for name in _merged(config):
        if name not in _FIELDS + own:
            return False, f"'{name}' is not an option of the haproxy_server beacon."
    return True, "Valid beacon configuration."


def beacon(config):
    """
    Returns an event for each server that has gone out or come back since the
    last call.
    """
    given = _merged(config)
    try:
        report = __salt__["haproxy_server.status"](
            **{field: given[field] for field in _FIELDS if field in given}
        )
    except (CommandExecutionError, SaltInvocationError) as error:
        is_new = str(error) != _last["error"]
        _last["error"] = str(error)
        return [{"tag": "error", "error": str(error)}] if is_new else []
    _last["error"] = None
    before = _last["servers"]
    servers = {(each["instance"], each["backend"], each["server"]): each for each in report["servers"]}
    _last["servers"] = {key: each["ok"] for key, each in servers.items()}
    if before is None:
        return []
    return [_event(each) for key, each in servers.items() if before.get(key, each["ok"]) != each["ok"]]


def _event(server):
    event = {key: server[key] for key in ("instance", "backend", "server")}
    event.update((key, server["after"][key]) for key in ("admin_state", "operational_state"))
    event.update((key, server[key]) for key in ("owner", "reason", "expires") if key in server)
    event["tag"] = "back" if server["ok"] else "out"
    return event


def _merged(config):
    return {name: value for part in config for name, value in part.items()}
