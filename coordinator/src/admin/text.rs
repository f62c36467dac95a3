//! The writer for four-letter words.
//!
//! Called by: connections. Calls: `desk` for what is known.
//! Invariant: field names and forms are those of ZooKeeper 3.9, because programs read them; a list that is not whole says so
//! in its last line. What has no meaning here says that, in place of a number.
//! Does not know: sockets.

pub mod lists;

use coordinator_protocol::FourLetterWord;

use super::desk::Desk;
use super::environment;
use super::known::{Known, Wanted};
use super::monitor::{self, Value, java_double, sizes};
use crate::core_loop::Reset;

pub use lists::{operation, remote};

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
const TOO_MANY: &str = "too many lists are asked for at once, ask again\n";

/// The whole answer, without a trailing close. `has_place` says whether there is room for a list.
pub async fn answer(word: FourLetterWord, desk: &Desk, has_place: bool) -> String {
    if !desk.whitelist.has(word) {
        return format!("{} is not executed because it is not in the whitelist.\n", word.name());
    }
    match word {
        FourLetterWord::Ruok => return "imok".to_owned(),
        FourLetterWord::Envi => return environment(),
        FourLetterWord::Gtmk | FourLetterWord::Stmk => {
            let name = word.name();
            return format!(
                "{name} has no meaning here: there is no trace mask, --log says what is logged\n"
            );
        }
        _ => {}
    }
    let wanted = match wanted(word) {
        Wanted::Summary => Wanted::Summary,
        list if has_place => list,
        // Health is asked for by this word too, and is no list.
        _ if word == FourLetterWord::Stat => Wanted::Summary,
        _ => return TOO_MANY.to_owned(),
    };
    let Some(known) = desk.ask(wanted).await else { return NOT_SERVING.to_owned() };
    if known.serving_as().is_none() {
        return match word {
            FourLetterWord::Isro => "null".to_owned(),
            _ => NOT_SERVING.to_owned(),
        };
    }
    match word {
        FourLetterWord::Srst => reset(desk, Reset::Server, "Server stats reset.\n").await,
        FourLetterWord::Crst => reset(desk, Reset::Connections, "Connection stats reset.\n").await,
        FourLetterWord::Conf => configuration(&known, desk).await,
        FourLetterWord::Dirs => {
            let sizes = desk.sizes().await;
            format!("datadir_size: {}\nlogdir_size: {}\n", sizes.snapshots, sizes.log)
        }
        FourLetterWord::Mntr => measures(&known, desk),
        word if wanted == Wanted::Summary => of_summary(word, &known),
        // Thousands of lines are not made on the thread that serves everybody.
        word => tokio::task::spawn_blocking(move || lists::of(word, &known))
            .await
            .unwrap_or_else(|_| NOT_SERVING.to_owned()),
    }
}

/// Whether there has to be a place for its list.
pub fn shows_list(word: FourLetterWord) -> bool {
    wanted(word) != Wanted::Summary
}

/// Which list a word shows.
fn wanted(word: FourLetterWord) -> Wanted {
    match word {
        FourLetterWord::Cons | FourLetterWord::Stat => Wanted::Connections,
        FourLetterWord::Dump => Wanted::Sessions,
        FourLetterWord::Wchc => Wanted::Watches,
        FourLetterWord::Wchp => Wanted::WatchesByPath,
        FourLetterWord::Conf
        | FourLetterWord::Crst
        | FourLetterWord::Dirs
        | FourLetterWord::Envi
        | FourLetterWord::Gtmk
        | FourLetterWord::Hash
        | FourLetterWord::Isro
        | FourLetterWord::Mntr
        | FourLetterWord::Ruok
        | FourLetterWord::Srst
        | FourLetterWord::Srvr
        | FourLetterWord::Stmk
        | FourLetterWord::Wchs => Wanted::Summary,
    }
}

