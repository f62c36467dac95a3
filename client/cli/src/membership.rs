//! Which changes of the members make sense, by what the members are.
//!
//! *Called by* `coordinator`. *Calls* nothing.
//!
//! The servers judge too, but by less: to them, as to ZooKeeper's, whoever joins with a member's id is that member, at its new
//! addresses from then on, tried or not; who leaves and is none is no error; and of addresses that two would share they tell
//! nothing.

use std::collections::BTreeMap;

/// The servers by id, as `/zookeeper/config` writes them.
pub type Servers = BTreeMap<i32, String>;

/// A change that is asked for.
#[derive(Debug, Default)]
pub struct Change {
    /// `server.N=...`.
    pub joining: Option<String>,
    /// Ids between commas.
    pub leaving: Option<String>,
    /// Whether a member may get other addresses.
    pub moves: bool,
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The servers are asked.
    Ask,
    /// It is so already, in these words.
    Already(String),
    /// It would do harm, or nothing.
    Refused(String),
}

impl Change {
    /// Nothing is known of the members where `servers` is empty: settings name them then.
    pub fn judge(&self, servers: &Servers) -> Verdict {
        let leaving = self.leaving.as_deref().and_then(|ids| strangers(servers, ids));
        if let Some(why) = leaving {
            return Verdict::Refused(why);
        }
        let pair = self.joining.as_deref().and_then(|line| line.split_once('='));
        let joining = pair.and_then(|(name, text)| {
            Some((name.strip_prefix("server.")?.parse().ok()?, text, Place::parse(text)?))
        });
        joining.map_or(Verdict::Ask, |(id, text, place)| {
            self.judge_joining(servers, id, (text, &place))
        })
    }

    fn judge_joining(&self, servers: &Servers, id: i32, (text, place): (&str, &Place)) -> Verdict {
        for (other, server) in servers.iter().filter(|(other, _)| **other != id) {
            if let Some(shared) = Place::parse(server).and_then(|other| place.shared_with(&other)) {
                return Verdict::Refused(format!(
                    "nothing was changed: {shared} is member {other}'s"
                ));
            }
        }
        let Some(server) = servers.get(&id) else { return Verdict::Ask };
        let found = Place::parse(server);
        let is_there = found.as_ref().is_some_and(|found| found.is_at(place));
        let is_new_to_clients = found.is_some_and(|found| found.lacks_client_of(place));
        match (is_there, self.moves) {
            (true, _) if role(server) == role(text) => Verdict::Already(format!(
                "{id} is a member already, at these addresses: nothing was changed"
            )),
            (false, false) if is_new_to_clients => Verdict::Refused(format!(
                "nothing was changed: {id} is a member already, at these addresses, of which that for clients is missing ({server}); \
                 --move adds it"
            )),
            (false, false) => Verdict::Refused(format!(
                "nothing was changed: {id} is a member already, at other addresses ({server}); --move gives it the new ones, which \
                 count at once, reached or not. A new server needs an id of its own"
            )),
            // Another role is what `add` is for as well.
            (true, _) | (false, true) => Verdict::Ask,
        }
    }
}

/// Why those who are to leave cannot.
fn strangers(servers: &Servers, leaving: &str) -> Option<String> {
    let is_stranger = |id: &&str| id.trim().parse().is_ok_and(|id: i32| !servers.contains_key(&id));
    let strangers: Vec<_> = leaving.split(',').filter(is_stranger).collect();
    let members: Vec<_> = servers.keys().map(ToString::to_string).collect();
    (!servers.is_empty() && !strangers.is_empty()).then(|| {
        format!(
            "nothing was changed: {} is no member; the members are {}",
            strangers.join(", "),
            members.join(", ")
        )
    })
}

/// `participant`, where nothing is said.
fn role(server: &str) -> &str {
    let (links, _) = server.split_once(';').unwrap_or((server, ""));
    match links.rsplit_once(':') {
        Some((_, "observer")) => "observer",
        _ => "participant",
    }
}

/// Where a server is.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// ZooKeeper's second one, if there is one.
    election_port: Option<u16>,
    client: Option<String>,
}

impl Place {
    /// Of `host:port[:port][:role][;[host:]port]`.
    fn parse(server: &str) -> Option<Self> {
        let (links, client) = match server.split_once(';') {
            Some((links, client)) => (links, Some(client.to_owned())),
            None => (server, None),
        };
        let links = links.strip_suffix(":participant").unwrap_or(links);
        let links = links.strip_suffix(":observer").unwrap_or(links);
        let (rest, last) = links.rsplit_once(':')?;
        let last: u16 = last.parse().ok()?;
        let two = rest.rsplit_once(':').filter(|_| !rest.ends_with(']'));
        let (host, port, election) = match two {
            Some((host, port)) => (host, port.parse().ok()?, last),
            None => (rest, last, last),
        };
        let election_port = Some(election).filter(|found| ![0, port].contains(found));
        Some(Self { host: host.to_owned(), port, election_port, client })
    }

