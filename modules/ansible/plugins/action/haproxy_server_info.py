# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same as haproxy_server, without the options that ask for a change."""

from __future__ import annotations

from ansible_collections.lbops.haproxy.plugins.action.haproxy_server import ActionModule as HAProxyServer


class ActionModule(HAProxyServer):
    """Runs a status of haproxy_server on the target."""

    options = (
        "server",
        "backend",
        "address",
        "instances",
        "ignore_instances",
        "guard",
        "on_missing",
        "on_unreachable",
        "timeout",
        "deadline",
        "executable",
        "executables",
    )
