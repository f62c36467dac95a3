//! `tidegate coordinator`: the members of the ensemble, and who leads them.
//!
//! *Called by* `main`. *Calls* `coordinator_client`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use coordinator_client::protocol::{EnsembleInfo, ErrorCode, Stat, TransferOutcome, Zxid};
use coordinator_client::{Client, Credentials, Error, Tls, TlsFailure};
use serde_json::json;
use thiserror::Error as ThisError;

use crate::args::{CoordinatorArguments, CoordinatorCommand, Format};
use crate::cluster::is_without_quorum;
use crate::handover::Handover;
use crate::membership::{Change, Verdict};
use crate::output::{Partly, Table, print_json, print_line};
use crate::settings::Settings;

const CONFIG_PATH: &str = "/zookeeper/config";
/// For one coordinator to take a session and say what it knows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Beyond that, so that the session can say why there is none.
const ANSWER_GRACE: Duration = Duration::from_millis(500);
/// For a session with any of them.
const SESSION_TIMEOUT: Duration = Duration::from_secs(20);
/// For a change whose answer was lost to show.
const DONE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Does what the command says.
pub async fn run(
    settings: &Settings,
    asked: CoordinatorArguments,
    format: Format,
) -> anyhow::Result<()> {
    let credentials: Vec<_> =
        asked.auth.into_iter().map(|(scheme, secret)| Credentials { scheme, secret }).collect();
    match asked.command {
        CoordinatorCommand::List => list(settings, &credentials, format).await,
        CoordinatorCommand::Transfer { to } => transfer(settings, credentials, to, format).await,
        CoordinatorCommand::Add { id, peer, client, observer, moves } => {
            let joining = Some(joining(id, &peer, &client, observer)?);
            let change = Change { joining, moves, ..Change::default() };
            reconfig(settings, credentials, change, format).await
        }
        CoordinatorCommand::Remove { ids } => {
            let leaving = Some(crate::output::list(ids));
            reconfig(settings, credentials, Change { leaving, ..Change::default() }, format).await
        }
        CoordinatorCommand::OfServer(command) => {
            // As a rule `main` has handed it over before.
            Handover::bare(command, format).run()?;
            Ok(())
        }
    }
}

fn open(
    settings: &Settings,
    servers: Vec<String>,
    credentials: Vec<Credentials>,
    limit: Duration,
) -> Client {
    let mut config = settings.session(servers);
    config.credentials = credentials;
    config.queue_timeout = limit;
    Client::open(config)
}

async fn transfer(
    settings: &Settings,
    credentials: Vec<Credentials>,
    to: Option<i32>,
    format: Format,
) -> anyhow::Result<()> {
    let client = open(settings, settings.coordinators.clone(), credentials, SESSION_TIMEOUT);
    let answered = client.transfer_leader(to).await;
    client.close().await;
    let answer = match answered {
        Err(error) if error.is(ErrorCode::NoAuth) => {
            return Err(error)
                .context("you may not move leadership (a restart of the leader moves it, too)");
        }
        other => other?,
    };
    let leader = Some(answer.leader).filter(|leader| *leader > 0);
    let member = to.map_or("another member".to_owned(), |to| format!("member {to}"));
    match answer.outcome {
        TransferOutcome::Done => {}
        TransferOutcome::AlreadyLeader => {}
        TransferOutcome::NotMember => anyhow::bail!(
            "{member} is not a voting member; `tidegate coordinator list` shows who is"
        ),
        TransferOutcome::NotUp => anyhow::bail!("{member} is not up"),
        TransferOutcome::TookTooLong => anyhow::bail!(
            "{member} did not take over in time, and {}; is its disk slow, or is it far behind?",
            leader.map_or("nobody leads".to_owned(), |leader| format!("{leader} leads"))
        ),
    }
    let moved = answer.outcome == TransferOutcome::Done;
    match format {
        Format::Json => print_json(&json!({ "leader": leader, "moved": moved }))?,
        Format::Table if moved => print_line(&format!("member {} leads", answer.leader))?,
        Format::Table => print_line(&format!("member {} leads already", answer.leader))?,
    }
    Ok(())
}

