//! One task that fetches from one leader broker.
//!
//! Called by: `fetchers`. Calls: the leader, over its brokers' listener; the partitions, with what
//! came. Invariant: one fetch for records waits at the leader at a time; when a partition can fetch
//! again before it is answered, a newer one takes its place (the leader answers the older at once).
//! What only got durable is told beside it, in a request that is answered at once and asks for no
//! records. Does not decide what an answer means.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker_core::ids::TopicPartition;
use broker_core::image::Image;
use broker_core::partition::FetchPosition;
use client_protocol::messages::FetchResponse;
use client_protocol::{BrokerId, ErrorCode, LeaderEpoch, Offset};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info};

use super::contacts::Contacts;
use super::exchange::{self, Asked, FETCH_VERSION, Fetcher, Purpose};
use super::fetchers::Followed;
use crate::config::{Endpoint, INTERNAL_LISTENER, ReplicaConfig};
use crate::net::peer::{PEER_REQUESTS_IN_FLIGHT_MAX, PeerConnection, PeerError, PeerResponse};
use crate::partitions::Partitions;

/// What every fetcher needs.
pub(super) struct Context {
    pub(super) broker: BrokerId,
    pub(super) partitions: Arc<Partitions>,
    pub(super) image: watch::Receiver<Arc<Image>>,
    pub(super) contacts: Arc<Contacts>,
    pub(super) config: ReplicaConfig,
}

/// Longest wait for the partitions of an answer to take in their records before the next fetch
/// goes out without them.
const APPEND_WAIT_MAX: Duration = Duration::from_millis(100);

/// Room in an answer for what is not records.
const ANSWER_OVERHEAD_BYTES: usize = 4 << 20;

/// A partition whose last answer was an error; left alone for a while, unless its leader changes.
#[derive(Clone, Copy)]
struct Resting {
    until: Instant,
    leader_epoch: LeaderEpoch,
    /// Only while it would be asked for this offset again; none: for any.
    fetch_offset: Option<Offset>,
}

impl Resting {
    fn holds(&self, position: &FetchPosition) -> bool {
        self.leader_epoch == position.leader_epoch
            && self.fetch_offset.is_none_or(|rested| rested == position.fetch_offset)
    }
}

struct Sent {
    asked: Asked,
    purpose: Purpose,
    at: Instant,
}

/// One connection's worth of fetching.
struct Session<'a> {
    leader: BrokerId,
    followed: &'a Followed,
    context: &'a Context,
    fetcher: Fetcher,
    connection: PeerConnection,
    sent: VecDeque<Sent>,
    resting: BTreeMap<TopicPartition, Resting>,
    /// What the leader was told last.
    told: Asked,
    /// Partitions that are taking in the records of the last answer, and until when to wait.
    appending: Option<(Vec<TopicPartition>, Instant)>,
}

/// Fetches until it is aborted.
pub(super) async fn run(leader: BrokerId, followed: Arc<Followed>, context: Arc<Context>) {
    loop {
        let Some((endpoint, fetcher)) = addresses(leader, &context).await else { return };
        match session(leader, &followed, &context, &endpoint, fetcher).await {
            Ok(never) => match never {},
            Err(error) if is_absent(leader, &context) => {
                debug!(%leader, "fetching stopped: {error}");
            }
            Err(error) => info!(%leader, "fetching interrupted: {error}"),
        }
        tokio::time::sleep(context.config.backoff).await;
    }
}

fn is_absent(leader: BrokerId, context: &Context) -> bool {
    context.image.borrow().broker(leader).is_none()
}

/// Waits until both this broker and the leader are registered; `None` when the broker stops.
async fn addresses(leader: BrokerId, context: &Context) -> Option<(Endpoint, Fetcher)> {
    let mut images = context.image.clone();
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let own = image.broker(context.broker).map(|broker| broker.epoch);
        let theirs = image.broker(leader).and_then(|b| b.registration.endpoint(INTERNAL_LISTENER));
        if let (Some(epoch), Some(endpoint)) = (own, theirs) {
            let endpoint = Endpoint { host: endpoint.host.clone(), port: endpoint.port };
            return Some((endpoint, Fetcher { id: context.broker, epoch }));
        }
        images.changed().await.ok()?;
    }
}

async fn session(
    leader: BrokerId,
    followed: &Followed,
    context: &Context,
    endpoint: &Endpoint,
    fetcher: Fetcher,
) -> Result<std::convert::Infallible, PeerError> {
    let response_bytes = usize::try_from(context.config.response_bytes_max).unwrap_or(0);
    let connection = PeerConnection::connect(
        (&endpoint.host, endpoint.port),
        format!("broker-{}-fetcher", context.broker),
        response_bytes + ANSWER_OVERHEAD_BYTES,
        context.config.socket_timeout,
    )
    .await?;
    debug!(%leader, "fetching");
    context.contacts.found(leader);
    let mut session = Session {
        leader,
        followed,
        context,
        fetcher,
        connection,
        sent: VecDeque::new(),
        resting: BTreeMap::new(),
        told: Asked::new(),
        appending: None,
    };
    let mut images = context.image.clone();
    loop {
        session.send_due().await?;
        let wake_at = session.wake_at();
        tokio::select! {
            // Cancel-safe: what has arrived of an answer is kept.
            answer = session.connection.receive::<FetchResponse>(), if !session.sent.is_empty() => {
                let answer = answer.inspect_err(|error| {
                    if error.is_hang_up() {
                        context.contacts.lost(leader);
                    }
                });
                session.take_answer(answer?);
            }
            // Cancel-safe: a notification that is not taken stays.
            () = followed.changed.notified() => {}
            // Cancel-safe: nothing is consumed.
            changed = images.changed() => {
                if changed.is_err() || images.borrow_and_update().broker(context.broker).map(|b| b.epoch) != Some(fetcher.epoch) {
                    return Err(std::io::Error::other("this broker is registered anew").into());
                }
            }
            () = tokio::time::sleep_until(wake_at) => session.check_overdue()?,
        }
    }
}

