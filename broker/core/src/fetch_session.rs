//! Fetch sessions (KIP-227): what a consumer wants is remembered, and only what changed is said again.
//!
//! *Called by* the Fetch handler: [`Sessions::begin`] before it reads, [`Sessions::finish`] before it answers. *Calls* nothing. Invariants: an
//! incremental fetch stands for the full one that its session adds up to; what is left out of its answer is what the answer before
//! said; a request out of turn changes nothing. Sessions and the partitions in them are bounded by [`Limits`]: who finds no
//! room fetches without a session. Does not know topics, logs or sockets.
//!
//! ```text
//! id 0, epoch -1    no session             id n, epoch -1    end n, no session
//! id 0, epoch  0    full, make one         id n, epoch  0    full, end n, make one
//!                                          id n, epoch e>0   what changed, if e is the epoch that is due
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use client_protocol::messages::fetch::{
    FetchPartition, FetchPartitionResponse, FetchTopic, FetchTopicResponse, ForgottenTopic,
};
use client_protocol::{ErrorCode, Offset, PartitionId, Records};

use crate::ids::Millis;

/// A session that was not used for so long gives way to a new one, milliseconds.
pub const IDLE_MS: u64 = 120_000;
/// Length of a topic's name, bytes; no topic has a longer one, and none is remembered.
pub const NAME_BYTES_MAX: usize = 249;

/// How much is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `max.incremental.fetch.session.cache.slots`
    pub sessions_max: usize,
    /// Partitions in all of them.
    pub partitions_max: usize,
}

/// What a request says of its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// 0: none.
    pub id: i32,
    /// -1: none wanted from here on; 0: a new one.
    pub epoch: i32,
}

/// How a fetch is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// All of it, and no session.
    Sessionless,
    /// All of it, and a new session if there is room.
    Create,
    /// What changed in this session, whose turn this is.
    Go {
        /// The session.
        id: i32,
        /// The epoch that the next request has to name: nobody else may have taken a turn until the answer.
        due: i32,
    },
}

/// What was last said of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Told {
    high_watermark: Option<Offset>,
    last_stable_offset: Option<Offset>,
    log_start_offset: Option<Offset>,
}

#[derive(Clone, Debug)]
struct Wanted {
    topic: Arc<str>,
    wish: FetchPartition,
    /// None: nothing yet, or an error: the next answer says all.
    told: Option<Told>,
}

