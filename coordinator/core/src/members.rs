//! The servers of an ensemble as ZooKeeper writes them: `server.N=host:port:port:role;client`.
//!
//! Called by: `state` (the configuration), `server`, the shell (settings). Calls: nothing.
//! Invariant: a server's text reads back to the same server; texts are bounded. It does not know who votes.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ServerId;

/// Most voting members an ensemble may have.
pub const MEMBERS_MAX: usize = 9;
/// Servers of an ensemble, observers included.
pub const SERVERS_MAX: usize = 32;
/// Bytes of one server's text.
pub const SERVER_TEXT_BYTES_MAX: usize = 512;
/// Written for a port that is not there: Java's clients do not read a server whose two ports are the same.
const NO_PORT: u16 = 0;

/// Whether a server votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// It votes.
    Participant,
    /// It never does.
    Observer,
}

/// Where a server is, and its role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Without brackets.
    host: String,
    /// For links between members.
    port: u16,
    /// ZooKeeper's port for elections; kept, not used. Where there is none, the one above.
    election_port: u16,
    role: Role,
    /// `host:port` for clients, if it is known.
    client: Option<String>,
}

/// Servers by id.
pub type Members = BTreeMap<ServerId, Member>;

/// Who votes and who only follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberIds {
    /// Those who vote.
    pub voters: BTreeSet<ServerId>,
    /// The others.
    pub learners: BTreeSet<ServerId>,
}

impl MemberIds {
    /// All of them vote.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = ServerId>) -> Self {
        Self { voters: voters.into_iter().collect(), learners: BTreeSet::new() }
    }

    /// As the roles of `members` say.
    #[must_use]
    pub fn of(members: &Members) -> Self {
        let with = |role| {
            let found = members.iter().filter(move |(_, member)| member.role == role);
            found.map(|(id, _)| *id).collect()
        };
        Self { voters: with(Role::Participant), learners: with(Role::Observer) }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, id: ServerId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }
}

impl Member {
    /// Reads `host:port[:port][:role][;[host:]port]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > SERVER_TEXT_BYTES_MAX {
            return None;
        }
        let (server, client) = match text.split_once(';') {
            Some((server, client)) => (server.trim(), Some(client_address(client.trim())?)),
            None => (text.trim(), None),
        };
        let (server, role) = match server.rsplit_once(':') {
            Some((rest, "participant")) => (rest, Role::Participant),
            Some((rest, "observer")) => (rest, Role::Observer),
            _ => (server, Role::Participant),
        };
        let (rest, last) = server.rsplit_once(':')?;
        let election_port = last.parse().ok()?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, port.parse().ok()?),
            _ => (rest, election_port),
        };
        let host = bare_host(host)?;
        let election_port = if election_port == NO_PORT { port } else { election_port };
        Some(Self { host, port, election_port, role, client })
    }

    /// Whether it votes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where it is, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// For links between members.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// ZooKeeper's port for elections, if one was written.
    #[must_use]
    pub fn election_port(&self) -> Option<u16> {
        Some(self.election_port).filter(|port| *port != self.port)
    }

    /// `host:port` with that.
    #[must_use]
    pub fn election_address(&self) -> Option<String> {
        let port = self.election_port()?;
        Some(format!("{}:{port}", bracketed(&self.host)))
    }

    /// `host:port` for links between members.
    #[must_use]
    pub fn peer_address(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }

    /// `host:port` for clients, if it is known.
    #[must_use]
    pub fn client_address(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// The same, with a place for clients where none was known.
    #[must_use]
    pub fn with_client(self, client: String) -> Self {
        Self { client: self.client.or(Some(client)), ..self }
    }

    /// Whether its host stands for all addresses: others cannot find it there.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        is_unspecified(&self.host)
    }

    /// Whether both cannot be there at once. Clients' addresses that are other places on each machine are not compared, as
    /// in ZooKeeper: `;2181` is its usual form.
    #[must_use]
    pub fn collides(&self, other: &Self) -> bool {
        let ports = [self.port, self.election_port];
        let peers = self.host == other.host
            && (ports.contains(&other.port) || ports.contains(&other.election_port));
        let client = self.client.as_deref().filter(|client| !is_of_each_machine(client));
        peers || (client.is_some() && client == other.client.as_deref())
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Participant => "participant",
            Role::Observer => "observer",
        };
        let election_port = self.election_port().unwrap_or(NO_PORT);
        write!(f, "{}:{}:{election_port}:{role}", bracketed(&self.host), self.port)?;
        match &self.client {
            Some(client) => write!(f, ";{client}"),
            None => Ok(()),
        }
    }
}