/// As the ensemble writes it: ZooKeeper has a second port, for elections, and 0 is none.
fn joining(id: u8, peer: &str, client: &str, observer: bool) -> anyhow::Result<String> {
    let ports = peer.rsplit(':').take_while(|part| part.parse::<u16>().is_ok()).count();
    let one = ports == 1 || peer.trim_end_matches(|c: char| c.is_ascii_digit()).ends_with("]:");
    anyhow::ensure!(ports > 0, "--peer takes HOST:PORT, not {peer:?}");
    let peer = if one { format!("{peer}:0") } else { peer.to_owned() };
    let role = if observer { "observer" } else { "participant" };
    Ok(format!("server.{id}={peer}:{role};{client}"))
}

async fn reconfig(
    settings: &Settings,
    credentials: Vec<Credentials>,
    change: Change,
    format: Format,
) -> anyhow::Result<()> {
    let client = open(settings, settings.coordinators.clone(), credentials, SESSION_TIMEOUT);
    let known = match known(&client).await {
        Ok(known) => known,
        // Without it nobody could say whether the change moves a member.
        Err(error) => {
            client.close().await;
            let why = match error.code() {
                Some(ErrorCode::NoAuth) => {
                    "nothing was changed: you may not read /zookeeper/config, and so not who the members are"
                }
                _ => "nothing was changed: who the members are is not known",
            };
            return Err(anyhow::Error::from(error).context(why));
        }
    };
    if let Some(text) = known {
        match change.judge(&configuration(&text).0) {
            Verdict::Ask => {}
            Verdict::Already(why) => {
                client.close().await;
                return match format {
                    Format::Json => show_configuration(&text, format),
                    Format::Table => Ok(print_line(&why)?),
                };
            }
            Verdict::Refused(why) => {
                client.close().await;
                anyhow::bail!(why);
            }
        }
    }
    let Change { joining, leaving, .. } = change;
    let mut answered = client.reconfig(joining.clone(), leaving.clone()).await;
    if matches!(answered, Err(Error::ConnectionLoss)) {
        // Whether it was done stands in what all servers agree on.
        let found = await_configuration(&client, |text| shows(text, &joining, &leaving)).await;
        answered = found.ok_or(Error::ConnectionLoss);
    }
    client.close().await;
    let (text, _) = answered.map_err(|error| {
        let why = match error.code() {
            Some(ErrorCode::NoAuth) => "you may not change the members",
            Some(ErrorCode::ReconfigDisabled) => {
                "these servers do not let members be changed: reconfigEnabled = true does"
            }
            Some(ErrorCode::ReconfigInProgress) => "another change is under way; try again later",
            Some(ErrorCode::NewConfigNoQuorum) => {
                "the new server did not catch up in time and is out again; does it run, with settings that name the \
                 others and itself, and do they reach one another?"
            }
            Some(ErrorCode::BadArguments) => {
                "these members cannot be: two to nine have to vote, and all addresses have to differ"
            }
            Some(ErrorCode::Unimplemented) => "this server stands alone",
            _ => "the members are not changed, or nobody knows; `tidegate coordinator list` shows them",
        };
        anyhow::Error::from(error).context(why)
    })?;
    show_configuration(&text, format)
}

fn show_configuration(text: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let (servers, version) = configuration(text);
            let servers: BTreeMap<_, _> =
                servers.into_iter().map(|(id, server)| (id.to_string(), server)).collect();
            print_json(&json!({ "servers": servers, "version": version }))?;
        }
        Format::Table => {
            for line in text.lines() {
                print_line(line)?;
            }
        }
    }
    Ok(())
}

/// What all servers agree on now; `None` where they agree on nothing yet, and settings name the members.
async fn known(client: &Client) -> Result<Option<String>, Error> {
    let synced = client.sync(CONFIG_PATH).await.map(|_| None);
    match synced {
        Ok(_) => read_text(client.get_data(CONFIG_PATH).await.map(|(data, _)| data)),
        failed => read_text(failed),
    }
}

