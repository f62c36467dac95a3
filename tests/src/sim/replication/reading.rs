//! What a process answers to consumers and followers, now or when there is news.
//!
//! Called by: `process`, `storage`. Calls: the hosted partitions and the log. Invariant: a fetch that waits is noted on each of its
//! partitions, and on none when it is answered; what it may read is looked at again then, without counting it as a new one.

use broker_core::ids::{BrokerId, LeaderEpoch, Millis, Offset, TopicPartition};
use broker_core::partition::{ConsumerFetch, FetchAnswer, FetchRefused, FollowerFetch, Readable};
use broker_core::purgatory::{FetchTerms, FetchWait, Found, Look};
use bytes::Bytes;
use client_protocol::ErrorCode;
use client_protocol::messages::fetch::FetchPartitionResponse;

use super::inquiry::Told;
use super::message::{Address, ConsumeAnswer, ConsumeRequest, FetchRequest, Message, Outbox};
use super::process::Process;
use crate::sim::ensemble::schedule::{MS, Time};

const FETCH_WAIT_MS: u64 = 500;

/// A fetch on its way.
pub struct Reading {
    to: Address,
    number: u64,
    /// Of all partitions together, where the asker limits that.
    bytes_max: usize,
    terms: FetchTerms,
    parts: Vec<Part>,
}

/// One partition of it.
struct Part {
    key: TopicPartition,
    fetch_offset: Offset,
    /// The epoch that a follower asked under.
    asked: LeaderEpoch,
    bytes_max: u32,
    state: Result<(Readable, LeaderEpoch), FetchRefused>,
}

fn refused(error: ErrorCode) -> FetchRefused {
    FetchRefused { error, log_start: Offset::ZERO }
}

impl Process {
    pub(super) fn consume(
        &mut self,
        request: &ConsumeRequest,
        to: Address,
        now: Time,
        out: &mut Outbox,
    ) {
        let number = request.number;
        let parts = vec![self.consumer_part(request, now, out)];
        let deadline = Millis::new(now / MS).plus(FETCH_WAIT_MS);
        let terms = FetchTerms { replica: None, bytes_min: 1, deadline };
        let bytes_max = usize::MAX;
        self.look(Reading { to, number, bytes_max, terms, parts }, Look::First, now, out);
    }

    /// The native client's consumer fetches, several partitions perhaps.
    pub(super) fn reader_fetches(
        &mut self,
        (number, body): (u64, &client_protocol::messages::FetchRequest),
        now: Time,
        out: &mut Outbox,
    ) {
        let mut parts = Vec::new();
        for topic in &body.topics {
            for asked in &topic.partitions {
                let request = ConsumeRequest {
                    number,
                    topic: topic.topic.clone(),
                    partition: asked.partition,
                    offset: asked.fetch_offset,
                    leader_epoch: asked.current_leader_epoch,
                    bytes_max: asked.partition_max_bytes.unsigned_abs(),
                };
                parts.push(self.consumer_part(&request, now, out));
            }
        }
        let bytes_min = body.min_bytes.unsigned_abs().into();
        let terms =
            FetchTerms { replica: None, bytes_min, deadline: Self::fetch_deadline(body, now) };
        let bytes_max = usize::try_from(body.max_bytes).unwrap_or_default();
        let reading = Reading { to: Address::Reader, number, bytes_max, terms, parts };
        self.look(reading, Look::First, now, out);
    }

    fn consumer_part(&self, request: &ConsumeRequest, now: Time, out: &mut Outbox) -> Part {
        let ConsumeRequest { offset, leader_epoch, bytes_max, .. } = *request;
        let key = self.key_of(&request.topic, request.partition);
        let fetch = ConsumerFetch { fetch_offset: offset, leader_epoch, last_fetched_epoch: None };
        let state = match key.and_then(|key| self.replicas.get(&key)) {
            _ if key.is_none() => Err(refused(ErrorCode::UnknownTopicOrPartition)),
            Some(core) if self.may_serve(now) => core.consumer_fetch(&fetch).and_then(|readable| {
                let epoch = core.leading().ok_or(refused(ErrorCode::NotLeaderOrFollower))?;
                Ok((readable, epoch))
            }),
            _ => Err(refused(ErrorCode::NotLeaderOrFollower)),
        };
        out.serves |= state.is_ok();
        let nowhere = TopicPartition { partition: request.partition, ..Default::default() };
        let asked = LeaderEpoch::default();
        Part { key: key.unwrap_or(nowhere), fetch_offset: offset, asked, bytes_max, state }
    }

