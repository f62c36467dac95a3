//! What is at an address where no coordinator answers: nobody, or somebody who speaks something else.
//!
//! *Called by* `main`, when coordinators were not reached. *Calls* the network.
//!
//! Invariant: nothing is asked of anybody that changes anything, each step of a question ends within [`ANSWER_MAX`], and a few bytes of an
//! answer are looked at.

use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Result;
use coordinator_client::{Error, TlsFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::Settings;

/// For one answer, and for a connection.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Addresses that are looked at.
const ADDRESSES_MAX: usize = 16;
/// Of an answer.
const ANSWER_BYTES: usize = 8;
/// Of a coordinator's, whose words end with the connection.
const ANSWER_BYTES_MAX: usize = 64;

/// Coordinators and ZooKeeper's servers have an answer to it, whatever their state.
const WORD: &[u8] = b"srvr";
/// How that begins: what they are, that they serve nobody now, or that the word is not in their list.
const COORDINATOR: [&[u8]; 3] = [b"Zookeeper ", b"This ZooKeeper ", b"srvr is not "];

/// ApiVersions, version 0, with a number of ours and no client id: brokers of all releases answer it before anything else.
const KAFKA: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, b't', b'i', b'd', b'e', 0xff, 0xff];
/// Where Kafka's answer has that number.
const KAFKA_NUMBER: std::ops::Range<usize> = 4..8;
const HTTP: &[u8] = b"HEAD / HTTP/1.0\r\n\r\n";
/// How an alert of TLS begins.
const ALERT: [u8; 2] = [0x15, 3];

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Nobody,
    NoSuchHost,
    Kafka,
    Http,
    Tls,
}

impl There {
    const fn words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody listens there",
            Self::NoSuchHost => "its host is not known here",
            Self::Kafka => "a Kafka broker is there",
            Self::Http => "it speaks HTTP",
            Self::Tls => "it speaks TLS only",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Nobody => {
                "is it running, and at that port? --coordinator (TIDEGATE_COORDINATOR) names the clientPort of each coordinator"
            }
            Self::NoSuchHost => {
                "is the host in --coordinator (TIDEGATE_COORDINATOR) spelled right?"
            }
            Self::Kafka => {
                "--coordinator (TIDEGATE_COORDINATOR) names coordinators, 2181 unless they are told another clientPort; brokers are \
                 --bootstrap (TIDEGATE_BOOTSTRAP)"
            }
            Self::Http => {
                "--coordinator (TIDEGATE_COORDINATOR) names a coordinator's clientPort, 2181 unless it is told another, and not its httpPort"
            }
            Self::Tls => "--tls-ca (TIDEGATE_TLS_CA) names the authority to trust",
        }
    }
}

/// What was found, said before the error itself.
#[derive(Debug)]
pub struct Whereabouts(Vec<(String, There)>);

impl Whereabouts {
    /// What to do about the most telling of them.
    pub fn advice(&self) -> Option<&'static str> {
        let telling = self.0.iter().find(|(_, there)| *there != There::Nobody).or(self.0.first());
        telling.map(|(_, there)| there.advice())
    }
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (address, there)) in self.0.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(f, "{comma}{address}: {}", there.words())?;
        }
        Ok(())
    }
}

/// The outcome, and where coordinators were not reached what is at their addresses.
pub async fn explained<T>(settings: &Settings, outcome: Result<T>) -> Result<T> {
    let Err(error) = outcome else { return outcome };
    let is_silence = |known: &Error| match known {
        Error::Unavailable | Error::HungUp { .. } => true,
        Error::Tls { why, .. } => {
            matches!(why, TlsFailure::HungUp | TlsFailure::NotEncrypted | TlsFailure::Other(_))
        }
        _ => false,
    };
    if !error.downcast_ref::<Error>().is_some_and(is_silence) {
        return Err(error);
    }
    let asked = settings.coordinators.iter().take(ADDRESSES_MAX).cloned();
    let looks: Vec<_> =
        asked.map(|address| (address.clone(), tokio::spawn(look(address)))).collect();
    let mut found = Vec::new();
    for (address, look) in looks {
        // It does not panic, and nobody ends it.
        if let Ok(Some(there)) = look.await
            && (there != There::Tls || settings.tls.is_none())
        {
            found.push((address, there));
        }
    }
    match found.is_empty() {
        true => Err(error),
        false => Err(error.context(Whereabouts(found))),
    }
}

/// `None` for who says nothing, as coordinators do.
async fn look(address: String) -> Option<There> {
    let known = timeout(ANSWER_MAX, tokio::net::lookup_host(&address)).await;
    if matches!(known, Ok(Err(_))) {
        return Some(There::NoSuchHost);
    }
    match ask(&address, WORD, ANSWER_BYTES_MAX).await {
        // It is one, and has a reason of its own.
        Ok(answer) if COORDINATOR.iter().any(|start| answer.starts_with(start)) => return None,
        Ok(answer) => {
            if let Some(there) = told_by(&answer) {
                return Some(there);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Some(There::Nobody);
        }
        Err(_) => {}
    }
    match ask(&address, &KAFKA, ANSWER_BYTES).await {
        Ok(answer) if answer.get(KAFKA_NUMBER) == Some(&KAFKA[8..12]) => return Some(There::Kafka),
        Ok(answer) => {
            if let Some(there) = told_by(&answer) {
                return Some(there);
            }
        }
        Err(_) => {}
    }
    told_by(&ask(&address, HTTP, ANSWER_BYTES).await.ok()?)
}

fn told_by(answer: &[u8]) -> Option<There> {
    if answer.starts_with(b"HTTP/") || answer.starts_with(b"<!") {
        return Some(There::Http);
    }
    answer.starts_with(&ALERT).then_some(There::Tls)
}

/// The first bytes of the answer to `question`; fewer where there are no more in time.
async fn ask(address: &str, question: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut stream = timeout(ANSWER_MAX, TcpStream::connect(address)).await??;
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(question).await?;
        while answer.len() < bytes_max && stream.read_buf(&mut answer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // What came before it hung up, or fell silent, says who it is.
    let _ = timeout(ANSWER_MAX, talk).await;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Somebody who answers everything so, and hangs up.
    async fn answering(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // Whoever asks may be gone.
                let _ = stream.read(&mut [0; 64]).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn who_is_no_coordinator_is_told_by_what_it_says() {
        let check = async |answer: &'static [u8], expected: Option<There>| {
            assert_eq!(look(answering(answer).await).await, expected, "{answer:?}");
        };
        check(b"HTTP/1.1 400 Bad Request\r\n\r\n", Some(There::Http)).await;
        check(b"\0\0\0\x20tide\0\0", Some(There::Kafka)).await;
        check(&[0x15, 3, 3, 0, 2, 2, 10], Some(There::Tls)).await;
        check(b"", None).await;
        check(b"Zookeeper version: 3.9.5", None).await;
        check(b"This ZooKeeper instance is not currently serving requests\n", None).await;
        check(b"srvr is not executed because it is not in the whitelist.\n", None).await;
        check(b"\0\0\0\x20else\0\0", None).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert_eq!(look(address).await, Some(There::Nobody));
    }

    #[test]
    fn advice_is_about_the_most_telling() {
        let found = Whereabouts(vec![
            ("a:1".to_owned(), There::Nobody),
            ("b:9092".to_owned(), There::Kafka),
        ]);
        assert_eq!(found.to_string(), "a:1: nobody listens there, b:9092: a Kafka broker is there");
        assert!(found.advice().unwrap().contains("--bootstrap"));
    }
}
