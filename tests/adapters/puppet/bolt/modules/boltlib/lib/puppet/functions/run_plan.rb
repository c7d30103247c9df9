# frozen_string_literal: true

Puppet::Functions.create_function(:run_plan, Puppet::Functions::InternalFunction) do
  dispatch :run_plan do
    scope_param
    param 'String[1]', :name
    param 'Hash[String[1], Any]', :given
  end

  def run_plan(scope, name, given)
    plan = Puppet.lookup(:loaders).private_environment_loader.load(:plan, name)
    catch(:return) { plan.class.dispatcher.dispatchers.first.call_by_name_with_scope(scope, given, true) }
  end
end
