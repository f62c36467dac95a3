//! The task behind a client: it finds a server, keeps the connection, and feeds the session.
//!
//! Called by: `client`, which starts and joins it. Calls: `connection`, `session`.
//! Invariant: every call that was taken from the channel is answered before the task ends, and a
//! connection that fell silent, or whose handshake was not answered in time, stays open until
//! another server has the session (closing it would look like our death to a server that watches
//! for it, or that is about to be given the session).
//! It holds no decisions: those are in `session`.

use crate::config::Config;
use crate::connection::{Connection, ConnectionError};
use crate::error::Error;
use crate::session::{Broken, Call, Hook, Reply, Servers, Session, SessionState};
use crate::tls::Tls;
use coordinator_protocol::Request;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

/// Without anything due, the session is looked at this often.
const IDLE: Duration = Duration::from_secs(1);

/// Connections with an unanswered handshake that are kept. An older one was opened longer ago than
/// servers let a handshake wait.
const UNANSWERED_MAX: usize = 16;

/// What handles ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Call(Call),
    Close,
}

/// The client was closed or its session has ended.
struct Over;

#[derive(Debug, Error)]
enum Lost {
    #[error("{0}")]
    Connection(#[from] ConnectionError),
    #[error("{0}")]
    Broken(#[from] Broken),
    #[error("the server takes no more bytes: {0}")]
    Write(std::io::Error),
}

pub(crate) struct Driver {
    session: Session,
    servers: Servers,
    commands: mpsc::Receiver<Command>,
    reach: Reach,
    closing: Option<oneshot::Receiver<Result<Reply, Error>>>,
}

/// How servers are reached.
pub(crate) struct Reach {
    servers: Vec<String>,
    tls: Option<Tls>,
    connect_timeout: Duration,
    ends_on_tls_failure: bool,
}

impl Reach {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            servers: config.servers.clone(),
            tls: config.tls.clone(),
            connect_timeout: config.connect_timeout,
            ends_on_tls_failure: config.ends_on_tls_failure,
        }
    }
}

impl Driver {
    pub(crate) fn new(session: Session, reach: Reach, commands: mpsc::Receiver<Command>) -> Self {
        let servers = Servers::new(reach.servers.clone(), random());
        Self { session, servers, commands, reach, closing: None }
    }

    /// Runs until the client is closed or dropped, or the session has expired.
    pub(crate) async fn run(mut self) {
        let mut silent = None;
        loop {
            let Ok(connection) = self.connect().await else { break };
            drop(silent.take());
            let Ok(broken) = self.serve(connection).await else { break };
            silent = Some(broken);
        }
        self.session.end(SessionState::Closed, &Error::Closed);
    }

