# frozen_string_literal: true

Puppet::Functions.create_function(:run_task) do
  dispatch :run_task do
    param 'String[1]', :name
    param 'Boltlib::TargetSpec', :targets
    optional_param 'Hash[String[1], Any]', :given
    return_type 'ResultSet'
  end

  dispatch :run_described do
    param 'String[1]', :name
    param 'Boltlib::TargetSpec', :targets
    param 'String', :description
    optional_param 'Hash[String[1], Any]', :given
    return_type 'ResultSet'
  end

  def run_task(name, targets, given = {})
    run_described(name, targets, nil, given)
  end

  def run_described(name, targets, description, given = {})
    options, parameters = given.partition { |key, _| key.start_with?('_') }.map(&:to_h)
    noop = options['_noop'] == true
    results = StandIn.task(name, StandIn.targets(targets), parameters, description: description, noop: noop)
    raise StandIn::Failure.new('the task failed', 'bolt/run-failure') unless results.ok || options['_catch_errors']

    results
  end
end