    /// A follower fetches, or only tells how far it is.
    pub(super) fn follower_fetches(
        &mut self,
        from: BrokerId,
        request: FetchRequest,
        now: Time,
        out: &mut Outbox,
    ) {
        let FetchRequest { number, items, bytes_max } = request;
        let may_wait = bytes_max > 0;
        let mut parts = Vec::new();
        for (key, fetch) in items {
            let state = self.follower_fetch(key, &fetch, bytes_max, (now, &mut *out));
            let (fetch_offset, asked) = (fetch.fetch_offset, fetch.leader_epoch);
            parts.push(Part { key, fetch_offset, asked, bytes_max, state });
        }
        let wait_ms = if may_wait { FETCH_WAIT_MS } else { 0 };
        let deadline = Millis::new(now / MS).plus(wait_ms);
        let terms = FetchTerms { replica: Some(from), bytes_min: 1, deadline };
        let (to, bytes_max) = (Address::Broker(from), usize::MAX);
        let reading = Reading { to, number, bytes_max, terms, parts };
        self.look(reading, Look::First, now, out);
    }

    fn follower_fetch(
        &mut self,
        key: TopicPartition,
        fetch: &FollowerFetch,
        bytes_max: u32,
        (now, out): (Time, &mut Outbox),
    ) -> Result<(Readable, LeaderEpoch), FetchRefused> {
        if !self.may_serve(now) {
            return Err(refused(ErrorCode::NotLeaderOrFollower));
        }
        let mut result = Err(refused(ErrorCode::NotLeaderOrFollower));
        self.step_partition(key, now, out, |hosted, outcome| {
            hosted.follower_came(fetch.replica, bytes_max, outcome);
            let decided = hosted.step(outcome, |core, effects| {
                let readable = core.follower_fetch(fetch, Millis::new(now / MS), effects)?;
                let epoch = core.leading().ok_or(refused(ErrorCode::NotLeaderOrFollower))?;
                Ok((readable, epoch))
            });
            result = decided.unwrap_or(result);
        });
        result
    }

    /// Reads what is there, and answers with it or parks the fetch.
    fn look(&mut self, mut reading: Reading, mut look: Look, now: Time, out: &mut Outbox) {
        loop {
            let (found, records) = self.read_parts(&mut reading.parts);
            if reading.terms.is_answered(look, found, Millis::new(now / MS)) {
                return self.answer_reading(&reading, records, out);
            }
            let fetch = self.next_number();
            let replica = reading.terms.replica;
            let mut noted = true;
            for part in &reading.parts {
                let Ok((readable, epoch)) = part.state else { unreachable!("errors are urgent") };
                let wait = FetchWait { fetch, replica, above: readable.up_to };
                let hosted = self.hosted_mut(part.key).expect("it was readable");
                noted = noted && hosted.park_fetch(wait, epoch);
            }
            if noted {
                self.readings.insert(fetch, reading);
                return;
            }
            self.forget(fetch, &reading);
            self.refresh(&mut reading);
            look = Look::NotParked;
        }
    }

    fn forget(&mut self, fetch: u64, reading: &Reading) {
        for part in &reading.parts {
            if let Some(hosted) = self.hosted_mut(part.key) {
                hosted.forget_fetch(|&other| other == fetch);
            }
        }
    }

    fn refresh(&self, reading: &mut Reading) {
        for part in &mut reading.parts {
            let Ok((readable, epoch)) = part.state else { continue };
            let core = self.replicas.get(&part.key);
            let again = core.and_then(|c| c.read_again(readable, epoch, reading.terms.replica));
            part.state = again
                .map(|readable| (readable, epoch))
                .ok_or(refused(ErrorCode::NotLeaderOrFollower));
        }
    }

    /// A partition that a fetch waits on has news.
    pub(super) fn woken(&mut self, fetch: u64, now: Time, out: &mut Outbox) {
        // Another partition woke it in the same step.
        let Some(mut reading) = self.readings.remove(&fetch) else { return };
        self.forget(fetch, &reading);
        self.refresh(&mut reading);
        self.look(reading, Look::Woken, now, out);
    }

