//! A consumer that is the native client's own deciding code, and its caller, who is slow, changes its mind and looks at what it is given.
//!
//! Called by: `world`, `wires`, `run`. Calls: client-core, the ledger, the chronicle. Invariant (asserted): what is given out of a partition begins where
//! the caller is, leaves nothing out but what the log does not hold any more, and is committed; the caller is moved only from what was removed or cut. It
//! does not know why answers fail to come.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_core::ids::{BrokerId, Offset, PartitionId};
use client_core::consumer::read::{Position, read};
use client_core::consumer::{
    Consumer, Effect, Failure, Fetched, QUERY_SLOT, RequestId, Reset, Settings, Start, Trouble,
};
use client_core::{Leader, Route, TopicPartition};
use client_protocol::ErrorCode;
use client_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::client::value_of;
use super::inquiry::{Inquiry, Told};
use super::ledger::Entry;
use super::lines::Lines;
use super::settings::ReaderSettings;
use super::wire::Frame;
use super::world::{Event, TOPIC, World, key};
use crate::sim::ensemble::schedule::{MS, SECOND, Time};

/// Its numbers among the consumers, one for each partition.
const INDEX: usize = 100;

/// A connection: the broker, and which of those there.
type Line = (BrokerId, u8);

/// Something that happens to it.
#[derive(Debug)]
pub enum ReaderEvent {
    /// It looks at its clock, and the caller at what there is.
    Tick,
    Connected(Line),
    Metadata(Vec<Arc<str>>),
    /// A request reaches the process that its connection was made to.
    Arrives {
        id: BrokerId,
        life: u64,
        frame: Frame,
    },
    Told(Frame),
}

/// A request that is not answered.
#[derive(Debug)]
struct Asked {
    request: RequestId,
    inquiry: Inquiry,
}

/// Where the caller is in a partition.
#[derive(Debug, Default)]
struct Place {
    position: Option<Offset>,
    /// What it could not have, before it was sent elsewhere.
    left: Option<Offset>,
    /// What it believes to be in the log.
    read: BTreeMap<i64, (u64, i32)>,
    /// Whether a suspect disk gave what ends there.
    suspects: BTreeMap<i64, bool>,
    /// The last request for records; the consumer takes an answer to no other.
    asked: RequestId,
    /// A leader said that it has not what is wanted, or nothing as old as what was read, since something was given.
    was_refused: bool,
}

/// See the module.
pub struct Reader {
    core: Consumer,
    start: Start,
    reset: Reset,
    lines: Lines<Line, Asked>,
    places: BTreeMap<PartitionId, Place>,
}

fn name_of(partition: PartitionId) -> TopicPartition {
    TopicPartition::new(TOPIC, partition.get())
}

fn index_of(partition: PartitionId) -> usize {
    INDEX + usize::try_from(partition.get()).expect("small")
}

fn failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), may_be_done: true, is_final: false }
}

impl Reader {
    pub fn new(settings: &ReaderSettings, partitions: i32, seed: u64) -> Self {
        let core = Consumer::new(Settings {
            fetch_wait_ms: settings.fetch_wait_ms,
            fetch_bytes_max: settings.fetch_bytes_max,
            partition_bytes_max: settings.partition_bytes_max,
            buffer_bytes_max: settings.buffer_bytes_max,
            reset: settings.reset,
            retry_backoff_ms: settings.retry_backoff_ms,
            #[cfg(planted)]
            planted: settings.planted,
            ..Settings::default()
        });
        let places = (0..partitions).map(|index| (PartitionId::new(index), Place::default()));
        let (start, reset) = (settings.start, settings.reset);
        Self { core, start, reset, lines: Lines::new(seed), places: places.collect() }
    }

    /// What it has not read of a partition that ends there.
    pub fn unread(&self, partition: PartitionId, end: Offset) -> Option<String> {
        let position = self.places.get(&partition)?.position;
        (position != Some(end)).then(|| format!("it is at {position:?} of {end}"))
    }

    /// How far it is in all partitions together.
    pub fn has_read(&self) -> i64 {
        let positions = self.places.values().filter_map(|place| place.position);
        positions.map(|position| position.get()).sum()
    }

    /// A record that it believes to be in the log, where that has another one.
    pub fn differs(&self, partition: PartitionId, log: &[Entry]) -> Option<String> {
        let read = &self.places.get(&partition)?.read;
        log.iter().find_map(|&(offset, value, epoch)| {
            let believed = *read.get(&offset)?;
            (believed != (value, epoch)).then(|| {
                format!("read at {offset}: {believed:x?}, it is {value:x} of epoch {epoch}")
            })
        })
    }

