# frozen_string_literal: true

require 'puppet/node/facts'
require 'puppet/indirector/code'

# No manifest of the tests asks for another node's facts.
class Puppet::Node::Facts::Folder < Puppet::Indirector::Code
  desc 'A stand-in for PuppetDB.'

  def find(_request); end

  def save(_request); end
end