    pub(super) fn expire_readings(&mut self, now: Time, out: &mut Outbox) {
        let over = |reading: &Reading| reading.terms.deadline <= Millis::new(now / MS);
        let due: Vec<_> =
            self.readings.iter().filter(|(_, r)| over(r)).map(|(&fetch, _)| fetch).collect();
        for fetch in due {
            self.woken(fetch, now, out);
        }
    }

    fn read_parts(&self, parts: &mut [Part]) -> (Found, Vec<Bytes>) {
        let mut found = Found::default();
        let mut all = Vec::new();
        for part in parts {
            let mut records = Bytes::new();
            match &part.state {
                Ok((readable, _)) => {
                    let limit = readable.up_to;
                    found.urgent |= readable.diverging.is_some();
                    if limit > readable.from && part.bytes_max > 0 && readable.diverging.is_none() {
                        let (key, from) = (part.key, readable.from);
                        match self.directory.read(key, from, limit, part.bytes_max) {
                            Ok(bytes) => records = bytes,
                            Err(error) => {
                                part.state = Err(refused(error));
                                found.urgent = true;
                            }
                        }
                    }
                }
                Err(_) => found.urgent = true,
            }
            found.bytes += records.len() as u64;
            all.push(records);
        }
        (found, all)
    }

    fn answer_reading(&self, reading: &Reading, records: Vec<Bytes>, out: &mut Outbox) {
        let (to, number) = (reading.to, reading.number);
        if reading.terms.replica.is_some() {
            let parts = reading.parts.iter().zip(records);
            let answers = parts.map(|(part, records)| (part.key, part.answer(&records), records));
            out.messages.push((to, Message::Fetched { number, answers: answers.collect() }));
            return;
        }
        if to == Address::Reader {
            let parts = reading.parts.iter().zip(records);
            let parts = parts.map(|(part, records)| (self.told(part), records));
            let told = Told::fetched(parts, reading.bytes_max);
            return out.messages.push((to, Message::Told { number, told }));
        }
        for (part, records) in reading.parts.iter().zip(records) {
            let (error, log_start, high_watermark) = match &part.state {
                Ok((readable, _)) => {
                    (ErrorCode::None, readable.log_start, Some(readable.high_watermark))
                }
                Err(refused) => (refused.error, refused.log_start, None),
            };
            let answer = ConsumeAnswer { number, error, log_start, high_watermark, records };
            out.messages.push((to, Message::Consumed(answer)));
        }
    }
}

impl Process {
    /// A part of an answer, but for its records; who does not lead says who does.
    fn told(&self, part: &Part) -> FetchPartitionResponse {
        let mut told =
            FetchPartitionResponse { partition_index: part.key.partition, ..Default::default() };
        match &part.state {
            Ok((readable, _)) => {
                told.high_watermark = Some(readable.high_watermark);
                told.log_start_offset = Some(readable.log_start);
            }
            Err(refused) => {
                told.error_code = refused.error;
                told.log_start_offset = Some(refused.log_start);
                if let Some((_, stored)) = self.image.partition(part.key) {
                    told.current_leader.leader_id = stored.state.leader;
                    told.current_leader.leader_epoch = Some(stored.state.leader_epoch);
                }
            }
        }
        told
    }
}

impl Part {
    fn answer(&self, records: &Bytes) -> FetchAnswer {
        let mut answer = FetchAnswer {
            leader_epoch: self.asked,
            fetch_offset: self.fetch_offset,
            error: ErrorCode::None,
            diverging: None,
            high_watermark: None,
            log_start: None,
            has_records: !records.is_empty(),
        };
        match &self.state {
            Ok((readable, epoch)) => {
                let (asked, key) = (self.asked, self.key);
                assert_eq!(asked, *epoch, "{key:?}: a fetch under another epoch is answered");
                answer.diverging = readable.diverging;
                answer.high_watermark = Some(readable.high_watermark);
                answer.log_start = Some(readable.log_start);
            }
            Err(refused) => {
                answer.error = refused.error;
                answer.log_start = Some(refused.log_start);
            }
        }
        answer
    }
}
