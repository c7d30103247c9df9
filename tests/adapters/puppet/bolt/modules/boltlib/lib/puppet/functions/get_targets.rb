# frozen_string_literal: true

Puppet::Functions.create_function(:get_targets) do
  dispatch :get_targets do
    param 'Boltlib::TargetSpec', :names
    return_type 'Array[Target]'
  end

  def get_targets(names)
    StandIn.targets(names)
  end
end
