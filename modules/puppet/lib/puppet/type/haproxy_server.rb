# frozen_string_literal: true

require 'puppet/parameter/boolean'

# One resource is one request to the program `haproxy_server`. The program decides what is in sync, changes it and words
# what it did. The type checks only the shape of what a manifest gives, so that a slip ends a run before it has begun.
Puppet::Type.newtype(:haproxy_server) do
  @doc = <<~DOC
    Takes HAProxy backend servers out of service (`maint`) and puts them back
    (`ready`), in all backends of all HAProxy instances of a host.

        haproxy_server { 'web1':
          ensure => maint,
        }

    The title is the server: a name, `backend/server`, or a pattern. Any other
    title will do where `server` says which servers are meant. Without
    `ensure`, `weight`, `health` and `agent` nothing is changed: the resource
    fails where the servers are not there, and `audit` notes how they are.

    What is in sync is decided by a dry run of the very same request, so that
    `guard`, `state_file` and all else count. With `noop` nothing but dry runs
    is sent. A change is one run of the program, and what it says of it is the
    message of the event.

    With `wait`, `shutdown_sessions`, `owner`, `reason` or `expires` the
    request is made also where nothing is to be changed, but never with
    `noop`: the program then sends HAProxy no change, but it waits, ends
    sessions and records, which a dry run does not.

    A refresh (`notify`, `subscribe`) makes the request once more. So a
    resource that subscribes to the service of HAProxy is looked at again
    after a reload, and set again where HAProxy has forgotten it.

    **Autorequires:** the services `haproxy`, `haproxy-*` and `haproxy@*`, the
    package `haproxy`, the package and the file of the program, and the
    folders of `state_file`. The same catalogue may install the program.
  DOC

  # Puppet's own type system checks a value, and words what is wrong with it.
  def self.assert_type(name, type, value)
    expected = Puppet::Pops::Types::TypeParser.singleton.parse(type)
    Puppet::Pops::Types::TypeAsserter.assert_instance_of(name.to_s, expected, value)
  rescue Puppet::Pops::Types::TypeAssertionError => e
    raise ArgumentError, e.message
  end

  newparam(:name, namevar: true) do
    desc 'The title: the server, or any text where `server` says which servers are meant.'
  end

  newproperty(:ensure) do
    desc <<~DOC
      The wanted administrative state. `ready` takes traffic, `drain` takes
      only the traffic of its persistence clients, `maint` takes none. Also
      accepted: `enabled` and `enable` for `ready`, `disabled` and `disable`
      for `maint`.

      * `ready`: In service.
      * `drain`: Takes no new traffic but that of its persistence clients.
      * `maint`: In maintenance: takes no traffic.
    DOC

    newvalues(:ready, :drain, :maint)
    aliasvalue(:enabled, :ready)
    aliasvalue(:enable, :ready)
    aliasvalue(:disabled, :maint)
    aliasvalue(:disable, :maint)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      provider.message
    end
  end

  newproperty(:weight) do
    desc <<~DOC
      The wanted weight: a number from 0 to 256, or a share of the
      configured weight as `"50%"`. It is compared first, like the state. A
      server of weight 0 takes no new traffic but that of its persistence
      clients.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Integer[0, 256], Pattern[/\A\d+%?\z/]]', value) }

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:health) do
    desc <<~DOC
      Whether health checks of the servers run: `enabled` resumes them,
      `disabled` pauses them. A server that has none is left as it is, with
      a warning. Left as they are by default.

      * `enabled`: They run.
      * `disabled`: They are paused.
    DOC

    newvalues(:enabled, :disabled)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:agent) do
    desc <<~DOC
      Whether agent checks of the servers run: `enabled` resumes them,
      `disabled` pauses them, so that an agent does not set the state back.
      A server that has none is left as it is, with a warning. Left as they
      are by default.

      * `enabled`: They run.
      * `disabled`: They are paused.
    DOC

    newvalues(:enabled, :disabled)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:operational_state) do
    desc <<~DOC
      What HAProxy's checks make of the server: `stopped`, `starting`,
      `running` or `stopping`. It is read only: `puppet resource` shows it,
      and `audit` notes it.
    DOC

    validate { |_value| raise ArgumentError, 'operational_state is read-only' }
  end

  newparam(:server) do
    desc <<~DOC
      The servers: names, `backend/server`, or patterns of `*`, `?` and
      `[…]` on each side of at most one `/`; a string (several are separated
      by commas) or a list. Names are case-sensitive. Required with any
      change; a status request without it is about all servers.

      The title by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:backend) do
    desc <<~DOC
      The backends in which servers are looked for: names or patterns, as a
      string or a list. All of them by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:instances) do
    desc <<~DOC
      The HAProxy instances of this host: names of those that are
      discovered, addresses of stats sockets in HAProxy's notation (`/path`,
      `unix@/path`, `abns@name`, `ipv4@127.0.0.1:9999`, `ipv6@[::1]:9999`),
      or objects with `name` and `socket`; a string (several are separated
      by commas) or a list. All that are discovered by default.
    DOC

    validate do |value|
      instance = 'Variant[String[1], Integer[0], Struct[{name => String[1], socket => String[1]}]]'
      resource.class.assert_type(name, "Variant[#{instance}, Array[#{instance}, 1]]", value)
    end
  end

  newparam(:drain) do
    desc <<~DOC
      With `ensure => maint`: drains the servers first, in all backends of
      all instances at once and under one deadline; each goes to maint as
      soon as it has no session and no queue left (`scur` and `qcur` of
      `show stat`, in which an idle keep-alive connection is no session). A
      server that is down goes there at once, one that is in maint stays
      there. `true` stands for 300 s and `fail`. Not asked for by default.

      * `on_timeout`: What happens to servers that have sessions then.
        `fail` by default.
        * `fail`: They stay in drain, and the run fails. The default.
        * `rollback`: They are set back to what they were, and so is all
          else that the run has changed; the run fails.
        * `maint`: They go to maint, with a warning; their sessions go on.
        * `shutdown`: They go to maint and their sessions are ended, with a
          warning.
      * `timeout`: The longest that sessions are waited for, in seconds;
        from 0 (they are looked at once) to 86400. `300` by default.
    DOC

    validate do |value|
      struct = 'Struct[{Optional[timeout] => Variant[Numeric, String[1]], ' \
               'Optional[on_timeout] => Enum[fail, rollback, maint, shutdown]}]'
      resource.class.assert_type(name, "Variant[Boolean, Enum['true', 'false', yes, no], #{struct}]", value)
    end
  end

  newparam(:shutdown_sessions, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      With `ensure => maint`: ends the sessions that are left after the
      change, again until none is left or the time is over (that of `drain`,
      else that of `wait`, else `timeout`), which fails as `not_drained`.
      Clients see their connections cut. `false` by default.
    DOC
  end

  newparam(:wait) do
    desc <<~DOC
      Waits after the change of `ensure`: after `ready` until each server
      takes traffic (its check has passed since the change, its weight is
      above 0 and slowstart is over), after `drain` and `maint` until no
      session is left. A check with `fall 1` does not show that it has
      passed; with it a server must stay up for 5 s. A server without a
      check, or with a paused one, counts at once. `true` stands for 60 s.
      Not asked for by default.

      * `stable`: After `ready`: how long a server must have taken traffic
        on end, in seconds; from 0 to 86400. `0` by default.
      * `timeout`: The longest wait, in seconds; from 0 to 86400. `60` by
        default.
    DOC

    validate do |value|
      seconds = 'Variant[Numeric, String[1]]'
      struct = "Struct[{Optional[timeout] => #{seconds}, Optional[stable] => #{seconds}}]"
      resource.class.assert_type(name, "Variant[Boolean, Enum['true', 'false', yes, no], #{struct}]", value)
    end
  end

  newparam(:guard) do
    desc <<~DOC
      Refuses, before anything is sent anywhere, a change that lowers the
      number of usable servers of a backend below this. Usable are servers
      that are ready, running or starting, and have a weight above 0; backup
      servers count as HAProxy uses them: only where no other is usable, and
      then as one. Servers that track a changed one count as they would be
      then. It needs the lock that keeps other runs out. No guard by
      default.

      * `min_available`: The fewest usable servers of a backend: a number
        from 0 to 1000000, or a share from `"0%"` to `"100%"` of its servers
        that the configuration does not disable, rounded up.
    DOC

    validate do |value|
      resource.class.assert_type(name, 'Struct[{min_available => Variant[Integer[0], String[1]]}]', value)
    end
  end

  newparam(:expect) do
    desc <<~DOC
      Refuses, before anything is sent anywhere, a change while a matched
      server is in another administrative state than this. It is the state
      before the change, also where nothing is to be changed: a second run
      may fail with `expectation_failed`. Nothing is expected by default.

      * `admin_state`: The effective administrative state of every matched
        server.
        * `ready`: In service.
        * `drain`: Takes no new traffic but that of its persistence clients.
        * `maint`: In maintenance: takes no traffic.
    DOC

    validate do |value|
      states = 'Enum[ready, enabled, enable, drain, maint, disabled, disable]'
      resource.class.assert_type(name, "Struct[{admin_state => #{states}}]", value)
    end
  end

  newparam(:on_missing) do
    desc <<~DOC
      What a listed server or backend means that matches nothing. `fail` by
      default.

      * `fail`: An error where no selected instance has it. The default.
      * `fail_each`: An error where one of the selected instances lacks it.
      * `elsewhere_ok`: An error where no instance of this host has it,
        selected or not.
      * `ignore`: Never an error.
    DOC

    newvalues(:fail, :fail_each, :elsewhere_ok, :ignore)
  end

  newparam(:on_unreachable) do
    desc <<~DOC
      What an instance means that cannot be asked. `fail` by default.

      * `fail`: An error, and nothing is changed anywhere. The default.
      * `skip`: A warning; the other instances are managed.
    DOC

    newvalues(:fail, :skip)
  end

  newparam(:on_failure) do
    desc <<~DOC
      What happens to what this run has changed when a later part of it
      fails, or when a signal ends it. What somebody else has changed
      meanwhile is left alone. `keep` by default.

      * `keep`: It stays as it is. The default.
      * `rollback`: It is set back to what it was before, in reverse.
    DOC

    newvalues(:keep, :rollback)
  end

  newparam(:state_file) do
    desc <<~DOC
      Keeps HAProxy's server-state file in step with the state of the
      servers, so that a reload keeps it: the absolute path of the file
      (where one instance is asked), or an object of instance names and
      paths. The rows of the matched servers are compared also where HAProxy
      needs no command; a difference is written and is `changed`. The
      configuration must load the file (`server-state-file` and
      `load-server-state-from-file`). None by default.
    DOC

    validate do |value|
      path = 'Pattern[/\A\//]'
      resource.class.assert_type(name, "Variant[#{path}, Hash[String[1], #{path}, 1]]", value)
    end
  end

  newparam(:owner) do
    desc <<~DOC
      Who takes the server out, or puts it back: recorded on this host with
      `drain` and `maint`; `ready` is refused where another owner is
      recorded, or any where this is missing. At most 200 characters. Nobody
      by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:reason) do
    desc <<~DOC
      Why the server is taken out: recorded with `drain` and `maint`, and
      shown in a status. At most 200 characters. No reason by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:expires) do
    desc <<~DOC
      Until when the server is to be out, with `drain` and `maint`: a time
      in RFC 3339 with its offset, or `+` and a duration in units of s, m,
      h, d and w; in the future, at most a hundred years ahead. After it
      `ready` is no longer refused, and a status says `expired`; the server
      is not put back by itself. Never by default, as long as the server
      stays in that state.

      A time is better than a duration here: `+2h` counts anew in each run
      of Puppet.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:ignore_owner, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      With `ensure => ready`: puts a server back although another owner is
      recorded. `false` by default.
    DOC
  end

  newparam(:syslog, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      Whether each change of a server is written to the system log
      (`/dev/log`) as well: one line with the instance, the server, the
      states before and after, owner, reason and calling user. A host without
      a system log is fine. `true` by default.
    DOC
  end

  newparam(:lock_timeout) do
    desc <<~DOC
      The longest wait for another run that changes servers of the same
      HAProxy, in seconds; from 0 (one try) to 86400, 60 by default. It
      counts anew each time that the lock is taken again after a wait.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Numeric, String[1]]', value) }
  end

  newparam(:timeout) do
    desc <<~DOC
      The longest that one instance may take to answer, in seconds; more
      than 0, at most 86400, 10 by default. A dump that has begun is read to
      its end, or until 5 s of silence or 300 s in all, however short this
      is.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Numeric, String[1]]', value) }
  end

  newparam(:show_diff, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      Whether a line for each server, before and after, is logged with a
      change, where Puppet's own setting `show_diff` is on. `true` by
      default.
    DOC

    defaultto true
  end

  autorequire(:service) do
    services = catalog.resources.select { |resource| resource.is_a?(Puppet::Type.type(:service)) }
    services.map { |service| service[:name] }.grep(%r{\Ahaproxy([-@].*)?\z})
  end

  autorequire(:package) { %w[haproxy haproxy_server haproxy-server] }

  autorequire(:file) do
    files = self[:state_file].is_a?(Hash) ? self[:state_file].values : [self[:state_file]].compact
    files.map { |file| File.dirname(file) } + %w[/usr/bin/haproxy_server /usr/local/bin/haproxy_server]
  end

  def retrieve
    # Without a provider that can be used, `puppet resource` comes here all the same.
    unless suitable?
      raise Puppet::Error, "the program 'haproxy_server' is neither on PATH nor in /usr/bin or /usr/local/bin; install it"
    end

    provider.look
    super
  end

  def refresh
    provider.refresh
  end
end
