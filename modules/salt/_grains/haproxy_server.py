"""
Tells the HAProxy instances of a minion, as the grain ``haproxy_instances``: a
list of dictionaries of ``name``, ``socket`` and ``version``.

.. code-block:: bash

    salt lb1 grains.get haproxy_instances

There is no such grain where the program ``haproxy_server`` is not installed.
"""

import json
import subprocess

import salt.utils.path
import salt.utils.platform

# The longest that a minion waits for it when it starts, in seconds.
_LIMIT = 10

# Matches nothing: the instances are asked, and no server is told.
_REQUEST = {"server": "-", "on_missing": "ignore", "on_unreachable": "skip", "timeout": 2}


def haproxy_instances():
    """
    Returns the grain ``haproxy_instances``.
    """
    if not salt.utils.platform.is_linux():
        return {}
    given = __opts__.get("haproxy_server")
    name = given.get("executable") if isinstance(given, dict) else None
    places = [name] if name else ["haproxy_server", "/usr/bin/haproxy_server", "/usr/local/bin/haproxy_server"]
    program = next(filter(None, map(salt.utils.path.which, places)), None)
    if program is None:
        return {}
    try:
        ran = subprocess.run(
            [program], input=json.dumps(_REQUEST).encode(), capture_output=True, check=False, timeout=_LIMIT
        )
        instances = json.loads(ran.stdout)["instances"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return {}
    keys = ("name", "socket", "version")
    return {"haproxy_instances": [{key: each[key] for key in keys if key in each} for each in instances]}
