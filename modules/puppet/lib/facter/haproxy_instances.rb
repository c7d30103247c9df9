# frozen_string_literal: true

require 'json'

# The HAProxy instances of this host: their names, each with its version and its socket. There is no fact where the
# program is not installed, and an empty one where no HAProxy answers.
Facter.add(:haproxy_instances) do
  confine kernel: 'Linux'

  setcode do
    # The same places in which the provider looks; facts are loaded without Puppet too.
    names = %w[haproxy_server /usr/bin/haproxy_server /usr/local/bin/haproxy_server]
    program = names.lazy.filter_map { |name| Facter::Core::Execution.which(name) }.first
    next unless program

    # No server has this name: the instances are what counts.
    request = 'server=- on_missing=ignore on_unreachable=skip'
    report = JSON.parse(Facter::Core::Execution.execute("#{program} #{request}", timeout: 30))
    report['instances'].to_h { |instance| [instance['name'], instance.slice('version', 'socket')] }
  rescue JSON::ParserError, Facter::Core::Execution::ExecutionFailure => e
    Facter.debug("#{program}: #{e.message}")
    nil
  end
end
