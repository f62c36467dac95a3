//! The leader of three servers is killed while sessions on each of them write: for how long nobody can, and what
//! the sessions notice.
//!
//! Called by: `plan`. Calls: `writer`, whose books are judged. A round ends when all write again; then the killed server
//! is started and has to be a follower again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::peers::System;
use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::report::{Better, Table, median, quantile};
use crate::writer::{Book, Shared, Writer, held};

const SESSIONS: usize = 6;
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(1);
/// Writes of each session that have to be acknowledged after the kill: the first may have been before the end.
const WRITES_AFTER: usize = 10;
/// A hang guard for a round and for a restart.
const LIMIT: Duration = Duration::from_secs(120);

/// The empty table.
pub fn table(rounds: usize) -> Table {
    let note = format!(
        "Kill -9 of the leader of three servers under {SESSIONS} sessions, two on each, that write one set of 100 B after \
         the other; {rounds} rounds. To the next acknowledged write: from the kill to the first acknowledgement of any \
         session that bears the next leader's epoch. A session's time without one ends with its own first of that epoch. A session whose connection is dropped tries the other servers at \
         once, without the pauses of usual clients, and goes on with its session; a write whose answer was lost is not \
         repeated. After each round every znode held a write no older than the last that was acknowledged, or there \
         would be no figure."
    );
    Table::new("The leader is killed, 3 nodes", &note)
}

/// Kills the leader so many times and adds the figures.
///
/// # Errors
/// When a server does not come back, nothing is acknowledged any more, or an acknowledged write is gone.
pub fn measure(table: &mut Table, system: &mut System, rounds: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut seen = Vec::new();
    for round in 0..rounds {
        let leader = wait("a leader", || {
            let roles: Vec<_> = servers(system).map(|at| system.role(at)).collect();
            let follow = roles.iter().flatten().filter(|role| *role == "follower").count();
            let leader = roles.iter().position(|role| role.as_deref() == Some("leader"));
            leader.filter(|_| follow + 1 == roles.len())
        })?;
        let found = runtime.block_on(run(system, leader, round))?;
        println!(
            "    {:<14} round {round}: {:.0} ms, {} connections dropped",
            system.name(),
            found.restored_ms,
            found.dropped
        );
        seen.push(found);
        system.start_again(leader)?;
        wait("the killed server to follow", || {
            (system.role(leader).as_deref() == Some("follower")).then_some(())
        })?;
    }
    record(table, system.name(), &seen);
    Ok(())
}

fn servers(system: &System) -> std::ops::Range<usize> {
    0..system.ensemble_addresses.len()
}