#[derive(Clone, Debug)]
struct Session {
    /// The epoch that the next request has to name.
    due: i32,
    /// In the order in which they are read.
    wanted: BTreeMap<u64, Wanted>,
    places: BTreeMap<Arc<str>, BTreeMap<PartitionId, u64>>,
    next_place: u64,
    made: Millis,
    used: Millis,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: Limits,
    sessions: BTreeMap<i32, Session>,
    /// In all sessions.
    partitions: usize,
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, sessions: BTreeMap::new(), partitions: 0 }
    }

    /// How many sessions there are, and partitions in them.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.sessions.len(), self.partitions)
    }

    /// Takes a request in. With it comes all that is to be read, in order: `topics` itself, or what the session adds up to with it.
    ///
    /// # Errors
    /// FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH: the client begins anew.
    pub fn begin(
        &mut self,
        claim: Claim,
        topics: Vec<FetchTopic>,
        forgotten: &[ForgottenTopic],
        now: Millis,
    ) -> Result<(Turn, Vec<FetchTopic>), ErrorCode> {
        let Claim { id, epoch } = claim;
        if epoch <= 0 {
            self.end(id);
            let turn = if epoch == 0 { Turn::Create } else { Turn::Sessionless };
            return Ok((turn, topics));
        }
        let room = self.limits.partitions_max.saturating_sub(self.partitions);
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.due != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        session.due = epoch.checked_add(1).unwrap_or(1);
        session.used = now;
        let before = session.wanted.len();
        for topic in forgotten {
            topic.partitions.iter().for_each(|number| session.forget(&topic.topic, *number));
        }
        let added: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
        let room = room.saturating_add(before.saturating_sub(session.wanted.len()));
        if added > room || has_endless_name(&topics) {
            // It has to go, and the client, which begins anew, will have none.
            self.partitions = self.partitions.saturating_sub(before);
            self.sessions.remove(&id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        for topic in topics {
            session.want(topic);
        }
        let (due, all, after) = (session.due, session.all(), session.wanted.len());
        self.partitions = self.partitions.saturating_sub(before).saturating_add(after);
        Ok((Turn::Go { id, due }, all))
    }

    /// Remembers what is answered, and leaves out what the client knows. `wished` is what a new session begins with, and `fresh_id` its
    /// number unless it is taken: random, for who knows it can spoil it. Returns the session's number, 0 without one.
    pub fn finish(
        &mut self,
        turn: Turn,
        responses: &mut Vec<FetchTopicResponse>,
        (wished, fresh_id): (Vec<FetchTopic>, i32),
        now: Millis,
    ) -> i32 {
        match turn {
            Turn::Sessionless => 0,
            Turn::Create => self.create(responses, wished, fresh_id, now),
            Turn::Go { id, due } => {
                // When it ended, or another request took a turn meanwhile, all is said and nothing remembered.
                if let Some(session) = self.sessions.get_mut(&id).filter(|s| s.due == due) {
                    session.leave_out_known(responses);
                }
                id
            }
        }
    }

    fn create(
        &mut self,
        responses: &[FetchTopicResponse],
        wished: Vec<FetchTopic>,
        fresh_id: i32,
        now: Millis,
    ) -> i32 {
        let wanted = wished.iter().map(|topic| topic.partitions.len()).sum();
        if fresh_id <= 0
            || self.sessions.contains_key(&fresh_id)
            || has_endless_name(&wished)
            || !self.make_room(wanted, now)
        {
            return 0;
        }
        let mut session = Session {
            due: 1,
            wanted: BTreeMap::new(),
            places: BTreeMap::new(),
            next_place: 0,
            made: now,
            used: now,
        };
        for topic in wished {
            session.want(topic);
        }
        for topic in responses {
            for partition in &topic.partitions {
                session.note(&topic.topic, partition);
            }
        }
        self.partitions = self.partitions.saturating_add(session.wanted.len());
        self.sessions.insert(fresh_id, session);
        fresh_id
    }

    /// Room for a session of so many partitions: those that are idle give way, and when all are busy smaller ones that had their time.
    fn make_room(&mut self, wanted: usize, now: Millis) -> bool {
        if wanted > self.limits.partitions_max || self.limits.sessions_max == 0 {
            return false;
        }
        while self.sessions.len() >= self.limits.sessions_max
            || self.partitions.saturating_add(wanted) > self.limits.partitions_max
        {
            let idlest = self.sessions.iter().min_by_key(|(id, session)| (session.used, **id));
            let idle = idlest.filter(|(_, session)| now.since(session.used) > IDLE_MS);
            let old = self.sessions.iter().filter(|(_, session)| now.since(session.made) > IDLE_MS);
            let smallest = old.min_by_key(|(id, session)| (session.wanted.len(), **id));
            let small = smallest.filter(|(_, session)| session.wanted.len() < wanted);
            let Some(id) = idle.or(small).map(|(id, _)| *id) else { return false };
            self.end(id);
        }
        true
    }

    fn end(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions = self.partitions.saturating_sub(session.wanted.len());
        }
    }

    /// Panics when an invariant is broken.
    pub fn check(&self) {
        let counted: usize = self.sessions.values().map(|session| session.wanted.len()).sum();
        assert_eq!(counted, self.partitions, "partitions are counted wrong");
        assert!(self.sessions.len() <= self.limits.sessions_max, "too many sessions");
        assert!(self.partitions <= self.limits.partitions_max, "too many partitions");
        for session in self.sessions.values() {
            let places: usize = session.places.values().map(BTreeMap::len).sum();
            assert_eq!(places, session.wanted.len(), "places and partitions differ");
        }
    }
}

