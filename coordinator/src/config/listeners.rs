//! Where clients and probes connect.
//!
//! Called by: parsing. Calls: the name service.
//! Invariant: nobody else's machine reaches what is neither encrypted nor asks who they are, unless `insecure` was said.
//! Does not know: sockets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::SettingError;
use super::parse::{PORT, Values, address, joined, resolve};
use crate::net::Gate;

/// ZooKeeper's name for the address of HTTP.
const HTTP_ADDRESS: &str = "admin.serverAddress";

/// Whom the client port serves.
pub struct Served<'a> {
    pub gate: &'a Gate,
    /// Whether all of them have shown a certificate.
    pub all_proved: bool,
}

/// Where clients connect.
pub fn client(
    values: &Values,
    served: &Served<'_>,
    insecure: bool,
) -> Result<SocketAddr, SettingError> {
    let (host, port) = (values.text("clientPortAddress"), values.value("clientPort", PORT)?);
    let Served { gate, all_proved } = served;
    // SASL, required or not, is not enough: before its proof anybody asks for four-letter words and has sessions made, which
    // all members write down.
    if insecure || *all_proved || gate.tls.is_none() {
        return address("clientPort", host, port, insecure || *all_proved);
    }
    let found = resolve("clientPort", &joined(host, port))?;
    if found.ip().is_loopback() {
        return Ok(found);
    }
    let (name, who) = match gate.only_tls {
        false => (
            "client.portUnification",
            "true serves clients that neither encrypt nor show a certificate",
        ),
        true => ("ssl.clientAuth", "want and none serve clients that show no certificate"),
    };
    Err(SettingError(format!(
        "{name}: {who}, and {found} (clientPortAddress) can be reached from other machines; leave it out, so that all clients show \
         a certificate, or say insecure = true if the network is trusted"
    )))
}

/// Where probes connect, if anywhere, which is not where clients do.
pub fn http(
    values: &Values,
    client: SocketAddr,
    insecure: bool,
) -> Result<Option<SocketAddr>, SettingError> {
    let found = http_address(values, client, insecure)?;
    match found {
        Some(http) if collide(client, http) => Err(SettingError(format!(
            "httpPort: {http} ({HTTP_ADDRESS}) is taken by clientPort, at {client}: take another port, or addresses of which neither \
             has the other in it"
        ))),
        Some(_) | None => Ok(found),
    }
}

/// Whether two listeners cannot be at once: one address is the other, or stands for all of its kind. That of all IPv6
/// addresses takes IPv4's with it.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    let has = |all: IpAddr, ip: IpAddr| all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4());
    // The system chooses ports that are free.
    one.port() == other.port() && one.port() != 0 && (a == b || has(a, b) || has(b, a))
}

/// With clients where that is this machine only or meant for all, else on this machine.
fn http_address(
    values: &Values,
    client: SocketAddr,
    insecure: bool,
) -> Result<Option<SocketAddr>, SettingError> {
    let host: Option<String> = values.optional(HTTP_ADDRESS, "an address")?;
    let Some(port) = values.optional("httpPort", PORT)? else {
        return match host {
            Some(_) => Err(SettingError(format!(
                "{HTTP_ADDRESS} needs httpPort, without which there is no HTTP"
            ))),
            None => Ok(None),
        };
    };
    let Some(host) = host else {
        let is_for_clients = client.ip().is_loopback() || insecure;
        let ip = if is_for_clients { client.ip() } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        return Ok(Some(SocketAddr::new(ip, port)));
    };
    let found = resolve(HTTP_ADDRESS, &joined(&host, port))?;
    if insecure || found.ip().is_loopback() {
        return Ok(Some(found));
    }
    Err(SettingError(format!(
        "{HTTP_ADDRESS}: {found} can be reached from other machines, and HTTP is neither encrypted nor asks who they are; take an \
         address of this machine alone (127.0.0.1), or say insecure = true if the network is trusted"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_at_one_address_and_below_those_that_stand_for_all() {
        let check = |one: &str, other: &str, expected: bool| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(collide(one, other), expected, "{one} and {other}");
            assert_eq!(collide(other, one), expected, "{other} and {one}");
        };
        check("10.0.0.1:2181", "10.0.0.1:2181", true);
        check("10.0.0.1:2181", "10.0.0.1:2182", false);
        check("10.0.0.1:2181", "127.0.0.1:2181", false);
        check("10.0.0.1:0", "10.0.0.1:0", false);
        check("0.0.0.0:2181", "127.0.0.1:2181", true);
        check("0.0.0.0:2181", "[::1]:2181", false);
        check("[::]:2181", "127.0.0.1:2181", true);
        check("[::]:2181", "0.0.0.0:2181", true);
        check("[::]:2181", "[::1]:2181", true);
        check("[::1]:2181", "127.0.0.1:2181", false);
        check("[::ffff:10.0.0.1]:2181", "10.0.0.1:2181", true);
    }

    #[test]
    fn one_port_may_serve_clients_and_probes_at_two_addresses() {
        let http = |text: &str| {
            let mut values = Values::default();
            values.add_toml(text).unwrap();
            super::super::Config::from_values(&values)
                .map(|config| config.http_address.map(|address| address.to_string()))
                .map_err(|error| error.to_string())
        };
        let refused = http("httpPort = 2181").unwrap_err();
        assert!(refused.starts_with("httpPort: 127.0.0.1:2181") && refused.contains("clientPort"));
        let other = http("httpPort = 2181\nadmin.serverAddress = '127.0.0.2'");
        assert_eq!(other, Ok(Some("127.0.0.2:2181".to_owned())));
        let all = "insecure = true\nhttpPort = 2181\nadmin.serverAddress = '0.0.0.0'";
        assert!(http(all).unwrap_err().contains("0.0.0.0:2181"));
        assert_eq!(http("clientPort = 0\nhttpPort = 0"), Ok(Some("127.0.0.1:0".to_owned())));
    }
}
