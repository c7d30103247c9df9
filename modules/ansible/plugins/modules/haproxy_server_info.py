#!/usr/bin/python
# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation only: the action plugin of this name does the work, so that the target needs no Python.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haproxy_server_info
short_description: Tell how HAProxy backend servers are
version_added: 1.0.0
description:
  - Tells the state of servers in all backends of all HAProxy instances of the target, their sessions and checks, and who
    has taken them out of service.
  - M(lbops.haproxy.haproxy_server) without a change returns the same.
author:
  - The haproxy_server authors (@lbops)
requirements:
  - The program haproxy_server on the target. Where it is missing or too old, the one for the target's architecture is sent
    from the controller, if it is there (O(executables)). The target needs no Python.
  - HAProxy 2.2 or later with a stats socket on the target.
extends_documentation_fragment:
  - action_common_attributes
  - action_common_attributes.conn
  - action_common_attributes.flow
  - lbops.haproxy.request
attributes:
  action:
    support: full
  async:
    support: none
    details: Asynchronous tasks need Python on the target. A query does not wait.
  become:
    support: full
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: Changes nothing in any mode.
  connection:
    support: full
  delegation:
    support: full
  diff_mode:
    support: N/A
    details: Changes nothing.
  platform:
    support: full
    platforms: linux
options:
  server:
    description:
      - The servers, as names, as C(backend/server), or as patterns of C(*), C(?) and C([...]) on each side of at most one
        C(/).
      - All servers by default.
    type: list
    elements: str
    aliases: [host]
  guard:
    description:
      - The returned C(ok) then means that every matched backend has at least this many usable servers.
      - Usable servers take traffic. They are ready, running or starting, with a weight above 0, in a backend that is neither
        disabled nor unpublished. Backup servers count only if no other server is usable, and then as one.
    type: dict
    suboptions:
      min_available:
        description:
          - The fewest usable servers of a backend, as a number from V(0) to V(1000000), or as a percentage from V(0%) to
            V(100%) of its servers that the configuration neither disables nor marks C(backup), spare slots aside, rounded
            up.
        type: str
        required: true
  on_unreachable:
    description:
      - What an instance that does not answer means. With V(fail) it is an error. With V(skip) it is a warning, and the
        other instances are asked.
    type: str
    choices: [fail, skip]
    default: fail
seealso:
  - module: lbops.haproxy.haproxy_server
"""

EXAMPLES = r"""
- name: Look at all servers of all instances
  lbops.haproxy.haproxy_server_info:
  become: true
  register: haproxy

- name: See whether each backend has two usable servers
  lbops.haproxy.haproxy_server_info:
    guard:
      min_available: 2
  become: true
  register: enough
  failed_when: enough is failed or not enough.ok

- name: Name those that are not in service
  ansible.builtin.debug:
    msg: "{{ haproxy.servers | rejectattr('ok') | map(attribute='server') | unique }}"

- name: Wait until web1 takes traffic again
  lbops.haproxy.haproxy_server_info:
    server: web1
  become: true
  register: web1
  until: web1.ok
  retries: 10
  delay: 3
"""

RETURN = r"""
msg:
  description: What was seen or what failed, in one sentence.
  returned: always
  type: str
  sample: "web1: ok in 1 of 1 backend on 1 of 3 instances"
ok:
  description: Whether every matched server takes traffic, spare slots aside. With O(guard), whether every matched backend
    keeps at least that many servers in traffic.
  returned: when the program has run
  type: bool