fn wait<T>(what: &str, ask: impl Fn() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = ask() {
            return Ok(found);
        }
        ensure!(began.elapsed() < LIMIT, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What one round came to.
struct Found {
    restored_ms: f64,
    /// Longest time without an acknowledged write of each session, by whether its server survived.
    survivors_ms: Vec<f64>,
    others_ms: Vec<f64>,
    /// Connections to survivors.
    dropped: usize,
    lost: usize,
    refused: usize,
    expired: usize,
}

fn record(table: &mut Table, system: &str, rounds: &[Found]) {
    let mut put = |what: &str, figure: f64| table.put(what, Better::Lower, system, figure);
    let mut times = |what: &str, mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        put(&format!("{what}: median ms"), median(figures.clone()).unwrap_or(f64::NAN));
        put(&format!("{what}: longest ms"), quantile(&figures, 1.0));
    };
    let restored = rounds.iter().map(|round| round.restored_ms).collect();
    times("leader killed to the next acknowledged write", restored);
    let survivors = rounds.iter().flat_map(|round| round.survivors_ms.clone()).collect();
    times("sessions on survivors, longest without an acknowledged write", survivors);
    let others = rounds.iter().flat_map(|round| round.others_ms.clone()).collect();
    times("sessions on the killed server, longest without an acknowledged write", others);
    let count = rounds.len().max(1) as f64;
    let mean = |of: fn(&Found) -> usize| rounds.iter().map(of).sum::<usize>() as f64 / count;
    let on_survivors = rounds.iter().map(|round| round.survivors_ms.len()).max().unwrap_or(0);
    put(
        &format!("connections to survivors that were dropped, of {on_survivors} a round"),
        mean(|round| round.dropped),
    );
    put("writes whose answer was lost, a round", mean(|round| round.lost));
    put("writes that were refused, a round", mean(|round| round.refused));
    put("sessions that expired, a round", mean(|round| round.expired));
}

async fn run(system: &System, leader: usize, round: usize) -> Result<Found> {
    let shared = Arc::new(Shared::new(SESSIONS));
    let mut writers = JoinSet::new();
    for number in 0..SESSIONS {
        // Its own server first, the others in turn.
        let mut addresses = system.ensemble_addresses.clone();
        addresses.rotate_left(number % system.ensemble_addresses.len());
        let path = format!("/loss-{round}-{number}");
        let writer = Writer::new(addresses, path, number, Arc::clone(&shared)).await?;
        writers.spawn(async move { (number, writer.run().await) });
    }
    tokio::time::sleep(BEFORE).await;
    let process = *system.ensemble.get(leader).context("a leader that is no server")?;
    let counts = || shared.acknowledged.iter().map(|count| count.load(Ordering::Relaxed));
    let before: Vec<usize> = counts().collect();
    let killed = Instant::now();
    process.signal(Signal::KILL)?;
    while counts().zip(&before).any(|(now, before)| now < before + WRITES_AFTER) {
        ensure!(
            killed.elapsed() < LIMIT,
            "not every session writes again after the leader's death"
        );
        ensure!(writers.len() == SESSIONS, "a session has ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(AFTER).await;
    shared.stop();
    let mut books = Vec::new();
    while let Some(ended) = writers.join_next().await {
        let (number, book) = ended?;
        books.push((number, book?));
    }
    process.wait_gone(LIMIT)?;
    let survivor = system.ensemble_addresses.get((leader + 1) % system.ensemble_addresses.len());
    let survivor = survivor.context("nobody survived")?;
    for (_, book) in &books {
        let value = held(survivor, &book.path).await?;
        ensure!(
            (book.last_acknowledged..=book.last_sent).contains(&value),
            "{} holds write {value}, the last acknowledged was {}, the last sent {}",
            book.path,
            book.last_acknowledged,
            book.last_sent
        );
    }
    Ok(judge(&books, leader, system.ensemble_addresses.len(), killed))
}

fn judge(books: &[(usize, Book)], leader: usize, servers: usize, killed: Instant) -> Found {
    let pauses: Vec<_> =
        books.iter().map(|(number, book)| (number, book, pause(&book.at, killed))).collect();
    let first = pauses.iter().filter_map(|(_, _, pause)| Some(pause.as_ref()?.again)).min();
    let sum = |of: fn(&Book) -> usize| books.iter().map(|(_, book)| of(book)).sum();
    let mut found = Found {
        restored_ms: first.map_or(f64::NAN, |at| ms(at - killed)),
        survivors_ms: Vec::new(),
        others_ms: Vec::new(),
        dropped: 0,
        lost: sum(|book| book.lost),
        refused: sum(|book| book.refused),
        expired: sum(|book| book.expired),
    };
    for (number, book, pause) in &pauses {
        let longest = pause.as_ref().map_or(f64::NAN, |pause| ms(pause.longest));
        if *number % servers == leader {
            found.others_ms.push(longest);
        } else {
            found.survivors_ms.push(longest);
            found.dropped += usize::from(book.dropped > 0);
        }
    }
    found
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What a leader's death was to one session.
#[derive(Debug, PartialEq, Eq)]
struct Pause {
    /// Its first acknowledgement by the next leader.
    again: Instant,
    /// The longest time between two acknowledgements that ended after the kill, up to that.
    longest: Duration,
}

/// None without acknowledgements from both sides of the kill.
fn pause(at: &[(Instant, u32)], killed: Instant) -> Option<Pause> {
    let (_, epoch) = at.iter().rfind(|(at, _)| *at <= killed)?;
    let (again, _) = at.iter().find(|(at, now)| *at > killed && now > epoch)?;
    let until = at.iter().take_while(|(at, _)| at <= again);
    let after = until.clone().zip(until.skip(1)).filter(|(_, (end, _))| *end > killed);
    let longest = after.map(|((begin, _), (end, _))| *end - *begin).max()?;
    Some(Pause { again: *again, longest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_ends_with_the_next_epoch_and_what_comes_later_is_none_of_it() {
        let zero = Instant::now();
        let moment = |ms| zero + Duration::from_millis(ms);
        let at = [(0, 1), (500, 1), (510, 1), (520, 1), (600, 2), (900, 2)];
        let at = at.map(|(ms, epoch)| (moment(ms), epoch));
        let expected = Pause { again: moment(600), longest: Duration::from_millis(80) };
        assert_eq!(pause(&at, moment(515)), Some(expected));
        assert_eq!(pause(&at, moment(600)), None);
    }
}