/// The text of a node, if the node and its data are there.
fn read_text(read: Result<Option<Bytes>, Error>) -> Result<Option<String>, Error> {
    match read {
        Ok(data) => Ok(data.map(|data| String::from_utf8_lossy(&data).into_owned())),
        Err(error) if error.is(ErrorCode::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `/zookeeper/config` as soon as `is_done` says so of its text: a server that leaves closes its clients some time before all of
/// the change is done. `None` when that takes longer than [`DONE_TIMEOUT`].
async fn await_configuration(
    client: &Client,
    is_done: impl Fn(&str) -> bool,
) -> Option<(String, Stat)> {
    let looks = async {
        loop {
            let is_fresh = client.sync(CONFIG_PATH).await.is_ok();
            if let Ok((Some(data), stat)) = client.get_data(CONFIG_PATH).await {
                let text = String::from_utf8_lossy(&data).into_owned();
                if is_fresh && is_done(&text) {
                    return (text, stat);
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(DONE_TIMEOUT, looks).await.ok()
}

/// Whether a configuration is what a change of it was to come to.
fn shows(text: &str, joining: &Option<String>, leaving: &Option<String>) -> bool {
    let (servers, _) = configuration(text);
    let has_left = |id: &str| id.trim().parse().is_ok_and(|id: i32| !servers.contains_key(&id));
    let has_joined = |line: &str| text.lines().any(|found| found == line);
    leaving.iter().flat_map(|ids| ids.split(',')).all(has_left)
        && joining.iter().all(|line| has_joined(line))
}

/// The servers by id, and the version, of `/zookeeper/config`.
fn configuration(text: &str) -> (BTreeMap<i32, String>, Option<String>) {
    let pairs = || text.lines().filter_map(|line| line.split_once('='));
    let server = |(name, server): (&str, &str)| {
        Some((name.strip_prefix("server.")?.parse().ok()?, server.to_owned()))
    };
    let version = pairs().find(|(name, _)| *name == "version");
    (pairs().filter_map(server).collect(), version.map(|(_, version)| version.to_owned()))
}

/// Where a server of the configuration is for clients: one that is at all addresses of its host is found at that of its links.
fn client_address(server: &str) -> Option<String> {
    let (links, client) = server.split_once(';')?;
    let (host, port) = client.rsplit_once(':')?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_everywhere = bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if !is_everywhere {
        return Some(client.to_owned());
    }
    let host = match links.split_once("]:") {
        Some((host, _)) => format!("{host}]"),
        None => links.split(':').next()?.to_owned(),
    };
    Some(format!("{host}:{port}"))
}

/// What one address said.
type Told = anyhow::Result<Answer>;

/// A server that answers, and can tell nothing.
#[derive(Clone, Copy, Debug, ThisError)]
#[error("up, no quorum: it is linked to no majority of the members, or is none")]
struct NoQuorum;

/// What a server knows.
#[derive(Debug)]
struct Answer {
    info: EnsembleInfo,
    zxid: Zxid,
    /// What `/zookeeper/config` says of each server, if it may be read.
    servers: BTreeMap<i32, String>,
}

async fn list(
    settings: &Settings,
    credentials: &[Credentials],
    format: Format,
) -> anyhow::Result<()> {
    let mut told = ask_all(settings, settings.coordinators.clone(), credentials).await?;
    // Where nobody answers, the leader's word is all there is.
    let others = ask_all(settings, Ensemble::of(&told).unheard(&told), credentials).await?;
    told.extend(others.into_iter().filter(|(_, told)| told.is_ok()));
    let ensemble = Ensemble::of(&told);
    let failure = whole_failure(&settings.coordinators, &ensemble, &told);
    match (format, failure) {
        (Format::Json, None) => print_json(&ensemble.document(&told))?,
        (Format::Json, Some((why, error))) => {
            return Err(error.context(Partly { why, known: ensemble.document(&told) }));
        }
        (Format::Table, failure) => {
            ensemble.show(&told)?;
            if let Some((why, error)) = failure {
                return Err(error.context(why));
            }
        }
    }
    Ok(())
}

/// What is said where nobody has told of any member, and the error behind it.
fn whole_failure(
    asked: &[String],
    ensemble: &Ensemble,
    told: &[(String, Told)],
) -> Option<(String, anyhow::Error)> {
    if !ensemble.members.is_empty() {
        return None;
    }
    let (up, silent): (Vec<_>, Vec<_>) =
        told.iter().partition(|(_, told)| told.as_ref().is_err_and(|error| error.is::<NoQuorum>()));
    if !up.is_empty() {
        let names = |these: &[&(String, Told)]| {
            let names: Vec<_> = these.iter().map(|(address, _)| &**address).collect();
            names.join(", ")
        };
        let silent = match silent.is_empty() {
            true => String::new(),
            false => format!(", silent {}", names(&silent)),
        };
        let why = format!("no coordinator has a quorum: up {}{silent}", names(&up));
        return Some((why, Error::Unavailable.into()));
    }
    let known = |(_, told): &(String, Told)| told.as_ref().err()?.downcast_ref::<Error>().cloned();
    let errors: Vec<_> = told.iter().filter_map(known).collect();
    if let Some(refused) = errors.iter().find(|error| error.is(ErrorCode::NoAuth)) {
        let why = format!("you may not read {CONFIG_PATH}, and so not who the members are");
        return Some((why, refused.clone().into()));
    }
    let is_told = |error: &&Error| matches!(error, Error::Tls { .. } | Error::HungUp { .. });
    let error = errors.iter().find(is_told).unwrap_or(&Error::Unavailable).clone();
    Some((format!("no coordinator answers at {}", asked.join(", ")), error.into()))
}

async fn ask_all(
    settings: &Settings,
    addresses: Vec<String>,
    credentials: &[Credentials],
) -> anyhow::Result<Vec<(String, Told)>> {
    let mut asked = Vec::new();
    for address in addresses {
        let one = vec![address.clone()];
        let client = open(settings, one, credentials.to_vec(), ANSWER_TIMEOUT);
        let (place, tls) = (address.clone(), settings.tls.clone());
        let work = async move { ask_or_look(client, &place, tls.as_ref()).await };
        asked.push((address, tokio::spawn(work)));
    }
    let mut told = Vec::new();
    for (address, work) in asked {
        told.push((address, work.await?));
    }
    Ok(told)
}

/// What a server knows; of one that gives no session, whether it is there without a quorum.
async fn ask_or_look(client: Client, address: &str, tls: Option<&Tls>) -> Told {
    let told = ask(client).await;
    let is_silent = |error: &anyhow::Error| {
        error.downcast_ref().is_none_or(|known| {
            matches!(known, Error::HungUp { .. } | Error::Tls { why: TlsFailure::HungUp, .. })
        })
    };
    match told {
        Err(error) if is_silent(&error) && is_without_quorum(address, tls).await => {
            Err(NoQuorum.into())
        }
        told => told,
    }
}

async fn ask(client: Client) -> Told {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT + ANSWER_GRACE, async {
        let (info, zxid) = client.describe_ensemble().await?;
        let config = client.get_data(CONFIG_PATH).await.ok().and_then(|(data, _)| data);
        let (servers, _) = configuration(&String::from_utf8_lossy(&config.unwrap_or_default()));
        Ok::<_, coordinator_client::Error>(Answer { info, zxid, servers })
    });
    let answer = answer.await;
    client.close().await;
    match answer {
        Ok(Err(Error::Unavailable)) | Err(_) => {
            anyhow::bail!("no answer in time: not up, or not to be reached")
        }
        Ok(answered) => Ok(answered?),
    }
}

/// One member, by what all say together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Member {
    address: Option<String>,
    zxid: Option<Zxid>,
    up: bool,
    observer: bool,
}

/// What comes out of all answers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ensemble {
    leader: Option<i32>,
    term: i64,
    members: BTreeMap<i32, Member>,
}

impl Ensemble {
    /// Who knows of the latest term knows who leads; a member that spoke is up, of others the leader's word counts most.
    fn of(told: &[(String, Told)]) -> Self {
        let mut ensemble = Self::default();
        let mut infos: Vec<_> = told
            .iter()
            .filter_map(|(address, told)| Some((address, told.as_ref().ok()?)))
            .collect();
        infos.sort_by_key(|(_, Answer { info, .. })| (info.term, info.server == info.leader));
        for (_, Answer { info, servers, .. }) in &infos {
            ensemble.term = info.term;
            ensemble.leader = Some(info.leader).filter(|leader| *leader > 0);
            let member = |id: i32, up| {
                let server = servers.get(&id).map(String::as_str).unwrap_or_default();
                let (links, _) = server.split_once(';').unwrap_or((server, ""));
                let observer = links.ends_with(":observer");
                Member { address: client_address(server), up, observer, zxid: None }
            };
            ensemble.members =
                info.members.iter().map(|one| (one.id, member(one.id, one.up))).collect();
        }
        for (address, Answer { info, zxid, .. }) in infos {
            let member = ensemble.members.entry(info.server).or_default();
            (member.address, member.zxid, member.up) = (Some(address.clone()), Some(*zxid), true);
        }
        ensemble
    }

    /// Where members are that did not speak for themselves.
    fn unheard(&self, told: &[(String, Told)]) -> Vec<String> {
        let spoke = |id: i32| {
            let mut answers = told.iter().filter_map(|(_, told)| told.as_ref().ok());
            answers.any(|answer| answer.info.server == id)
        };
        let silent = self.members.iter().filter(|(id, _)| !spoke(**id));
        let found = silent.filter_map(|(_, member)| member.address.clone());
        found.filter(|address| told.iter().all(|(asked, _)| asked != address)).collect()
    }

    fn role(&self, id: i32, member: &Member) -> &'static str {
        match member.up {
            _ if self.leader == Some(id) && self.members.len() == 1 => "standalone",
            _ if self.leader == Some(id) => "leader",
            true if member.observer => "observer",
            true => "follower",
            false => "down",
        }
    }

    fn show(&self, told: &[(String, Told)]) -> anyhow::Result<()> {
        let mut table = Table::new(&["MEMBER", "ADDRESS", "ROLE", "ZXID"]);
        let dash = || "-".to_owned();
        for (id, member) in &self.members {
            table.row([
                id.to_string(),
                member.address.clone().unwrap_or_else(dash),
                self.role(*id, member).to_owned(),
                member.zxid.map_or_else(dash, hex),
            ]);
        }
        for (address, error) in failures(told) {
            table.row([dash(), address.to_owned(), error, dash()]);
        }
        table.print()?;
        if let Some(note) = self.unplaced() {
            eprintln!("{note}");
        }
        Ok(())
    }

    /// Why some members have no address.
    fn unplaced(&self) -> Option<String> {
        let unplaced = self.members.iter().filter(|(_, member)| member.address.is_none());
        let ids: Vec<_> = unplaced.map(|(id, _)| id.to_string()).collect();
        (!ids.is_empty()).then(|| {
            format!(
                "where clients reach {} is not known, so that they were not asked: server.N of the settings, or of {CONFIG_PATH}, names \
                 no `;[HOST:]PORT`; --coordinator can name them",
                ids.join(", ")
            )
        })
    }

    fn document(&self, told: &[(String, Told)]) -> serde_json::Value {
        let member = |(id, member): (&i32, &Member)| {
            json!({
                "id": id,
                "address": member.address,
                "role": self.role(*id, member),
                "up": member.up,
                "zxid": member.zxid.map(hex),
            })
        };
        let failure = |(address, error)| json!({ "address": address, "error": error });
        json!({
            "leader": self.leader,
            "term": self.term,
            "members": self.members.iter().map(member).collect::<Vec<_>>(),
            "failures": failures(told).map(failure).collect::<Vec<_>>(),
        })
    }
}

fn failures(told: &[(String, Told)]) -> impl Iterator<Item = (&str, String)> {
    told.iter()
        .filter_map(|(address, told)| Some((&**address, format!("{:#}", told.as_ref().err()?))))
}

fn hex(zxid: Zxid) -> String {
    format!("0x{:x}", zxid.get())
}

#[cfg(test)]
mod tests {
    use coordinator_client::protocol::MemberInfo;

    use super::*;

    fn told(address: &str, server: i32, leader: i32, up: &[i32]) -> (String, Told) {
        let members = (1..=3).map(|id| MemberInfo { id, up: up.contains(&id) }).collect();
        let info = EnsembleInfo { server, leader, term: 7, members };
        let (servers, _) = configuration("server.3=c:1:1:observer;c:2\nversion=0");
        (address.to_owned(), Ok(Answer { info, zxid: Zxid::new(0x2a), servers }))
    }

    #[test]
    fn a_server_is_written_as_the_ensemble_wants_it() {
        let check = |peer: &str, observer, expected: &str| {
            assert_eq!(joining(4, peer, "d:3", observer).unwrap(), expected);
        };
        check("d:1", false, "server.4=d:1:0:participant;d:3");
        check("d:1:2", true, "server.4=d:1:2:observer;d:3");
        check("[::1]:1", false, "server.4=[::1]:1:0:participant;d:3");
        check("[::1]:1:2", false, "server.4=[::1]:1:2:participant;d:3");
        assert!(joining(4, "d", "d:3", false).is_err());
    }

    #[test]
    fn members_are_unknown_only_where_nothing_is_there() {
        let check = |read, expected: Result<Option<&str>, Error>| {
            assert_eq!(read_text(read), expected.map(|text| text.map(str::to_owned)));
        };
        check(Ok(Some(Bytes::from_static(b"version=1"))), Ok(Some("version=1")));
        check(Ok(None), Ok(None));
        check(Err(Error::Refused(ErrorCode::NoNode)), Ok(None));
        let errors = [Error::Refused(ErrorCode::NoAuth), Error::ConnectionLoss, Error::Unavailable];
        for error in errors {
            check(Err(error.clone()), Err(error));
        }
    }

    #[test]
    fn change_without_an_answer_is_known_by_the_configuration() {
        let text = "server.3=c:1:1:observer;c:2\nserver.4=d:1:0:participant;d:3\nversion=1";
        let joined = Some(joining(4, "d:1", "d:3", false).unwrap());
        let elsewhere = Some(joining(4, "e:1", "d:3", false).unwrap());
        assert!(shows(text, &joined, &None) && !shows(text, &elsewhere, &None));
        let left = |ids: &str| shows(text, &None, &Some(ids.to_owned()));
        assert!(left("5") && left("1,2") && !left("3") && !left("2,4"));
    }

    #[test]
    fn member_is_asked_where_clients_find_it() {
        let check = |server: &str, expected: Option<&str>| {
            assert_eq!(client_address(server).as_deref(), expected, "{server}");
        };
        check("c:1:1:observer;c:2", Some("c:2"));
        check("c:1:0:participant;0.0.0.0:2", Some("c:2"));
        check("[fe80::1]:1:0:participant;[::]:2", Some("[fe80::1]:2"));
        check("c:1:1:participant", None);
        let answers = [told("a:1", 1, 1, &[1, 2, 3])];
        assert_eq!(Ensemble::of(&answers).unheard(&answers), ["c:2"]);
        let answers = [told("a:1", 1, 1, &[1, 2, 3]), told("c:9", 3, 1, &[])];
        assert_eq!(Ensemble::of(&answers).unheard(&answers), [""; 0]);
    }

    #[test]
    fn servers_without_a_quorum_are_told_from_those_that_are_silent() {
        let silent = || ("b:1".to_owned(), Err(anyhow::anyhow!("no answer")));
        let told = [("a:1".to_owned(), Err(NoQuorum.into())), silent()];
        let (why, _) = whole_failure(&[], &Ensemble::default(), &told).unwrap();
        assert_eq!(why, "no coordinator has a quorum: up a:1, silent b:1");
        let (why, _) = whole_failure(&[], &Ensemble::default(), &[silent()]).unwrap();
        assert!(why.starts_with("no coordinator answers at"), "{why}");
    }

    #[test]
    fn members_are_those_of_all_answers_together() {
        let failed = ("c:1".to_owned(), Err(anyhow::anyhow!("no answer")));
        let answers = [told("a:1", 1, 1, &[1, 2]), told("b:1", 2, 1, &[1, 2, 3]), failed];
        let ensemble = Ensemble::of(&answers);
        let roles: Vec<_> =
            ensemble.members.iter().map(|(id, member)| ensemble.role(*id, member)).collect();
        assert_eq!(roles, ["leader", "follower", "down"], "the leader's word counts");
        let document = ensemble.document(&answers);
        assert_eq!(document["leader"], 1);
        assert_eq!(document["members"][1]["address"], "b:1");
        assert_eq!(document["members"][1]["zxid"], "0x2a");
        assert_eq!(document["members"][2]["up"], false);
        assert_eq!(document["members"][2]["address"], "c:2");
        assert_eq!(document["failures"][0]["error"], "no answer");
        assert_eq!(Ensemble::of(&[]), Ensemble::default());
        assert_eq!(ensemble.unplaced(), None);
        let one = Ensemble::of(&[told("a:1", 1, 1, &[1])]);
        assert!(one.unplaced().is_some_and(|note| note.contains("clients reach 2 is not known")));
    }
}
