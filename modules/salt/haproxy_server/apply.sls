{#- Sends one request, which is in the pillar:

      salt 'lb*' state.apply haproxy_server.apply pillar='{haproxy_server: {request: {server: web1, state: maint}}}'
-#}
{%- set request = pillar['haproxy_server']['request'] -%}

a request to haproxy_server:
  haproxy_server.apply:
{%- for field, value in request.items() %}
    {#- Salt keeps the name 'state' for itself. #}
    - {{ 'admin_state' if field == 'state' else field }}: {{ value | json }}
{%- endfor %}
