# @summary Installs the program `haproxy_server` and manages the servers that Hiera lists.
#
# The program comes from a package, or from a file where `source` is set. The servers are resources of the type
# `haproxy_server` and need the program first.
#
# @param package
#   The package of the program. The default comes from the module's data: `haproxy-server`, on RedHat and its relatives
#   `haproxy_server`. Without a package and without `source`, the class does not install the program.
# @param package_ensure
#   The state of that package: `installed`, `latest`, or a version.
# @param source
#   Where the program's file comes from instead of a package: `puppet:///…`, `https://…`, or an absolute path.
# @param sha256
#   The SHA-256 checksum of that file. It is required with a source of `http://` or `https://`.
# @param path
#   Where that file goes: `haproxy_server` in `/usr/bin`, in `/usr/local/bin` or in a folder of Puppet's PATH.
# @param servers
#   The servers to manage, as a hash of titles and attributes of the type `haproxy_server`. Hiera merges it deeply over
#   all levels.
#
# @example A package, and the servers from Hiera
#   include haproxy_server
#
# @example A file whose checksum is known
#   class { 'haproxy_server':
#     source => 'puppet:///modules/profile/haproxy_server',
#     sha256 => '5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03',
#   }
class haproxy_server (
  Optional[String[1]] $package = undef,
  String[1] $package_ensure = 'installed',
  Optional[Pattern[/\A\//, /\Apuppet:\/\//, /\Afile:\/\//, /\Ahttps?:\/\//]] $source = undef,
  Optional[Pattern[/\A\h{64}\z/]] $sha256 = undef,
  Pattern[/\A\/(.*\/)?haproxy_server\z/] $path = '/usr/bin/haproxy_server',
  Hash[String[1], Hash[String[1], Data]] $servers = {},
) {
  if $source {
    if $source =~ /\Ahttps?:/ and !$sha256 {
      fail("haproxy_server: a file from '${source}' needs its checksum in 'sha256'")
    }
    file { $path:
      ensure         => file,
      source         => $source,
      checksum       => 'sha256',
      checksum_value => $sha256,
      owner          => 'root',
      group          => 'root',
      mode           => '0755',
      backup         => false,
      show_diff      => false,
    }
    $program = File[$path]
  } elsif $package {
    package { $package:
      ensure => $package_ensure,
    }
    $program = Package[$package]
  } else {
    $program = []
  }

  $servers.each |$title, $attributes| {
    haproxy_server {
      default:
        require => $program;
      $title:
        * => $attributes;
    }
  }
}
