//! Says what a command waits for, so that none is silent while nothing happens.
//!
//! *Called by* the commands. Prints to standard error; data stays alone on standard output.
//!
//! Invariant: a thing is told once it has lasted for a while, and again only rarely.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use client::{Obstacle, Producer};

use crate::output::printable;

/// What passes sooner is not worth a word: a failover takes less.
pub const TELL_AFTER: Duration = Duration::from_secs(5);
/// How often it is looked whether records wait too long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the same is told.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What was told, and when.
#[derive(Debug, Default)]
pub struct Patience {
    told: Vec<(String, Instant)>,
}

impl Patience {
    /// Tells of what stands in the way; `obstacles` are those that last longer than [`TELL_AFTER`].
    pub fn tell(&mut self, obstacles: &[Obstacle]) {
        for line in self.lines(obstacles, Instant::now()) {
            eprintln!("{}", printable(&line));
        }
    }

    fn lines(&mut self, obstacles: &[Obstacle], now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        let had_told = !self.told.is_empty();
        self.told.retain(|(text, _)| obstacles.iter().any(|obstacle| obstacle.text == *text));
        if had_told && obstacles.is_empty() {
            lines.push("it goes on".to_owned());
        }
        for obstacle in obstacles {
            let known = self.told.iter_mut().find(|(text, _)| *text == obstacle.text);
            match known {
                Some((_, at)) if now.duration_since(*at) < AGAIN_AFTER => continue,
                Some((_, at)) => *at = now,
                None => self.told.push((obstacle.text.clone(), now)),
            }
            lines.push(format!("waiting for {} s: {}", obstacle.lasts.as_secs(), obstacle.text));
            lines.push(format!("hint: {}", obstacle.hint()));
        }
        lines
    }
}

/// Says what a producer's records wait for; beside the work, until that is done.
pub async fn watch(producer: &Producer) -> Infallible {
    let mut patience = Patience::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        patience.tell(&producer.obstacles(TELL_AFTER));
    }
}

/// Runs to the end what should not take long, and says so when it does.
pub async fn tell_if_late<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let began = Instant::now();
    let mut patience = TELL_AFTER;
    loop {
        match tokio::time::timeout(patience, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => eprintln!(
                "{what} for {} s; TIDEGATE_LOG=debug shows what is tried",
                began.elapsed().as_secs()
            ),
        }
        patience = AGAIN_AFTER;
    }
}

#[cfg(test)]
mod tests {
    use client::protocol::ErrorCode;

    use super::*;

    #[test]
    fn the_same_is_told_rarely_and_its_end_once() {
        let mut patience = Patience::default();
        let obstacle = |text: &str, lasts| {
            Obstacle::new(
                text,
                Duration::from_secs(lasts),
                Some(ErrorCode::CoordinatorNotAvailable),
            )
        };
        let began = Instant::now();
        let mut told = |obstacles: &[Obstacle], after_s| {
            let lines = patience.lines(obstacles, began + Duration::from_secs(after_s));
            lines.into_iter().filter(|line| !line.starts_with("hint: ")).collect::<Vec<_>>()
        };
        assert_eq!(told(&[], 0), [""; 0]);
        assert_eq!(told(&[obstacle("a", 5)], 5), ["waiting for 5 s: a"]);
        assert_eq!(told(&[obstacle("a", 34)], 34), [""; 0]);
        assert_eq!(
            told(&[obstacle("a", 35), obstacle("b", 5)], 35),
            ["waiting for 35 s: a", "waiting for 5 s: b"]
        );
        assert_eq!(told(&[obstacle("b", 6)], 36), [""; 0]);
        assert_eq!(told(&[], 37), ["it goes on"]);
        assert_eq!(told(&[], 38), [""; 0]);
    }
}
