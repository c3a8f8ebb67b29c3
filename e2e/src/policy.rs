//! Policies of the suites.

/// The filesystem part that ordinary programs need.
pub const FILESYSTEM: &str = "\
version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /lib, /lib64, /bin, /sbin, /etc, /proc, /dev/urandom, /dev/zero]
  read_write: [/tmp, /dev/null, /dev/tty]
";

/// [`FILESYSTEM`] and one inspected endpoint on this machine, granted by its address, with the
/// given rules (YAML, indented by ten spaces).
pub fn inspected(port: u16, address: std::net::Ipv4Addr, rules: &str) -> String {
    format!(
        "{FILESYSTEM}network_policies:
  service:
    endpoints:
      - host: {alias}
        port: {port}
        protocol: rest
        enforcement: enforce
        allowed_ips: [{address}/32]
{rules}
    binaries: [{{ path: \"/**\" }}]
",
        alias = crate::host::ALIAS,
    )
}

/// [`FILESYSTEM`] and one endpoint on this machine that is carried without inspection.
pub fn connection(port: u16, address: std::net::Ipv4Addr) -> String {
    format!(
        "{FILESYSTEM}network_policies:
  service:
    endpoints:
      - {{ host: {alias}, port: {port}, allowed_ips: [{address}/32] }}
    binaries: [{{ path: \"/**\" }}]
",
        alias = crate::host::ALIAS,
    )
}