/// Whether a name would be remembered that no topic can have.
fn has_endless_name(topics: &[FetchTopic]) -> bool {
    topics.iter().any(|topic| topic.topic.len() > NAME_BYTES_MAX)
}

impl Session {
    /// Adds what is new, and puts the new wish in place of an old one.
    fn want(&mut self, topic: FetchTopic) {
        let known =
            self.places.get_key_value(topic.topic.as_str()).map(|(name, _)| Arc::clone(name));
        let name: Arc<str> = known.unwrap_or_else(|| topic.topic.into());
        for wish in topic.partitions {
            let places = self.places.entry(Arc::clone(&name)).or_default();
            let place = *places.entry(wish.partition).or_insert(self.next_place);
            if place == self.next_place {
                self.next_place = self.next_place.saturating_add(1);
                let topic = Arc::clone(&name);
                self.wanted.insert(place, Wanted { topic, wish, told: None });
            } else if let Some(wanted) = self.wanted.get_mut(&place) {
                wanted.wish = wish;
            }
        }
    }

    fn forget(&mut self, topic: &str, number: PartitionId) {
        let Some(places) = self.places.get_mut(topic) else { return };
        if let Some(place) = places.remove(&number) {
            self.wanted.remove(&place);
        }
        if places.is_empty() {
            self.places.remove(topic);
        }
    }

    /// All that is wanted, in order.
    fn all(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for wanted in self.wanted.values() {
            let wish = wanted.wish.clone();
            match topics.last_mut().filter(|last| *last.topic == *wanted.topic) {
                Some(last) => last.partitions.push(wish),
                None => topics.push(FetchTopic {
                    topic: wanted.topic.to_string(),
                    partitions: vec![wish],
                    ..Default::default()
                }),
            }
        }
        topics
    }

    fn leave_out_known(&mut self, responses: &mut Vec<FetchTopicResponse>) {
        for topic in responses.iter_mut() {
            let name = topic.topic.clone();
            topic.partitions.retain(|partition| self.note(&name, partition));
        }
        responses.retain(|topic| !topic.partitions.is_empty());
    }

    /// Whether this has to be said; from here on it counts as said. Who got records is read last the next time.
    fn note(&mut self, topic: &str, response: &FetchPartitionResponse) -> bool {
        let place = self.places.get(topic).and_then(|of| of.get(&response.partition_index));
        let Some(&place) = place else { return true };
        let Some(mut wanted) = self.wanted.remove(&place) else { return true };
        let told = Told {
            high_watermark: response.high_watermark,
            last_stable_offset: response.last_stable_offset,
            log_start_offset: response.log_start_offset,
        };
        let has_records = match &response.records {
            Some(Records::Spliced(length)) => *length > 0,
            Some(Records::Inline(bytes)) => !bytes.is_empty(),
            Some(Records::InFrame(_)) | None => false,
        };
        let is_sound = response.error_code.is_none()
            && response.diverging_epoch.end_offset.is_none()
            && response.preferred_read_replica.is_none();
        let is_known = is_sound && !has_records && wanted.told == Some(told);
        wanted.told = is_sound.then_some(told);
        let mut at = place;
        if has_records {
            at = self.next_place;
            self.next_place = self.next_place.saturating_add(1);
            if let Some(places) = self.places.get_mut(topic) {
                places.insert(response.partition_index, at);
            }
        }
        self.wanted.insert(at, wanted);
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { sessions_max: 2, partitions_max: 10 };

    fn wish(number: i32, offset: i64) -> FetchPartition {
        FetchPartition {
            partition: PartitionId::new(number),
            fetch_offset: Offset::new(offset),
            ..Default::default()
        }
    }

    fn topic(name: &str, wishes: &[(i32, i64)]) -> FetchTopic {
        let partitions = wishes.iter().map(|&(number, offset)| wish(number, offset)).collect();
        FetchTopic { topic: name.to_owned(), partitions, ..Default::default() }
    }

    /// Number, high watermark, bytes of records; a negative high watermark is an error.
    fn answer(name: &str, partitions: &[(i32, i64, usize)]) -> FetchTopicResponse {
        let partition = |&(number, high_watermark, length): &(i32, i64, usize)| {
            let error = high_watermark < 0;
            FetchPartitionResponse {
                partition_index: PartitionId::new(number),
                error_code: if error { ErrorCode::NotLeaderOrFollower } else { ErrorCode::None },
                high_watermark: (!error).then_some(Offset::new(high_watermark)),
                records: Some(Records::Spliced(length)),
                ..Default::default()
            }
        };
        let partitions = partitions.iter().map(partition).collect();
        FetchTopicResponse { topic: name.to_owned(), partitions, ..Default::default() }
    }

    fn numbers(responses: &[FetchTopicResponse]) -> Vec<i32> {
        let partitions = responses.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.partition_index.get()).collect()
    }

