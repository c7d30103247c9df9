# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that a change and a query share."""

    DOCUMENTATION = r"""
options:
  backend:
    description:
      - >-
        The backends in which to find the servers: names or patterns, as a string or a list. All backends by default.
    type: list
    elements: str
  address:
    description:
      - >-
        The addresses in force of the servers: an IP address with or without a port, such as C(10.0.0.5),
        C(10.0.0.5:8080), C(::1) or C([::1]:80); a string (commas separate several) or a list. Without a port, any port
        matches. With O(server) or O(backend), a server must match these as well. HAProxy does not show the paths of
        servers on Unix sockets: name these with O(server). Any address by default.
    type: list
    elements: str
  instances:
    description:
      - >-
        The HAProxy instances of the target: names of discovered instances, addresses of stats sockets in HAProxy's
        notation (C(/path), C(unix@/path), C(abns@name), C(ipv4@127.0.0.1:9999), C(ipv6@[::1]:9999)), or objects with
        C(name) and C(socket); a string (commas separate several) or a list. All discovered instances by default.
    type: list
    elements: raw
    aliases: [socket]
  ignore_instances:
    description:
      - >-
        Instances of the target to leave alone on purpose: names or patterns of C(*), C(?) and C([...]), as a string or
        a list. Discovery skips them without a warning, even where it could not manage them. It has no effect on
        instances that O(instances) names. None by default.
    type: list
    elements: str
  on_missing:
    description:
      - >-
        What a listed server or backend that matches nothing means. V(fail) by default.
      - >-
        V(fail): An error if no selected instance has it.
      - >-
        V(fail_each): An error if any selected instance lacks it.
      - >-
        V(elsewhere_ok): An error if no instance of the target has it, selected or not.
      - >-
        V(ignore): Never an error.
    type: str
    choices: [fail, fail_each, elsewhere_ok, ignore]
    default: fail
  timeout:
    description:
      - >-
        The longest that one instance may take for one step in total, however often it answers in between, in seconds:
        for connecting, observing, one batch of commands, reading back, or one poll; from 0.001 to 86400, 10 by default.
        Fails with C(timeout). A dump that has begun is read to its end, or until 5 s of silence or 300 s in total,
        however short this is.
    type: float
    default: 10
  deadline:
    description:
      - >-
        The longest that the whole run may take, in seconds; from 0.001 to 86400. When the time is over, nothing new is
        sent, what was sent is read back, which may take another C(timeout), and the run fails with C(timeout). A
        rollback that C(on_failure) requests is carried out nevertheless. No limit by default.
    type: float
  executable:
    description:
      - The program on the target, as a path, or as a name that is looked up in C(PATH), then in C(/usr/bin) and
        C(/usr/local/bin).
    type: str
    default: haproxy_server
  executables:
    description:
      - A folder on the controller with the program for each architecture, as in C(x86_64/haproxy_server) or
        C(aarch64/haproxy_server), in the words of C(uname -m). It is looked up like the source of a copy.
      - Used only where O(executable) is missing on the target or too old. The program is sent for the task, and goes with it.
      - The folder C(roles/install/files) of this collection by default.
    type: path
"""