servers:
  description: Every matched server, instances as asked for, servers as HAProxy lists them.
  returned: when the program has run
  type: list
  elements: dict
  contains:
    instance:
      description: The instance that it is on.
      returned: always
      type: str
      sample: http
    backend:
      description: The backend that it is in.
      returned: always
      type: str
      sample: web
    server:
      description: The server.
      returned: always
      type: str
      sample: web1
    address:
      description: Its address and port, or V(-) where HAProxy knows none.
      returned: always
      type: str
      sample: 192.0.2.1:8080
    after:
      description: How it is. V(before) is the same.
      returned: always
      type: dict
      contains:
        admin_state:
          description: The effective administrative state, V(ready), V(drain) or V(maint).
          returned: always
          type: str
          sample: ready
        operational_state:
          description: What the checks make of it, V(stopped), V(starting), V(running) or V(stopping).
          returned: always
          type: str
          sample: running
        weight:
          description: The weight that is in force.
          returned: always
          type: int
          sample: 1
        configured_weight:
          description: The weight in the configuration, which a percentage refers to.
          returned: always
          type: int
          sample: 1
        reasons:
          description: What makes the administrative state what it is, V(forced), V(config), V(inherited) or V(dns).
          returned: always
          type: list
          elements: str
          sample: []
        admin_flags:
          description: HAProxy's own mask of administrative flags.
          returned: always
          type: int
          sample: 0
    ok:
      description: Whether it takes traffic.
      returned: always
      type: bool
    not_ok:
      description: Why it takes no traffic, in a few words.
      returned: if it takes none
      type: str
      sample: weight 0
    spare:
      description: Whether it is a slot of a C(server-template) without an address, which is no part of what is ok.
      returned: if it is
      type: bool
    sessions:
      description: Its sessions when they were last seen.
      returned: always
      type: int
    queue:
      description: The requests in its queue when they were last seen.
      returned: always
      type: int
    check:
      description: What its last health check found, in HAProxy's words.
      returned: with checks
      type: str
      sample: L7OK
    tracks:
      description: The server that it tracks, as C(backend/server).
      returned: where it does
      type: str
    owner:
      description: Who has taken it out.
      returned: where that was recorded
      type: str
    reason:
      description: Why it was taken out.
      returned: where that was recorded
      type: str
    expires:
      description: Until when it was to be out.
      returned: where that was recorded
      type: str
    since:
      description: Since when it is out.
      returned: if that was recorded
      type: str
    expired:
      description: Whether that time is over.
      returned: with C(expires)
      type: bool
instances:
  description: Every instance that was asked.
  returned: when the program has run
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      returned: always
      type: str
      sample: http
    socket:
      description: The address of the socket that it was asked at, in HAProxy's notation.
      returned: always
      type: str
      sample: /run/haproxy/http.sock
    version:
      description: The version of its HAProxy.
      returned: where it answered
      type: str
      sample: 3.2.4
    pid:
      description: The id of the process that answered last.
      returned: where one did
      type: int
    matched:
      description: How many of its servers matched.
      returned: always
      type: int
    old_processes:
      description: HAProxy processes from before a reload that still run, and ignore what is set now.
      returned: if there are any
      type: list
      elements: dict
      contains:
        pid:
          description: The id of the process.
          returned: always
          type: int
        sessions:
          description: The sessions and queued requests that it still has for the matched servers. V(null) if they cannot be
            seen, because no master CLI leads to it.
          returned: always
          type: int
warnings:
  description: What is worth knowing although it is no failure.
  returned: when the program has run
  type: list
  elements: str
contract:
  description: The version of the contract that the program keeps.
  returned: when the program has run
  type: int
version:
  description: The version of the program. A warning says so where it is not the one that this collection was made for.
  returned: when the program has run
  type: str
  sample: 1.0.0
error:
  description: The first failure.
  returned: when the program has run and failed
  type: dict
  contains:
    kind:
      description: What went wrong, as a stable word, as in V(guard_refused) or V(not_drained).
      returned: always
      type: str
      sample: not_drained
    msg:
      description: What happened, where, and what to do about it, in one sentence.
      returned: always
      type: str
    instance:
      description: The instance that it happened on.
      returned: where there is one
      type: str
    backend:
      description: The backend that it happened on.
      returned: where there is one
      type: str
    server:
      description: The server that it happened on.
      returned: where there is one
      type: str
    retryable:
      description: Whether the same task may succeed later by itself.
      returned: always
      type: bool
"""
