{#- Works on servers, batch by batch: takes them out of service on all load balancers, applies states to them, and puts
    them back. Run it on the master; README.md says more.

      salt-run state.orch haproxy_server.rolling_maintenance pillar="$(tr '\n' ' ' <plan.json)" test=True

    In the pillar, `rolling_maintenance` is the plan:

      load_balancers   the minions with HAProxy and haproxy_server, as a compound target
      servers          names in HAProxy, each with the id of its minion, in the order of the work
      batch            how many of them at a time; 1 by default
      sls              what is applied to their minions while they are out of service
      take_out         more fields of the request that takes them out, besides `drain: true`
      put_back         more fields of the request that puts them back, besides `wait: true`
-#}
{%- set plan = pillar['rolling_maintenance'] -%}
{%- set take_out = dict({'drain': true}, **plan.get('take_out', {})) -%}
{%- set put_back = dict({'wait': true}, **plan.get('put_back', {})) -%}
{%- set expected = {'expect': take_out['expect']} if take_out.get('expect') else {} -%}

{%- macro on_load_balancers(servers, state, fields) %}
  salt.state:
    - tgt: {{ plan['load_balancers'] | json }}
    - tgt_type: compound
    - sls: haproxy_server.apply
    - pillar:
        haproxy_server:
          request: {{ dict(fields, server=servers, state=state) | json }}
    # Waits for other state runs there, and a failure does not keep the servers from coming back.
    - queue: true
    - failhard: false
{%- endmacro -%}

{%- set batches = plan['servers'].items() | batch(plan.get('batch', 1)) | list -%}
{%- for batch in batches %}
{%- set servers = batch | map('first') | list %}
{%- set title = servers | join(', ') %}
{%- set previous = batches[loop.index0 - 1] | map('first') | join(', ') %}

# Dry runs on all load balancers: where one would refuse either, nothing is changed on any. A server that is out already needs
# no change to be taken out, so that only the way back meets another owner, or a state that is not expected.
{{ title }} can come back:
  {{- on_load_balancers(servers, 'ready', dict(put_back, **expected)) }}
    - test: true
{%- if not loop.first %}
    - require:
      - salt: work on {{ previous }}
      - salt: {{ previous }} back in service
{%- endif %}

{{ title }} can be taken out:
  {{- on_load_balancers(servers, 'maint', take_out) }}
    - test: true
    - require:
      - salt: {{ title }} can come back

{{ title }} out of service:
  {{- on_load_balancers(servers, 'maint', take_out) }}
    - require:
      - salt: {{ title }} can be taken out

work on {{ title }}:
  salt.state:
    - tgt: {{ batch | map('last') | list | json }}
    - tgt_type: list
    - sls: {{ plan['sls'] | json }}
    - queue: true
    - failhard: false
    - require:
      - salt: {{ title }} out of service

# Not for the work alone: Salt goes on after a failure, so that they come back in any case.
{{ title }} back in service:
  {{- on_load_balancers(servers, 'ready', put_back) }}
    - require:
      - salt: {{ title }} can be taken out
{%- endfor %}
