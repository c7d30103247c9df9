# frozen_string_literal: true

Puppet::Functions.create_function(:fail_plan) do
  dispatch :from_args do
    param 'String[1]', :msg
    param 'String[1]', :kind
    optional_param 'Hash[String[1], Any]', :details
  end

  dispatch :from_error do
    param 'Error', :error
  end

  def from_args(msg, kind, details = {})
    raise StandIn::Failure.new(msg, kind, details)
  end

  def from_error(error)
    from_args(error.message, error.kind)
  end
end
