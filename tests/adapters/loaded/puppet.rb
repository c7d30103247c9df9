# frozen_string_literal: true

# Puppet as it is after it was loaded, which is half of what a run costs. Each run is a fork of this process.
#
# Standard input has a run as words that end with a 0x1f, and a 0x1e after the last: the working directory, the files for
# standard output and standard error, the file for the exit code, and `puppet` with its arguments.

require 'puppet'
require 'puppet/util/command_line'
require 'puppet/application/apply'

def execute(folder, out, err, name, *words)
  Dir.chdir(folder)
  $stdin.reopen('/dev/null')
  $stdout.reopen(out, 'a')
  $stderr.reopen(err, 'a')
  [$stdout, $stderr].each { |stream| stream.sync = true }
  Puppet::Util::CommandLine.new(name, words).execute
end

while (record = $stdin.gets("\x1e"))
  folder, out, err, reply, *words = record.chomp("\x1e").force_encoding(Encoding::UTF_8).split("\x1f", -1)[..-2]
  child = fork { execute(folder, out, err, *words) }
  _, status = Process.wait2(child)
  File.write(reply, "#{status.exitstatus || (128 + status.termsig)}\n")
end
