# frozen_string_literal: true

Puppet::Functions.create_function(:run_command) do
  dispatch :run_command do
    param 'String[1]', :command
    param 'Boltlib::TargetSpec', :targets
    param 'Hash[String[1], Any]', :options
    return_type 'ResultSet'
  end

  def run_command(command, targets, options)
    results = StandIn.command(StandIn.targets(targets), command)
    raise StandIn::Failure.new('the command failed', 'bolt/run-failure') unless results.ok || options['_catch_errors']

    results
  end
end