impl Session<'_> {
    /// Sends what is due now: a fetch for records if none waits or a partition is not covered,
    /// else news of what got durable.
    async fn send_due(&mut self) -> Result<(), PeerError> {
        let now = Instant::now();
        if self.connection.in_flight() >= PEER_REQUESTS_IN_FLIGHT_MAX - 1 || self.is_appending(now)
        {
            return Ok(());
        }
        let progressed = self.followed.take_progressed();
        let positions = self.positions(now);
        let waiting = self.sent.iter().rev().find(|sent| sent.purpose == Purpose::Records);
        let covers = |key: &TopicPartition, position: &FetchPosition| {
            waiting.and_then(|waiting| waiting.asked.get(key)).is_some_and(|asked| {
                asked.fetch_offset == position.fetch_offset
                    && asked.leader_epoch == position.leader_epoch
            })
        };
        if positions.iter().any(|(key, position)| !covers(key, position)) {
            self.told.clone_from(&positions);
            return self.send(positions, Purpose::Records).await;
        }
        let mut news = Asked::new();
        for key in progressed {
            let Some(position) = positions.get(&key) else { continue };
            if self.told.get(&key) != Some(position) {
                news.insert(key, *position);
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        self.told.extend(news.iter().map(|(key, position)| (*key, *position)));
        self.send(news, Purpose::Progress).await
    }

    async fn send(&mut self, asked: Asked, purpose: Purpose) -> Result<(), PeerError> {
        let request = exchange::request(self.fetcher, &asked, purpose, &self.context.config);
        self.connection.send(&request, FETCH_VERSION).await?;
        self.sent.push_back(Sent { asked, purpose, at: Instant::now() });
        Ok(())
    }

    /// Where the partitions are that may fetch.
    fn positions(&mut self, now: Instant) -> Asked {
        self.resting.retain(|_, resting| resting.until > now);
        let mut positions = Asked::new();
        for key in self.followed.partitions() {
            let Some(position) = self.context.partitions.fetch_position(key) else { continue };
            if position.leader != self.leader {
                continue;
            }
            if self.resting.get(&key).is_none_or(|resting| !resting.holds(&position)) {
                positions.insert(key, position);
            }
        }
        positions
    }

    fn take_answer(&mut self, response: PeerResponse<FetchResponse>) {
        let Some(Sent { asked, .. }) = self.sent.pop_front() else { return };
        let until = Instant::now() + self.context.config.backoff;
        if !response.body.error_code.is_none() {
            debug!(leader = %self.leader, "fetch refused: {}", response.body.error_code);
            for (key, position) in asked {
                let leader_epoch = position.leader_epoch;
                self.resting.insert(key, Resting { until, leader_epoch, fetch_offset: None });
            }
            return;
        }
        let mut appending = Vec::new();
        for answered in exchange::answers(response, &asked) {
            let (key, answer) = (answered.partition, answered.answer);
            let leader_epoch = answer.leader_epoch;
            if answer.has_records {
                appending.push(key);
            }
            let rests = Resting { until, leader_epoch, fetch_offset: None };
            match answer.error {
                ErrorCode::None => {}
                // The log begins anew elsewhere as a rule, and is fetched from there at once; where it does
                // not, the leader would say the same again.
                ErrorCode::OffsetOutOfRange => {
                    let fetch_offset = Some(answer.fetch_offset);
                    self.resting.insert(key, Resting { fetch_offset, ..rests });
                }
                _ => {
                    debug!(leader = %self.leader, ?key, "fetch refused: {}", answer.error);
                    self.resting.insert(key, rests);
                }
            }
            let records = answered.records.freeze();
            if self.context.partitions.fetch_answered(key, &answer, &records).is_err() {
                self.resting.insert(key, rests);
            }
        }
        if !appending.is_empty() {
            self.appending = Some((appending, Instant::now() + APPEND_WAIT_MAX));
        }
    }

    /// Whether partitions are still taking in records: their next fetch should go out together.
    fn is_appending(&mut self, now: Instant) -> bool {
        let Some((appending, until)) = &mut self.appending else { return false };
        appending.retain(|key| {
            self.followed.contains(*key) && self.context.partitions.fetch_position(*key).is_none()
        });
        if appending.is_empty() || now >= *until {
            self.appending = None;
            return false;
        }
        true
    }

    /// When to look again, whatever happens: a partition has rested, or an answer is overdue.
    fn wake_at(&self) -> Instant {
        let rested = self.resting.values().map(|resting| resting.until).min();
        let appended = self.appending.as_ref().map(|(_, until)| *until);
        let overdue = self.sent.front().map(|sent| sent.at + self.answer_time_max());
        let never = Instant::now() + self.answer_time_max();
        [rested, appended, overdue].into_iter().flatten().fold(never, Instant::min)
    }

    fn check_overdue(&self) -> Result<(), PeerError> {
        let limit = self.answer_time_max();
        match self.sent.front() {
            Some(oldest) if oldest.at.elapsed() >= limit => Err(PeerError::TimedOut(limit)),
            Some(_) | None => Ok(()),
        }
    }

    fn answer_time_max(&self) -> Duration {
        self.context.config.fetch_wait_max + self.context.config.socket_timeout
    }
}