    fn order(topics: &[FetchTopic]) -> Vec<(i32, i64)> {
        let wishes = topics.iter().flat_map(|topic| &topic.partitions);
        wishes.map(|wish| (wish.partition.get(), wish.fetch_offset.get())).collect()
    }

    /// A session of these partitions of topic t, all told that the high watermark is 5.
    fn made(sessions: &mut Sessions, id: i32, wishes: &[(i32, i64)], now: u64) -> i32 {
        let wanted = vec![topic("t", wishes)];
        let (id_0, epoch) = (0, 0);
        let claim = Claim { id: id_0, epoch };
        let (turn, all) = sessions.begin(claim, wanted.clone(), &[], Millis::new(now)).unwrap();
        assert_eq!((turn, &all), (Turn::Create, &wanted));
        let told: Vec<_> = wishes.iter().map(|&(number, _)| (number, 5, 0)).collect();
        let mut responses = vec![answer("t", &told)];
        let given = sessions.finish(turn, &mut responses, (wanted, id), Millis::new(now));
        assert_eq!(numbers(&responses).len(), wishes.len(), "a full fetch says all");
        sessions.check();
        given
    }

    fn go(
        sessions: &mut Sessions,
        (id, epoch): (i32, i32),
        topics: Vec<FetchTopic>,
    ) -> (Turn, Vec<(i32, i64)>) {
        let begun = sessions.begin(Claim { id, epoch }, topics, &[], Millis::new(1));
        let (turn, all) = begun.unwrap();
        sessions.check();
        (turn, order(&all))
    }

    fn say(sessions: &mut Sessions, turn: Turn, partitions: &[(i32, i64, usize)]) -> Vec<i32> {
        let mut responses = vec![answer("t", partitions)];
        sessions.finish(turn, &mut responses, (Vec::new(), 99), Millis::new(1));
        sessions.check();
        numbers(&responses)
    }

    #[test]
    fn only_what_changed_is_said() {
        let mut sessions = Sessions::new(LIMITS);
        assert_eq!(made(&mut sessions, 7, &[(0, 5), (1, 5), (2, 5)], 0), 7);
        let (turn, all) = go(&mut sessions, (7, 1), vec![]);
        assert_eq!(all, [(0, 5), (1, 5), (2, 5)]);
        assert_eq!(say(&mut sessions, turn, &[(0, 5, 0), (1, 6, 0), (2, 5, 30)]), [1, 2]);
        let (turn, all) = go(&mut sessions, (7, 2), vec![topic("t", &[(2, 8)])]);
        // Partition 2 got records and is read last; what the client wants of it is new.
        assert_eq!(all, [(0, 5), (1, 5), (2, 8)]);
        assert_eq!(say(&mut sessions, turn, &[(0, 5, 0), (1, 6, 0), (2, 5, 0)]), vec![0; 0]);
    }

