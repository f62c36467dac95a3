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

/// Where probes connect, if anywhere: with clients where that is this machine only or meant for all, else on this machine.
pub fn http(
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