    fn place(&mut self, partition: PartitionId) -> &mut Place {
        self.places.get_mut(&partition).expect("assigned")
    }

    /// A connection is no more: nothing that is open on it will be answered.
    fn break_line(&mut self, line: Line, now: Time) {
        for asked in self.lines.broke(line) {
            self.fail(&asked, now);
        }
    }

    fn fail(&mut self, asked: &Asked, now: Time) {
        let failure = failure("the connection broke");
        match asked.inquiry {
            Inquiry::Fetch(_) => self.core.fetched(asked.request, Err(failure), now / MS),
            Inquiry::Offsets(_) => {
                self.core.offsets_answered(asked.request, Err(failure), now / MS);
            }
            Inquiry::Epochs(_) => self.core.epochs_answered(asked.request, Err(failure), now / MS),
        }
    }

    /// The caller goes on elsewhere by its own will: at a record that it has read, or behind one.
    fn seek(&mut self, partition: PartitionId, offset: Offset) {
        let place = self.place(partition);
        place.read.split_off(&offset.get());
        place.position = Some(offset);
        let before = place.read.get(&(offset.get() - 1));
        let epoch = before.map(|&(_, epoch)| client_protocol::LeaderEpoch::new(epoch));
        if epoch.is_none() {
            // Nobody can tell whether a log has what was read before.
            place.read.clear();
        }
        self.core.seek(&name_of(partition), Start::At(Position { offset, epoch }));
    }

    /// A leader that says that the epoch is not in its log, but that an older one reaches as far, tells no more: what was read behind that one's records,
    /// or all if none of its were read, may have been replaced, or compacted away. Kafka's consumer reads on then, and so does this one.
    fn doubt(&mut self, asked: &OffsetForLeaderEpochRequest, told: &OffsetForLeaderEpochResponse) {
        let asked = asked.topics.iter().flat_map(|topic| &topic.partitions);
        for asked in asked {
            let mut ends = told.topics.iter().flat_map(|topic| &topic.partitions);
            let end = ends.find(|end| end.partition == asked.partition);
            let Some(end) = end else { continue };
            self.place(asked.partition).was_refused |= end.leader_epoch.is_none();
            let epoch = end.leader_epoch.map(|epoch| epoch.get());
            if let Some(epoch) = epoch.filter(|epoch| *epoch < asked.leader_epoch.get()) {
                let place = self.place(asked.partition);
                // What lies behind it is cut, and has to be told.
                if place.position.is_some_and(|position| end.end_offset >= Some(position)) {
                    let common = place.read.iter().rev().find(|(_, (_, of))| *of == epoch);
                    let end = common.map_or(0, |(offset, _)| offset + 1);
                    place.read.split_off(&end);
                }
            }
        }
    }
}

impl World {
    pub(super) fn begin_reading(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        let partitions: Vec<_> = reader.places.keys().copied().collect();
        for partition in partitions {
            reader.core.seek(&name_of(partition), reader.start);
            if let Start::At(position) = reader.start {
                reader.place(partition).position = Some(position.offset);
            }
            self.chronicle.assigned(index_of(partition));
        }
        self.schedule.after(2 * SECOND, Event::Reader(ReaderEvent::Tick));
    }

    /// Something happens to the native consumer: it decides, and what it wants is done.
    pub(super) fn reader_event(&mut self, event: ReaderEvent) {
        let now = self.schedule.now();
        if let ReaderEvent::Arrives { id, life, frame } = event {
            let (number, inquiry) = Inquiry::decode(&frame);
            self.trace.say(now, || format!("  {number}: {inquiry:?}"));
            return self.step(id, life, |process, now, out| {
                process.inquired((number, &inquiry), now, out);
            });
        }
        let Some(mut reader) = self.reader.take() else { return };
        let mut effects = Vec::new();
        match event {
            ReaderEvent::Tick => self.reader_ticks(&mut reader, &mut effects),
            ReaderEvent::Connected((broker, slot)) => {
                let machine = &self.machines[&broker];
                if machine.process.is_some() {
                    reader.lines.opened((broker, slot), machine.life, now);
                    reader.core.connected(broker, slot);
                } else {
                    reader.core.connect_failed(broker, slot, now / MS);
                }
            }
            ReaderEvent::Metadata(topics) => {
                let answer = self.metadata(&mut reader.lines.random).ok_or(failure("nobody"));
                reader.core.metadata_answered(answer, &topics, now / MS);
            }
            ReaderEvent::Told(frame) => self.reader_hears(&mut reader, &frame),
            ReaderEvent::Arrives { .. } => {}
        }
        if self.calm {
            self.reader_takes(&mut reader, u64::MAX);
        }
        self.reader_follows(&mut reader);
        reader.core.poll(now / MS, &mut effects);
        effects.into_iter().for_each(|effect| self.reader_wants(&mut reader, effect));
        reader.core.check();
        self.reader = Some(reader);
    }