    /// Tries servers until one has the session.
    async fn connect(&mut self) -> Result<Connection, Over> {
        let mut unanswered = VecDeque::new();
        // Whether a server of this round cannot be spoken to encrypted, now or later.
        let mut has_tls_failed = false;
        loop {
            let pause = match self.connect_once().await? {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(%error, "coordinator not reached");
                    has_tls_failed |=
                        matches!(&error, ConnectionError::Tls(why) if why.is_lasting());
                    if let ConnectionError::Unanswered(_, connection) = error {
                        unanswered.truncate(UNANSWERED_MAX - 1);
                        unanswered.push_front(connection);
                    }
                    self.servers.failed(random())
                }
            };
            if !pause.is_zero() {
                if std::mem::take(&mut has_tls_failed) && self.reach.ends_on_tls_failure {
                    self.session.refuse_waiting();
                }
                self.meanwhile(sleep(pause)).await?;
            }
        }
    }

    async fn connect_once(&mut self) -> Result<Result<Connection, ConnectionError>, Over> {
        let Some(address) = self.servers.next().map(str::to_owned) else {
            self.meanwhile(sleep(IDLE)).await?;
            return Ok(Err(ConnectionError::TimedOut(IDLE)));
        };
        let request = self.session.connect_request();
        let (limit, tls) = (self.reach.connect_timeout, self.reach.tls.clone());
        let (address, opened) = self
            .meanwhile(async move {
                let opened = Connection::open(&address, tls.as_ref(), request, limit).await;
                tracing::debug!(address, ok = opened.is_ok(), "tried a coordinator");
                (address, opened)
            })
            .await?;
        let (connection, shaken) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.tell(address, &error);
                return Ok(Err(error));
            }
        };
        self.servers.succeeded();
        self.session.set_obstacle(None);
        if self.session.on_connected(shaken.response, shaken.asked_at, Instant::now()) {
            return Ok(Ok(connection));
        }
        self.refuse_calls().await;
        Err(Over)
    }

    /// Has callers know why nothing is reached, and the log, once until that changes.
    fn tell(&mut self, address: String, error: &ConnectionError) {
        let obstacle = match error {
            ConnectionError::Tls(why) => Error::Tls { address, why: why.clone() },
            error if error.is_hang_up() => {
                Error::HungUp { address, is_encrypted: self.reach.tls.is_some() }
            }
            _ => return,
        };
        let next = obstacle.advice().unwrap_or_default();
        if self.session.set_obstacle(Some(obstacle.clone())) {
            tracing::warn!(%obstacle, next, "a coordinator cannot be spoken to");
        }
    }

    /// The session has expired: whoever still asks is told so.
    async fn refuse_calls(&mut self) {
        while let Some(Command::Call(call)) = self.commands.recv().await {
            call.fail(Error::SessionExpired);
        }
    }

    /// Waits for `future` while calls come in and grow old.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Result<F::Output, Over> {
        tokio::pin!(future);
        loop {
            let tick = self.session.next_tick().unwrap_or_else(|| Instant::now() + IDLE);
            tokio::select! {
                // Kept outside of the loop, so that nothing of it is lost.
                output = &mut future => return Ok(output),
                // Receiving is cancel-safe.
                command = self.commands.recv(), if self.session.has_room() => match command {
                    Some(Command::Call(call)) => self.session.on_call(call, Instant::now()),
                    Some(Command::Close) | None => return Err(Over),
                },
                // Made anew in each round.
                () = sleep_until(tick) => {
                    if let Err(broken) = self.session.on_tick(Instant::now()) {
                        tracing::debug!(%broken, "no server has the session");
                    }
                }
            }
        }
    }

    /// Serves a connection until it breaks, and gives it back.
    async fn serve(&mut self, mut connection: Connection) -> Result<Connection, Over> {
        loop {
            if self.is_closed() {
                return Err(Over);
            }
            if let Err(lost) = self.step(&mut connection).await {
                let closing = self.closing.is_some();
                tracing::debug!(%lost, closing, "connection to the coordinator lost");
                self.session.on_lost(Instant::now());
                return if closing { Err(Over) } else { Ok(connection) };
            }
        }
    }

    async fn step(&mut self, connection: &mut Connection) -> Result<(), Lost> {
        let tick = self.session.next_tick().unwrap_or_else(|| Instant::now() + IDLE);
        let takes_commands = self.closing.is_none() && self.session.has_room();
        let has_output = !self.session.out().is_empty();
        tokio::select! {
            // Reading is cancel-safe: bytes stay in the reader's buffer.
            frame = connection.reader.next() => self.session.on_frame(frame?, Instant::now())?,
            // Writing takes from the buffer exactly what the socket took.
            written = connection.writer.write_buf(self.session.out()), if has_output => {
                written.map_err(Lost::Write)?;
            }
            // Receiving is cancel-safe.
            command = self.commands.recv(), if takes_commands => self.on_command(command),
            // Made anew in each round.
            () = sleep_until(tick) => self.session.on_tick(Instant::now())?,
        }
        Ok(())
    }

    fn on_command(&mut self, command: Option<Command>) {
        let now = Instant::now();
        match command {
            Some(Command::Call(call)) => self.session.on_call(call, now),
            Some(Command::Close) | None => {
                let (answer, closing) = oneshot::channel();
                let (request, hook) = (Request::CloseSession, Hook::None);
                self.session
                    .on_call(Call { request, hook, answer: Some(answer), made_at: now }, now);
                self.closing = Some(closing);
            }
        }
    }

    /// Whether the ensemble has answered that the session is closed.
    fn is_closed(&mut self) -> bool {
        let Some(closing) = &mut self.closing else { return false };
        !matches!(closing.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

/// Jitter needs no generator of its own: each hasher starts with other keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
