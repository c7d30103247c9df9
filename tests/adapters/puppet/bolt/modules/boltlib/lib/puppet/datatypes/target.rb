# frozen_string_literal: true

Puppet::DataTypes.create_type('Target') do
  interface <<-PUPPET
    attributes => { 'name' => String[1], 'vars' => Hash[String[1], Data] },
  PUPPET
  implementation_class StandIn::Target
end