    fn reader_ticks(&mut self, reader: &mut Reader, effects: &mut Vec<Effect>) {
        let now = self.schedule.now();
        let pace = if self.calm { 1 } else { self.settings.pace };
        let next = (2 * MS + reader.lines.random.below(40 * MS)) * pace;
        self.schedule.after(next, Event::Reader(ReaderEvent::Tick));
        for line in reader.lines.over(self, |(broker, _)| *broker) {
            reader.break_line(line, now);
        }
        self.reader_is_notified(reader, effects);
        let partitions = self.settings.partitions.unsigned_abs().into();
        let some = i32::try_from(reader.lines.random.below(partitions)).expect("few");
        let partition = PartitionId::new(some);
        if self.calm {
            return reader.core.pause(&name_of(partition), false);
        }
        if reader.lines.random.chance(1, 50) {
            let is_paused = reader.lines.random.chance(1, 2);
            reader.core.pause(&name_of(partition), is_paused);
        }
        if reader.lines.random.chance(1, 300) {
            self.reader_turns_back(reader, partition);
        }
        let count = reader.lines.random.below(4);
        self.reader_takes(reader, count);
    }

    /// It hears of a change as those do who have a session with the coordinator.
    fn reader_is_notified(&mut self, reader: &mut Reader, effects: &mut Vec<Effect>) {
        if !reader.lines.random.chance(1, 30) {
            return;
        }
        let machines = self.machines.len() as u64;
        let some = reader.lines.random.below(machines) as usize;
        let (&id, machine) = self.machines.iter().nth(some).expect("few");
        let Some(process) = &machine.process else {
            return reader.core.route(&Route::BrokerDown(id), effects);
        };
        for (partition, stored) in process.image.states(TOPIC) {
            let (broker, epoch) = (stored.state.leader, Some(stored.state.leader_epoch));
            let leader = Leader { broker, epoch };
            let route = Route::Leader { partition: name_of(partition), leader };
            reader.core.route(&route, effects);
        }
    }

    fn reader_turns_back(&mut self, reader: &mut Reader, partition: PartitionId) {
        let place = &reader.places[&partition];
        if place.position.is_none() || place.read.is_empty() {
            return;
        }
        let some = reader.lines.random.below(place.read.len() as u64) as usize;
        let offset = *place.read.keys().nth(some).expect("that many");
        reader.seek(partition, Offset::new(offset));
        self.chronicle.assigned(index_of(partition));
    }

    fn reader_wants(&mut self, reader: &mut Reader, effect: Effect) {
        let delay = reader.lines.delay();
        match effect {
            Effect::Connect { broker, slot, .. } => {
                let connected = ReaderEvent::Connected((broker, slot));
                self.schedule.after(delay, Event::Reader(connected));
            }
            Effect::Disconnect(broker) => {
                let now = self.schedule.now();
                (0..=QUERY_SLOT).for_each(|slot| reader.break_line((broker, slot), now));
            }
            Effect::Fetch { request, to, body } => {
                for asked in body.topics.iter().flat_map(|topic| &topic.partitions) {
                    reader.place(asked.partition).asked = request;
                }
                let asked = Asked { request, inquiry: Inquiry::Fetch(body) };
                self.reader_asks(reader, to, asked);
            }
            Effect::ListOffsets { request, broker, body } => {
                let asked = Asked { request, inquiry: Inquiry::Offsets(body) };
                self.reader_asks(reader, (broker, QUERY_SLOT), asked);
            }
            Effect::CheckEpochs { request, broker, body } => {
                let asked = Asked { request, inquiry: Inquiry::Epochs(body) };
                self.reader_asks(reader, (broker, QUERY_SLOT), asked);
            }
            Effect::AskMetadata(topics) => {
                self.schedule.after(delay, Event::Reader(ReaderEvent::Metadata(topics)));
            }
        }
    }