    /// Whether both are one place; of ports for elections only where both have one.
    fn is_at(&self, other: &Self) -> bool {
        let election = match (self.election_port, other.election_port) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let client = match (&self.client, &other.client) {
            (Some(one), Some(other)) => with_host(one) == with_host(other),
            (None, None) => true,
            _ => false,
        };
        (&self.host, self.port) == (&other.host, other.port) && election && client
    }

    /// Whether it would be at `other` if it had an address for clients.
    fn lacks_client_of(&self, other: &Self) -> bool {
        let with_client = Self { client: other.client.clone(), host: self.host.clone(), ..*self };
        self.client.is_none() && other.client.is_some() && with_client.is_at(other)
    }

    /// The address that only one of both can have. Of clients' addresses those that are other places on each machine are left out.
    fn shared_with(&self, other: &Self) -> Option<String> {
        let taken = [Some(other.port), other.election_port];
        let mut ports = [Some(self.port), self.election_port].into_iter().filter(Option::is_some);
        let port = ports.find(|port| taken.contains(port)).flatten();
        if let Some(port) = port.filter(|_| self.host == other.host) {
            return Some(format!("{}:{port}", self.host));
        }
        let client = self.client.as_ref().filter(|client| !is_of_each_machine(client))?;
        (other.client.as_ref() == Some(client)).then(|| client.clone())
    }
}

/// A port alone is that port at all addresses.
fn with_host(client: &str) -> String {
    if client.contains(':') { client.to_owned() } else { format!("0.0.0.0:{client}") }
}

fn is_of_each_machine(client: &str) -> bool {
    let Some((host, _)) = client.rsplit_once(':') else { return true };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.is_empty()
        || bare == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified() || ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> Servers {
        let texts = [
            (1, "a:1:0:participant;a:2"),
            (2, "b:1:9:observer;0.0.0.0:2"),
            (3, "[::1]:1:0:participant;[::1]:2"),
        ];
        texts.map(|(id, text)| (id, text.to_owned())).into()
    }

    fn add(line: &str, moves: bool) -> Verdict {
        Change { joining: Some(line.to_owned()), leaving: None, moves }.judge(&servers())
    }

    fn refusal(line: &str) -> String {
        match add(line, true) {
            Verdict::Refused(why) => why,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn member_is_moved_only_on_purpose() {
        let elsewhere = "server.1=z:1:0:participant;z:2";
        assert!(matches!(add(elsewhere, false), Verdict::Refused(why) if why.contains("--move")
            && why.contains("a:1:0:participant;a:2")));
        assert_eq!(add(elsewhere, true), Verdict::Ask);
        assert!(matches!(add("server.1=a:1:0:participant;a:3", false), Verdict::Refused(_)));
    }

    #[test]
    fn what_is_a_member_already_is_told_and_its_role_may_change() {
        let same = ["server.1=a:1:0:participant;a:2", "server.2=b:1:0:observer;2"];
        for line in same.into_iter().chain(["server.3=[::1]:1:0:participant;[::1]:2"]) {
            assert!(
                matches!(add(line, false), Verdict::Already(_)),
                "{line}: {:?}",
                add(line, false)
            );
        }
        assert_eq!(add("server.1=a:1:0:observer;a:2", false), Verdict::Ask);
        assert_eq!(add("server.4=d:1:0:participant;d:2", false), Verdict::Ask);
    }

    #[test]
    fn member_without_an_address_for_clients_is_told_to_lack_it() {
        let servers: Servers = [(1, "a:1:0:participant".to_owned())].into();
        let add = |line: &str| {
            Change { joining: Some(line.to_owned()), ..Change::default() }.judge(&servers)
        };
        let refused = |line: &str, part: &str| match add(line) {
            Verdict::Refused(why) => assert!(why.contains(part), "{line}: {why}"),
            other => panic!("{line}: {other:?}"),
        };
        refused("server.1=a:1:0:participant;a:2", "that for clients is missing");
        refused("server.1=b:1:0:participant;a:2", "at other addresses");
    }

    #[test]
    fn address_of_another_member_is_named() {
        assert!(refusal("server.4=a:1:0:participant;d:2").contains("a:1 is member 1's"));
        assert!(refusal("server.4=b:8:9:participant;d:2").contains("b:9 is member 2's"));
        assert!(refusal("server.4=d:1:0:participant;a:2").contains("a:2 is member 1's"));
        assert!(refusal("server.1=b:1:0:participant;a:2").contains("b:1 is member 2's"));
        assert_eq!(add("server.4=d:1:0:participant;0.0.0.0:2", false), Verdict::Ask);
    }

    #[test]
    fn who_is_no_member_is_named() {
        let leave = |servers: &Servers, ids: &str| {
            Change { leaving: Some(ids.to_owned()), ..Change::default() }.judge(servers)
        };
        let why = "nothing was changed: 9 is no member; the members are 1, 2, 3";
        assert_eq!(leave(&servers(), "3,9"), Verdict::Refused(why.to_owned()));
        assert_eq!(leave(&servers(), "1,3"), Verdict::Ask);
        assert_eq!(leave(&Servers::new(), "9"), Verdict::Ask, "settings name them");
    }
}