fn of_summary(word: FourLetterWord, known: &Known) -> String {
    match word {
        FourLetterWord::Isro if known.status.read_only => "ro".to_owned(),
        FourLetterWord::Isro => "rw".to_owned(),
        FourLetterWord::Wchs => {
            let watches = known.watches;
            format!(
                "{} connections watching {} paths\nTotal watches:{}\n",
                watches.connections, watches.paths, watches.watches
            )
        }
        FourLetterWord::Stat => server(known, Some(TOO_MANY)),
        FourLetterWord::Hash => "hash is not known: no digests of the tree are kept\n".to_owned(),
        _ => server(known, None),
    }
}

/// `srvr`, and with a list of clients `stat`.
fn server(known: &Known, clients: Option<&str>) -> String {
    let status = &known.status;
    let mut text = format!("Zookeeper version: {}\n", environment::version());
    if status.read_only {
        text.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    if let Some(clients) = clients {
        text.push_str(&format!("Clients:\n{clients}\n"));
    }
    let traffic = status.since_reset;
    text.push_str(&format!(
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\n\
         Zxid: 0x{:x}\nMode: {}\nNode count: {}\n",
        traffic.latency.min,
        java_double(known.average_latency()),
        traffic.latency.max,
        traffic.received,
        traffic.sent,
        status.connections,
        status.outstanding,
        status.zxid.get(),
        known.serving_as().unwrap_or("none"),
        status.nodes,
    ));
    if known.leads() {
        let (last, min, max) = sizes(status.proposal_sizes);
        text.push_str(&format!("Proposal sizes last/min/max: {last}/{min}/{max}\n"));
    }
    text
}

async fn configuration(known: &Known, desk: &Desk) -> String {
    use super::facts::shown;
    use coordinator_core::members::{Role, to_text};
    let (facts, sizes) = (&desk.facts, desk.sizes().await);
    let mut text = format!(
        "clientPort={}\nsecureClientPort={}\ndataDir={}\ndataDirSize={}\ndataLogDir={}\ndataLogSize={}\n\
         tickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\n\
         clientPortListenBacklog=-1\nserverId={}\n",
        facts.client_port(),
        facts.secure_client_port(),
        shown(&facts.snapshots),
        sizes.snapshots,
        shown(&facts.log),
        sizes.log,
        facts.tick_time_ms,
        facts.per_address_max.unwrap_or(0),
        facts.session_timeout_ms_min,
        facts.session_timeout_ms_max,
        facts.id,
    );
    let view = &known.ensemble;
    if !known.is_of_ensemble() {
        return text;
    }
    if let Some(own) = view.servers.get(&facts.id) {
        let election_port = own.election_port().unwrap_or(0);
        let role = i32::from(own.role() == Role::Observer);
        text.push_str(&format!(
            "electionPort={election_port}\nquorumPort={}\npeerType={role}\n",
            own.port()
        ));
    }
    text.push_str(&format!("membership: \n{}\n", to_text(&view.servers, view.version.get())));
    text
}

fn measures(known: &Known, desk: &Desk) -> String {
    let line = |(name, value): (String, Value)| match value {
        Value::Text(text) => format!("zk_{name}\t{text}\n"),
        Value::Whole(number) => format!("zk_{name}\t{number}\n"),
        Value::Size(number) => format!("zk_{name}\t{number}\n"),
        Value::Fraction(number) => format!("zk_{name}\t{}\n", java_double(number)),
    };
    monitor::list(known, desk).into_iter().map(line).collect()
}

/// What clients ask for the version, in the form of ZooKeeper's Java properties.
fn environment() -> String {
    let lines = environment::list().into_iter().map(|(name, value)| format!("{name}={value}\n"));
    std::iter::once("Environment:\n".to_owned()).chain(lines).collect()
}

async fn reset(desk: &Desk, which: Reset, done: &str) -> String {
    match desk.reset(which).await {
        true => done.to_owned(),
        false => NOT_SERVING.to_owned(),
    }
}