/// ZooKeeper's text of a configuration: a line for each server, and its version in hex.
#[must_use]
pub fn to_text(members: &Members, version: i64) -> String {
    let mut text = String::new();
    for (id, member) in members {
        text.push_str(&format!("server.{id}={member}\n"));
    }
    text.push_str(&format!("version={version:x}"));
    text
}

/// Reads `server.N=...`, whatever N is.
#[must_use]
pub fn parse_line(line: &str) -> Option<(u64, Member)> {
    let (name, server) = line.trim().split_once('=')?;
    let id = name.trim().strip_prefix("server.")?.parse().ok()?;
    Some((id, Member::parse(server)?))
}

fn is_unspecified(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Of `host:port`.
fn is_of_each_machine(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn bare_host(host: &str) -> Option<String> {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let bare = inner.unwrap_or(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '%');
    let fits = bare.chars().all(|c| plain(c) || (c == ':' && inner.is_some()));
    (fits && !bare.is_empty()).then(|| bare.to_owned())
}

/// `[host:]port`, where no host stands for all addresses, as in ZooKeeper.
fn client_address(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("0.0.0.0", text));
    let port: u16 = port.parse().ok()?;
    Some(format!("{}:{port}", bracketed(&bare_host(host)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_zookeeper_writes_them() {
        for (text, written) in [
            ("a:1:2:participant;b:3", "a:1:2:participant;b:3"),
            ("a:1:2:observer;3", "a:1:2:observer;0.0.0.0:3"),
            ("a:1:2;[::1]:3", "a:1:2:participant;[::1]:3"),
            ("a:1:2", "a:1:2:participant"),
            ("10.0.0.1:1", "10.0.0.1:1:0:participant"),
            ("10.0.0.1:1:1:observer", "10.0.0.1:1:0:observer"),
            ("[::1]:1", "[::1]:1:0:participant"),
            ("[fe80::1%eth0]:1:2", "[fe80::1%eth0]:1:2:participant"),
        ] {
            let member = Member::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(member.to_string(), written);
            assert_eq!(Member::parse(written), Some(member));
        }
        let long = format!("{}:1:2", "a".repeat(SERVER_TEXT_BYTES_MAX));
        for bad in ["", "a", ":1:2", "a:b", "a:1:70000", "a:1:2:leader", "a:1:2;", "a b:1", &long] {
            assert_eq!(Member::parse(bad), None, "{bad}");
        }
        assert!(Member::parse(&long[5..]).is_some(), "as long as it may be");
    }

    #[test]
    fn configuration_has_a_line_for_each_server_and_its_version_in_hex() {
        let lines = ["server.2=b:1:2:observer;b:3", "server.1=a:1:2:participant;a:3"];
        let read =
            |line: &&str| parse_line(line).map(|(id, one)| (ServerId::new(id).unwrap(), one));
        let members: Members = lines.iter().filter_map(read).collect();
        let text = to_text(&members, 0x1_0000_002a);
        assert_eq!(text, format!("{}\n{}\nversion=10000002a", lines[1], lines[0]));
        for bad in ["server.-1=a:1:2", "server.x=a:1:2", "server=a:1:2", "some thing"] {
            assert_eq!(parse_line(bad), None, "{bad}");
        }
    }

    #[test]
    fn servers_collide_by_any_port_of_theirs() {
        let member = |text: &str| Member::parse(text).unwrap();
        let one = member("a:1:2;a:3");
        for (other, collides) in [
            ("a:4:5;a:6", false),
            ("b:1:2;b:3", false),
            ("a:2:5;a:6", true),
            ("a:4:1;a:6", true),
            ("a:4;a:6", false),
            ("a:2;a:6", true),
            ("b:4:5;a:3", true),
        ] {
            assert_eq!(one.collides(&member(other)), collides, "{other}");
        }
        for client in ["3", "0.0.0.0:3", "[::]:3", "127.0.0.1:3", "[::1]:3", "localhost:3"] {
            let [one, two] = ["a", "b"].map(|host| member(&format!("{host}:1:2;{client}")));
            assert!(!one.collides(&two) && !two.collides(&one), "{client}");
        }
        assert!(member("0.0.0.0:1:2;3").is_nowhere() && member("[::]:1:2;3").is_nowhere());
        assert!(!one.is_nowhere() && !member("10.0.0.1:1:2;3").is_nowhere());
    }
}