    fn reader_asks(&mut self, reader: &mut Reader, line: Line, asked: Asked) {
        let now = self.schedule.now();
        let delay = reader.lines.delay();
        if !reader.lines.is_open(line) {
            return reader.fail(&asked, now);
        }
        let number = reader.lines.next_number();
        let frame = asked.inquiry.encode(number);
        self.trace.take(frame.bytes());
        let sending = reader.lines.ask(line, (number, asked), (now, delay));
        let breaks = !self.calm && reader.lines.random.chance(1, 150);
        if !breaks || reader.lines.random.chance(1, 2) {
            let arrives = ReaderEvent::Arrives { id: line.0, life: sending.life, frame };
            self.schedule.at(sending.there, Event::Reader(arrives));
        }
        if breaks {
            reader.break_line(line, now);
        }
    }

    /// A broker answers on the connection, if it is still there.
    pub(super) fn reader_is_told(&mut self, number: u64, told: Told) {
        let now = self.schedule.now();
        let Some(reader) = &mut self.reader else { return };
        let delay = reader.lines.delay();
        let line = reader.lines.line_of(number);
        let back = line.and_then(|line| reader.lines.answer(line, (now, delay)));
        let Some(back) = back else { return };
        let frame = told.encode(number);
        self.trace.take(frame.bytes());
        self.schedule.at(back, Event::Reader(ReaderEvent::Told(frame)));
    }

    fn reader_hears(&mut self, reader: &mut Reader, frame: &Frame) {
        let now = self.schedule.now();
        let (number, told, bytes) = Told::decode(frame);
        self.trace.say(now, || format!("  {number}: {told:?}"));
        let Some(open) = reader.lines.answered(number) else { return };
        let (from, request) = (open.key.0, open.question.request);
        match (open.question.inquiry, told) {
            (Inquiry::Fetch(body), Told::Fetched(answer, _)) => {
                let answers = read(&body, answer, &bytes);
                let suspect = self.machines[&from].suspect;
                for answer in &answers {
                    if answer.code == ErrorCode::KafkaStorageError && suspect {
                        self.complain(from, "told so itself");
                    }
                    if let Some(error) = &answer.error {
                        self.complain(from, &error.to_string());
                    }
                    let place = reader.place(answer.partition.partition);
                    place.was_refused |= answer.code == ErrorCode::OffsetOutOfRange;
                    if let Some(next) = answer.next.filter(|_| place.asked == request) {
                        place.suspects.insert(next.offset.get(), suspect);
                    }
                }
                reader.core.fetched(request, Ok(answers), now / MS);
            }
            (Inquiry::Offsets(_), Told::Offsets(answer)) => {
                reader.core.offsets_answered(request, Ok(answer), now / MS);
            }
            (Inquiry::Epochs(body), Told::Epochs(answer)) => {
                reader.doubt(&body, &answer);
                reader.core.epochs_answered(request, Ok(answer), now / MS);
            }
            (inquiry, told) => unreachable!("{told:?} to {inquiry:?}"),
        }
    }

    /// The caller takes so much of what there is.
    fn reader_takes(&mut self, reader: &mut Reader, count: u64) {
        for _ in 0..count {
            self.reader_follows(reader);
            match reader.core.take() {
                Some(Ok(fetched)) => self.reader_is_given(reader, &fetched),
                Some(Err(trouble)) => self.reader_is_in_trouble(reader, trouble),
                None => return,
            }
        }
    }