    #[test]
    fn who_got_records_is_read_last() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5), (1, 5), (2, 5)], 0);
        let (turn, _) = go(&mut sessions, (7, 1), vec![]);
        say(&mut sessions, turn, &[(0, 5, 30), (1, 5, 0), (2, 5, 0)]);
        let (_, all) = go(&mut sessions, (7, 2), vec![]);
        assert_eq!(all, [(1, 5), (2, 5), (0, 5)]);
    }

    #[test]
    fn an_error_is_said_each_time_and_so_is_its_end() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5)], 0);
        for (epoch, high_watermark, said) in [(1, -1, 1), (2, -1, 1), (3, 5, 1), (4, 5, 0)] {
            let (turn, _) = go(&mut sessions, (7, epoch), vec![]);
            assert_eq!(say(&mut sessions, turn, &[(0, high_watermark, 0)]).len(), said, "{epoch}");
        }
    }

    #[test]
    fn partitions_come_and_go() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5), (1, 5)], 0);
        let forgotten = ForgottenTopic {
            topic: "t".to_owned(),
            partitions: vec![PartitionId::new(0), PartitionId::new(9)],
            ..Default::default()
        };
        let more = vec![topic("u", &[(4, 0)])];
        let claim = Claim { id: 7, epoch: 1 };
        let (turn, all) = sessions.begin(claim, more, &[forgotten], Millis::new(1)).unwrap();
        sessions.check();
        assert_eq!(order(&all), [(1, 5), (4, 0)]);
        assert_eq!(all.len(), 2, "of two topics");
        let mut responses = vec![answer("t", &[(1, 5, 0)]), answer("u", &[(4, 5, 0)])];
        sessions.finish(turn, &mut responses, (Vec::new(), 1), Millis::new(1));
        assert_eq!(numbers(&responses), [4], "never told of before");
        assert_eq!(sessions.size(), (1, 2));
    }

    #[test]
    fn names_that_no_topic_has_are_not_remembered() {
        for (length, is_kept) in [(NAME_BYTES_MAX, true), (NAME_BYTES_MAX + 1, false)] {
            let name = "n".repeat(length);
            let mut sessions = Sessions::new(LIMITS);
            let claim = Claim { id: 0, epoch: 0 };
            let wanted = vec![topic(&name, &[(0, 5)])];
            let (turn, _) = sessions.begin(claim, wanted.clone(), &[], Millis::new(0)).unwrap();
            let mut responses = vec![answer(&name, &[(0, 5, 0)])];
            let id = sessions.finish(turn, &mut responses, (wanted, 7), Millis::new(0));
            assert_eq!((id, sessions.size()), if is_kept { (7, (1, 1)) } else { (0, (0, 0)) });
            made(&mut sessions, 8, &[(0, 5)], 0);
            let before = sessions.size();
            let claim = Claim { id: 8, epoch: 1 };
            let more = vec![topic(&name, &[(0, 0)])];
            let outcome = sessions.begin(claim, more, &[], Millis::new(1)).map(|_| ());
            sessions.check();
            if is_kept {
                assert_eq!((outcome, sessions.size()), (Ok(()), (before.0, before.1 + 1)));
            } else {
                assert_eq!(outcome, Err(ErrorCode::FetchSessionIdNotFound));
                assert_eq!(sessions.size(), (before.0 - 1, before.1 - 1));
            }
        }
    }

    #[test]
    fn a_request_out_of_turn_is_refused_and_changes_nothing() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5)], 0);
        let mut refused = |id, epoch| {
            let begun = sessions.begin(
                Claim { id, epoch },
                vec![topic("t", &[(1, 1)])],
                &[],
                Millis::new(1),
            );
            begun.unwrap_err()
        };
        assert_eq!(refused(8, 1), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(refused(7, 2), ErrorCode::InvalidFetchSessionEpoch);
        let (_, all) = go(&mut sessions, (7, 1), vec![]);
        assert_eq!(all, [(0, 5)]);
        let again = sessions.begin(Claim { id: 7, epoch: 1 }, vec![], &[], Millis::new(1));
        assert_eq!(again.unwrap_err(), ErrorCode::InvalidFetchSessionEpoch);
    }

    #[test]
    fn epochs_go_round() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5)], 0);
        sessions.sessions.get_mut(&7).unwrap().due = i32::MAX;
        let (turn, _) = go(&mut sessions, (7, i32::MAX), vec![]);
        assert_eq!(turn, Turn::Go { id: 7, due: 1 });
        go(&mut sessions, (7, 1), vec![]);
    }

    #[test]
    fn a_session_ends_when_it_is_closed_or_made_anew() {
        for epoch in [-1, 0] {
            let mut sessions = Sessions::new(LIMITS);
            made(&mut sessions, 7, &[(0, 5)], 0);
            let claim = Claim { id: 7, epoch };
            let (turn, _) = sessions.begin(claim, vec![], &[], Millis::new(1)).unwrap();
            assert_eq!(turn, if epoch == 0 { Turn::Create } else { Turn::Sessionless });
            assert_eq!(sessions.size(), (0, 0));
        }
    }

    #[test]
    fn an_answer_that_comes_after_another_turn_is_said_whole() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 7, &[(0, 5)], 0);
        let (first, _) = go(&mut sessions, (7, 1), vec![]);
        let (second, _) = go(&mut sessions, (7, 2), vec![]);
        assert_eq!(say(&mut sessions, first, &[(0, 5, 0)]), [0]);
        assert_eq!(say(&mut sessions, second, &[(0, 5, 0)]), vec![0; 0]);
    }

    #[test]
    fn there_are_as_many_sessions_as_there_is_room_for() {
        let mut sessions = Sessions::new(LIMITS);
        assert_eq!(made(&mut sessions, 1, &[(0, 5)], 0), 1);
        assert_eq!(made(&mut sessions, 2, &[(0, 5)], IDLE_MS / 2), 2);
        assert_eq!(made(&mut sessions, 3, &[(0, 5)], IDLE_MS), 0, "all are in use");
        assert_eq!(made(&mut sessions, 4, &[(0, 5)], IDLE_MS + 1), 4, "the first is idle");
        assert_eq!(sessions.sessions.keys().copied().collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn a_larger_session_takes_the_place_of_one_that_had_its_time() {
        let mut sessions = Sessions::new(LIMITS);
        made(&mut sessions, 1, &[(0, 5)], 0);
        made(&mut sessions, 2, &[(0, 5), (1, 5)], 0);
        for id in [1, 2] {
            let claim = Claim { id, epoch: 1 };
            sessions.begin(claim, vec![], &[], Millis::new(IDLE_MS)).unwrap();
        }
        assert_eq!(made(&mut sessions, 3, &[(0, 5), (1, 5)], IDLE_MS + 1), 3);
        assert_eq!(sessions.sessions.keys().copied().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn partitions_are_bounded_too() {
        let mut sessions = Sessions::new(LIMITS);
        let wishes: Vec<(i32, i64)> = (0..11).map(|number| (number, 5)).collect();
        assert_eq!(made(&mut sessions, 1, &wishes, 0), 0);
        assert_eq!(made(&mut sessions, 2, &wishes[..10], 0), 2);
        let claim = Claim { id: 2, epoch: 1 };
        let more = sessions.begin(claim, vec![topic("u", &[(0, 0)])], &[], Millis::new(1));
        assert_eq!(more.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
        assert_eq!(sessions.size(), (0, 0));
        assert_eq!(made(&mut sessions, 0, &[(0, 5)], 0), 0, "0 is no session's number");
    }
}
