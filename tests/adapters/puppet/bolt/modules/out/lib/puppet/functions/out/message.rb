# frozen_string_literal: true

Puppet::Functions.create_function(:'out::message') do
  dispatch :message do
    param 'Any', :text
  end

  def message(text)
    puts text
  end
end