    fn reader_is_given(&mut self, reader: &mut Reader, fetched: &Fetched) {
        let (now, partition) = (self.schedule.now(), fetched.partition.partition);
        let (key, next) = (key(partition.get()), fetched.next.offset);
        let place = reader.place(partition);
        let position = place.position.expect("a caller that is given records is somewhere");
        let mut seen: Vec<Entry> = Vec::new();
        for chunk in &fetched.chunks {
            let epoch = chunk.header().leader_epoch.map_or(-1, |epoch| epoch.get());
            seen.extend(chunk.records().map(|r| (r.offset.get(), value_of(&r), epoch)));
        }
        let offsets = || seen.iter().map(|&(offset, ..)| offset);
        assert!(
            offsets().is_sorted_by(|a, b| a < b)
                && offsets().all(|offset| position.get() <= offset && offset < next.get())
                && position < next
                && fetched.high_watermark.is_none_or(|high_watermark| next <= high_watermark),
            "{key:?}: at {position} it is given {seen:x?} and sent to {next} of {:?}",
            fetched.high_watermark
        );
        if self.settings.compaction.is_none() {
            let count = (next.get() - position.get()).unsigned_abs();
            assert_eq!(seen.len() as u64, count, "{key:?}: from {position} it is given {seen:x?}");
        }
        let suspect = place.suspects.get(&next.get()).copied().unwrap_or_default();
        place.suspects = place.suspects.split_off(&(next.get() + 1));
        place.position = Some(next);
        place.was_refused = false;
        place.read.extend(seen.iter().map(|&(offset, value, epoch)| (offset, (value, epoch))));
        self.ledger.consumed(key, &seen, (suspect, now));
        let mut gaps = Vec::new();
        if !self.ledger.is_unclean(key) {
            let range = (position.get(), next.get());
            gaps = self.ledger.missing(key, range, &seen, (now, "the native consumer"));
        }
        self.chronicle.consumed(index_of(partition), key, (&seen, &gaps), now);
    }

    fn reader_is_in_trouble(&mut self, reader: &mut Reader, trouble: Trouble) {
        let partition = trouble.partition().partition;
        let key = key(partition.get());
        let is_unclean = self.ledger.is_unclean(key);
        let name = name_of(partition);
        match trouble {
            Trouble::OutOfRange { offset, .. } => {
                assert_eq!(reader.reset, Reset::Error, "{key:?}: {offset} is out of range");
                let place = reader.place(partition);
                assert_eq!(place.position.take(), Some(offset), "what the caller wanted next");
                place.left = Some(offset);
                reader.core.seek(&name, Start::Earliest);
            }
            Trouble::Truncated { position, end, .. } => {
                assert!(is_unclean, "{key:?}: {position} is said to be cut to {end}");
                reader.seek(partition, end);
                self.chronicle.assigned(index_of(partition));
            }
            // Who gave it was complained of; another leader may have it sound.
            Trouble::Unreadable { .. } => {
                let position = reader.core.position(&name).expect("it was read from there");
                reader.core.seek(&name, Start::At(position));
            }
            trouble @ (Trouble::Refused { .. } | Trouble::NoPosition(_)) => panic!("{trouble}"),
        }
    }

    /// Looks where the caller was sent without having been given anything.
    fn reader_follows(&mut self, reader: &mut Reader) {
        let partitions: Vec<_> = reader.places.keys().copied().collect();
        let (start, reset) = (reader.start, reader.reset);
        for partition in partitions {
            let Some(at) = reader.core.position(&name_of(partition)) else { continue };
            let place = reader.place(partition);
            if place.position == Some(at.offset) {
                continue;
            }
            // A caller that asks for the earliest may be sent back by who has removed less.
            let left = place.left.take();
            let from = place.position.or(left.filter(|left| *left < at.offset));
            let to_latest = match place.position.or(left) {
                None => start == Start::Latest,
                Some(_) => reset == Reset::Latest && at.epoch.is_none(),
            };
            let is_cut = at.epoch.is_some();
            place.position = Some(at.offset);
            assert!(
                from.is_none() || is_cut || place.was_refused,
                "{partition}: sent from {from:?} to {at:?}, nobody refused it"
            );
            self.check_moved(partition, (from, at.offset), to_latest || is_cut);
            let read = &mut reader.place(partition).read;
            read.split_off(&at.offset.get());
            // Nobody can tell whether a log has what was read before.
            if at.epoch.is_none() {
                read.clear();
            }
        }
    }

    fn check_moved(
        &mut self,
        partition: PartitionId,
        (from, to): (Option<Offset>, Offset),
        may_be_anywhere: bool,
    ) {
        let key = key(partition.get());
        let start = self.ledger.log_start(key);
        assert!(may_be_anywhere || to <= start, "{key:?}: sent to {to}, the log starts at {start}");
        if !self.ledger.is_unclean(key) {
            assert!(
                from.is_none_or(|from| from < start && from < to),
                "{key:?}: sent from {from:?} to {to}, and the log starts at {start}"
            );
        }
        self.chronicle.assigned(index_of(partition));
        let from = from.unwrap_or_default();
        let removed_to = if self.ledger.is_unclean(key) { to } else { to.min(start) };
        if from < removed_to {
            self.chronicle.removed_unread(key, (from, removed_to));
        }
        if removed_to < to {
            self.chronicle.left_out(key, (removed_to.max(from), to));
        }
    }
}
