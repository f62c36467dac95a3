//! Consumer groups, one scene after the other with every client, side by side in one cluster under load: members that join,
//! leave, are killed and restart; the broker that coordinates all the groups killed; static members; partitions that move
//! while the others are read on; partitions that are new.
//!
//! What holds for all: each record is read, none is read again that was committed before its reader came, and within a share
//! nothing is left out. A table at the end says what each client did, how long it took, and what it cannot do and why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use broker_core::group::{OFFSETS_TOPIC, partition_of};
use e2e::clients::{run, skip};
use e2e::load::Load;
use e2e::members::{Joining, KINDS, Kind, Member, Seen, Strategy};
use e2e::running::{Running, tidegate};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rustix::process::Signal;
use serde_json::Value;

const TOPIC: &str = "matrix";
const PARTITIONS: i32 = 4;
const PARTITIONS_LATER: i32 = 6;
const OFFSETS_PARTITIONS: i32 = 50;
/// Records a second, over all partitions.
const PER_S: u32 = 80;
/// Longer than any hang guard: who takes over from such a member was told that it went.
const SESSION_LONG_MS: u32 = 240_000;
/// Who takes over from a killed member waits for no more than this.
const SESSION_SHORT_MS: u32 = 6_000;
/// The variable that says with whom.
const CHOICE: &str = "TIDEGATE_GROUPS";
/// So many clients start processes at once: a Java machine alone takes seconds of two cores.
const STARTING_MAX: usize = 4;
/// Longest wait for anything.
const HANG: Duration = Duration::from_secs(120);

type Offsets = BTreeMap<i32, i64>;

/// What is looked at, a column of the table each.
const SCENES: [&str; 10] = [
    "shares",
    "joins",
    "leaves",
    "killed",
    "moves on",
    "coord. kill",
    "resumes",
    "new parts",
    "static kill",
    "static stop",
];

#[test]
fn every_client_has_its_groups() -> Result<()> {
    let Ok(only) = std::env::var(CHOICE) else {
        skip(
            "groups scene by scene",
            "three minutes of both cores: set TIDEGATE_GROUPS=all, or one client's short name",
        );
        return Ok(());
    };
    let mut running = Running::start(3, 3, &[])?;
    running.create_topic(TOPIC, PARTITIONS)?;
    let load = Load::start(&running.bootstrap(), TOPIC, PARTITIONS, PER_S)?;
    load.wait_acknowledged(100)?;
    let mut stories = Vec::new();
    for kind in KINDS.iter().filter(|kind| only == "all" || only == kind.short) {
        match kind.missing() {
            Some(reason) => skip(&format!("groups with {}", kind.name), reason),
            None => stories.push(Story::new(kind, &running)?),
        }
    }
    ensure!(!stories.is_empty(), "{CHOICE}={only}: no client of that name is here");
    let all = stories.len();
    each(&mut stories, STARTING_MAX, |story| story.members_come_and_go(&running))?;
    let coordinator =
        running.leader(OFFSETS_TOPIC, partition_of(&stories[0].group, OFFSETS_PARTITIONS).get())?;
    let before = committed_by_all(&running, &stories)?;
    let killed = Instant::now();
    running.signal(&coordinator, Signal::KILL)?;
    each(&mut stories, all, |story| story.goes_on(&running, (&before, killed)))?;
    running.cluster.start(&coordinator)?;
    running.cluster.wait_ready(&coordinator)?;
    each(&mut stories, STARTING_MAX, |story| story.resumes(&running))?;
    load.finish()?;
    each(&mut stories, all, |story| story.reads_to_the_end(&running, PARTITIONS))?;
    add_partitions(&running)?;
    let added = Instant::now();
    let load = Load::start(&running.bootstrap(), TOPIC, PARTITIONS_LATER, PER_S)?;
    each(&mut stories, all, |story| story.reads_what_is_new(&running, added))?;
    load.finish()?;
    each(&mut stories, all, |story| story.ends(&running))?;
    print_table(&stories);
    Ok(())
}

/// Has all go through a part, so many at once; the first failure is given, and the others are printed.
fn each(
    stories: &mut [Story],
    at_once: usize,
    part: impl Fn(&mut Story) -> Result<()> + Sync,
) -> Result<()> {
    let queue = Mutex::new(stories.iter_mut());
    let failures = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(story) = next() {
            if let Err(error) = part(story) {
                let name = story.kind.name;
                eprintln!("{name}: {error:#}\n{}", story.groups());
                let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                failures.push(error.context(name));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.into_iter().next().map_or(Ok(()), Err)
}

fn committed_by_all(running: &Running, stories: &[Story]) -> Result<BTreeMap<String, Offsets>> {
    let held =
        |story: &Story| Ok((story.group.clone(), described(running, &story.group)?.committed));
    stories.iter().map(held).collect()
}

fn add_partitions(running: &Running) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", running.bootstrap()).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wanted = NewPartitions::new(TOPIC, usize::try_from(PARTITIONS_LATER)?);
    let options = AdminOptions::new().operation_timeout(Some(HANG));
    let made = runtime.block_on(admin.create_partitions([&wanted], &options))?;
    for topic in made {
        topic.map_err(|(topic, code)| anyhow!("{topic} gets no partitions: {code}"))?;
    }
    Ok(())
}

/// A group as its coordinator describes it.
struct Described {
    state: String,
    members: usize,
    committed: Offsets,
    ends: Offsets,
}

fn described(running: &Running, group: &str) -> Result<Described> {
    running.wait_for(&format!("a description of {group}"), || describe(running, group).map(Some))
}

fn describe(running: &Running, group: &str) -> Result<Described> {
    let text = running.tidegate(&["group", "describe", group, "-o", "json"])?;
    let found: Value = serde_json::from_str(&text)?;
    let offsets = found["offsets"].as_array().context("no offsets")?;
    let column = |name: &str| {
        let cell = |line: &Value| {
            let partition = i32::try_from(line["partition"].as_i64()?).ok()?;
            Some((partition, line[name].as_i64()?))
        };
        offsets.iter().filter_map(cell).collect()
    };
    Ok(Described {
        state: found["state"].as_str().unwrap_or_default().to_owned(),
        members: found["members"].as_array().map_or(0, Vec::len),
        committed: column("committed"),
        ends: column("end"),
    })
}

/// What came of a scene.
enum Outcome {
    Took(Duration),
    Cannot(&'static str),
}

/// One client's way through the scenes, with a group of dynamic members and one of static ones.
struct Story {
    kind: &'static Kind,
    group: String,
    static_group: String,
    bootstrap: String,
    coordinators: String,
    folder: PathBuf,
    members: Vec<Member>,
    /// All that members of the first group did who have ended.
    ended: Vec<Seen>,
    outcomes: BTreeMap<&'static str, Outcome>,
    /// Records that were committed and not printed, where the client is known for it.
    swallowed: usize,
    /// Members that did not go and were killed, where the client is known for it.
    hung: usize,
}

impl Story {
    fn new(kind: &'static Kind, running: &Running) -> Result<Self> {
        // All in one partition of the offsets' topic: one broker coordinates them all.
        let meant = partition_of("matrix", OFFSETS_PARTITIONS);
        let names = (0..).map(|number| format!("{}-{number}", kind.short));
        let mut fitting = names.filter(|name| partition_of(name, OFFSETS_PARTITIONS) == meant);
        let folder = running.dir().join("members");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            kind,
            group: fitting.next().context("no such name")?,
            static_group: format!("{}-static", kind.short),
            bootstrap: running.bootstrap(),
            coordinators: running.coordinators(),
            folder,
            members: Vec::new(),
            ended: Vec::new(),
            outcomes: BTreeMap::new(),
            swallowed: 0,
            hung: 0,
        })
    }

    /// Starts a member of the first group.
    fn join(&mut self, name: &str, session_ms: u32) -> Result<()> {
        let strategy = self.kind.strategy;
        let group = self.group.clone();
        let member = self.start(name, (&group, strategy), (session_ms, None))?;
        self.members.push(member);
        Ok(())
    }

    fn start(
        &self,
        name: &str,
        (group, strategy): (&str, Strategy),
        (session_ms, instance): (u32, Option<&str>),
    ) -> Result<Member> {
        let joining = Joining {
            bootstrap: &self.bootstrap,
            coordinators: &self.coordinators,
            group,
            topic: TOPIC,
            session_ms,
            instance,
            strategy,
        };
        Member::start(self.kind, &joining, (name, &self.folder))
    }

    /// Ends the last member that came.
    fn part(&mut self, how: Signal) -> Result<Seen> {
        let last = self.members.pop().context("nobody there")?;
        let (seen, has_hung) = match self.kind.may_hang {
            Some(_) => last.end_or_kill(how)?,
            None => (last.end(how)?, false),
        };
        self.hung += usize::from(has_hung);
        ensure!(seen.wrong.is_none(), "{:?}", seen.wrong);
        self.ended.push(seen.clone());
        Ok(seen)
    }

    /// Waits for something of the members' words; nobody may end by itself or do wrong meanwhile.
    fn wait<T>(
        members: &mut [Member],
        what: &str,
        holds: impl Fn(&[Seen]) -> Option<T>,
    ) -> Result<(T, Duration)> {
        let began = Instant::now();
        loop {
            let seen: Vec<Seen> = members.iter().map(Member::seen).collect();
            let ended = members.iter_mut().find_map(Member::ended);
            let wrong = seen.iter().find_map(|seen| seen.wrong.clone());
            let is_late = began.elapsed() > HANG;
            if is_late || ended.is_some() || wrong.is_some() {
                let states: String =
                    members.iter().map(|member| format!("\n    {}", member.state())).collect();
                bail!(
                    "waiting for {what}: wrong {wrong:?}, ended {ended:?}, late {is_late}:{states}"
                );
            }
            if let Some(found) = holds(&seen) {
                return Ok((found, began.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_shared(&mut self, what: &str) -> Result<Duration> {
        Ok(Self::wait(&mut self.members, what, |seen| is_shared(seen, PARTITIONS).then_some(()))?.1)
    }

    /// Waits until each partition was read on by whoever has it, and the group remembers more than it did.
    fn wait_progress(&mut self, running: &Running, what: &str) -> Result<Offsets> {
        let before = described(running, &self.group)?.committed;
        let then: Vec<Seen> = self.members.iter().map(Member::seen).collect();
        Self::wait(&mut self.members, what, |seen| {
            let reads_on = |partition| {
                let of = |all: &[Seen]| {
                    reader_of(all, partition).and_then(|one| next(&all[one], partition))
                };
                of(seen).is_some_and(|next| of(&then).is_none_or(|then| next >= then + 3))
            };
            (is_shared(seen, PARTITIONS) && (0..PARTITIONS).all(reads_on)).then_some(())
        })?;
        let more = |held: &Offsets| {
            let grew = |partition| held.get(&partition) > before.get(&partition);
            (0..PARTITIONS).all(grew)
        };
        self.wait_committed(running, what, more)
    }

    fn wait_committed(
        &mut self,
        running: &Running,
        what: &str,
        holds: impl Fn(&Offsets) -> bool,
    ) -> Result<Offsets> {
        let began = Instant::now();
        loop {
            let held = described(running, &self.group)?.committed;
            if holds(&held) {
                return Ok(held);
            }
            if began.elapsed() > HANG {
                let states: String =
                    self.members.iter().map(|member| format!("\n    {}", member.state())).collect();
                bail!("waiting for commits, {what}: {held:?} is remembered:{states}");
            }
            // Also finds out when somebody ended or did wrong.
            Self::wait(&mut self.members, what, |_| Some(()))?;
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whoever took over began no earlier than what was committed then, and goes on.
    fn wait_taken_over(&mut self, what: &str, (of, held): (&Seen, &Offsets)) -> Result<()> {
        let owned = of.owned.iter().chain(&of.given_back).copied().collect::<BTreeSet<i32>>();
        let took = |seen: &[Seen]| {
            let first = |partition: &i32| {
                seen[0].latest(*partition)?.read.map(|(first, _)| (*partition, first))
            };
            owned.iter().map(first).collect::<Option<Vec<_>>>()
        };
        let (firsts, _) = Self::wait(&mut self.members, what, took)?;
        for (partition, first) in firsts {
            let floor = held.get(&partition).copied().unwrap_or(0);
            ensure!(
                first >= floor,
                "partition {partition}: {first} read again, {floor} was committed"
            );
        }
        Ok(())
    }

    /// How its groups are described, for a failure's message.
    fn groups(&self) -> String {
        let describe = |group: &String| {
            let described =
                tidegate(&self.bootstrap, &self.coordinators).and_then(|mut command| {
                    command.args(["group", "describe", group]);
                    run(command, "")
                });
            described.unwrap_or_else(|error| format!("{error:#}"))
        };
        [&self.group, &self.static_group].map(describe).join("\n")
    }

    fn did(&mut self, scene: &'static str, took: Duration) {
        self.outcomes.insert(scene, Outcome::Took(took));
    }

    fn cannot(&mut self, scene: &'static str, reason: &'static str) {
        self.outcomes.insert(scene, Outcome::Cannot(reason));
    }
}

/// The parts of the story.
impl Story {
    /// One alone, a second that joins and leaves, a third that is killed, a fourth that stays.
    fn members_come_and_go(&mut self, running: &Running) -> Result<()> {
        if let Some(reason) = self.kind.no_static {
            self.cannot("static kill", reason);
            self.cannot("static stop", reason);
        } else {
            self.static_members_restart()?;
        }
        self.join("one", SESSION_LONG_MS)?;
        let alone = self.wait_shared("one to have all")?;
        self.did("shares", alone);
        self.wait_progress(running, "one to read")?;
        self.join("two", SESSION_LONG_MS)?;
        let joined = self.wait_shared("two to share")?;
        self.did("joins", joined);
        let held = self.wait_progress(running, "two to read")?;
        let moved = self.members[1].seen().owned;
        self.only_moved(&moved, "when another joined")?;
        let two = self.part(Signal::TERM)?;
        let left = self.wait_shared("one to take over from who left")?;
        self.did("leaves", left);
        self.wait_taken_over("one to read on for who left", (&two, &held))?;
        self.only_moved(&moved, "when another left")?;
        self.join("three", SESSION_SHORT_MS)?;
        self.wait_shared("three to share")?;
        let held = self.wait_progress(running, "three to read")?;
        let three = self.part(Signal::KILL)?;
        let killed = self.wait_shared("one to take over from who was killed")?;
        self.did("killed", killed);
        self.wait_taken_over("one to read on for who was killed", (&three, &held))?;
        self.join("four", SESSION_LONG_MS)?;
        self.wait_shared("four to share")?;
        self.wait_progress(running, "four to read")?;
        match self.kind.no_cooperative {
            Some(reason) => self.cannot("moves on", reason),
            None => self.did("moves on", joined),
        }
        Ok(())
    }

    /// With cooperative members: the first gave back what the second got and nothing else, and only once.
    fn only_moved(&self, moved: &BTreeSet<i32>, when: &str) -> Result<()> {
        let mut given_back = self.members[0].seen().given_back;
        given_back.sort_unstable();
        let is_only = given_back.iter().eq(moved.iter());
        ensure!(
            self.kind.strategy == Strategy::Eager || is_only,
            "{given_back:?} stopped {when}, {moved:?} moved: {}",
            self.members[0].state()
        );
        Ok(())
    }

    /// Of two static members one is killed, then stopped; each time it comes back to what it had, and the other notices nothing.
    fn static_members_restart(&mut self) -> Result<()> {
        let group = self.static_group.clone();
        let way = (group.as_str(), self.kind.static_strategy);
        let mut members = vec![
            self.start("first", way, (SESSION_LONG_MS, Some("first")))?,
            self.start("second", way, (SESSION_LONG_MS, Some("second")))?,
        ];
        let shared = |seen: &[Seen]| is_shared(seen, PARTITIONS).then_some(());
        Self::wait(&mut members, "static members to share", shared)?;
        let reads = |seen: &[Seen]| {
            let reads = |seen: &Seen| seen.owned.iter().all(|one| next(seen, *one).is_some());
            (is_shared(seen, PARTITIONS) && seen.iter().all(reads)).then_some(())
        };
        Self::wait(&mut members, "static members to read", reads)?;
        let (owned, before) = (members[1].seen().owned, members[0].seen().changes);
        for (scene, how) in [("static kill", Signal::KILL), ("static stop", Signal::TERM)] {
            members.pop().context("no second")?.end(how)?;
            members.push(self.start(scene, way, (SESSION_LONG_MS, Some("second")))?);
            let back = |seen: &[Seen]| (seen[1].owned == owned).then_some(());
            let (_, took) = Self::wait(&mut members, "a static member to be back", back)?;
            Self::wait(&mut members, "a static member to read again", reads)?;
            let changes = members[0].seen().changes;
            ensure!(changes == before, "{scene}: the other was moved: {}", members[0].state());
            self.did(scene, took);
        }
        for member in members {
            let seen = member.end(Signal::TERM)?;
            ensure!(seen.wrong.is_none(), "{:?}", seen.wrong);
        }
        Ok(())
    }

    /// The broker that coordinated the group is dead: nothing that was committed is forgotten, and both members go on to commit
    /// what was written since.
    fn goes_on(
        &mut self,
        running: &Running,
        (before, killed): (&BTreeMap<String, Offsets>, Instant),
    ) -> Result<()> {
        let held = described(running, &self.group)?;
        for (partition, before) in &before[&self.group] {
            let now = held.committed.get(partition).copied().unwrap_or(0);
            ensure!(
                now >= *before,
                "partition {partition}: {before} was committed, {now} is remembered"
            );
        }
        let since = held.ends.clone();
        let beyond = |held: &Offsets| {
            (0..PARTITIONS).all(|partition| held.get(&partition) > since.get(&partition))
        };
        self.wait_committed(running, "commits to go on", beyond)?;
        self.did("coord. kill", killed.elapsed());
        self.wait_shared("both to share again")?;
        self.wait_progress(running, "both to read on")?;
        Ok(())
    }

    /// All members are gone; who comes then begins where the group was, at no other record.
    fn resumes(&mut self, running: &Running) -> Result<()> {
        let hung_before = self.hung;
        while !self.members.is_empty() {
            self.part(Signal::TERM)?;
        }
        // Whoever was killed did not leave; the next one's rebalance ends its membership.
        let may_be_left = self.hung > hung_before;
        let held = running.wait_for("a group without members", || {
            let found = describe(running, &self.group)?;
            let is_empty = found.members == 0 && found.state == "Empty";
            Ok((is_empty || may_be_left).then_some(found.committed))
        })?;
        self.join("five", SESSION_LONG_MS)?;
        let firsts = |seen: &[Seen]| {
            let first = |partition| {
                Some((
                    partition,
                    seen[0].stints.iter().find(|one| one.partition == partition)?.read?.0,
                ))
            };
            (0..PARTITIONS).map(first).collect::<Option<Offsets>>()
        };
        let (firsts, took) = Self::wait(&mut self.members, "the next member to read", firsts)?;
        ensure!(firsts == held, "it began at {firsts:?}, {held:?} was committed");
        self.did("resumes", took);
        Ok(())
    }

    fn reads_to_the_end(&mut self, running: &Running, partitions: i32) -> Result<()> {
        let ends = described(running, &self.group)?.ends;
        let what = format!("all to be read up to {ends:?}");
        Self::wait(&mut self.members, &what, |seen| {
            // Perhaps by a former stint: when the share was given anew there was nothing more to read.
            let is_read =
                |partition| furthest(&seen[0], partition) >= ends.get(&partition).copied();
            (0..partitions).all(is_read).then_some(())
        })?;
        self.wait_committed(running, &what, |held| *held == ends)?;
        Ok(())
    }

    /// The topic has more partitions: they are read from their beginning.
    fn reads_what_is_new(&mut self, _: &Running, added: Instant) -> Result<()> {
        let firsts = |seen: &[Seen]| {
            let first = |partition| seen[0].latest(partition)?.read.map(|(first, _)| first);
            (PARTITIONS..PARTITIONS_LATER).map(first).collect::<Option<Vec<i64>>>()
        };
        let (firsts, _) = Self::wait(&mut self.members, "new partitions to be read", firsts)?;
        ensure!(firsts.iter().all(|first| *first == 0), "new partitions are read from {firsts:?}");
        self.did("new parts", added.elapsed());
        Ok(())
    }

    /// Nothing more is written: all is read and committed, and each record was read by somebody.
    fn ends(&mut self, running: &Running) -> Result<()> {
        self.reads_to_the_end(running, PARTITIONS_LATER)?;
        self.part(Signal::TERM)?;
        let ends = described(running, &self.group)?;
        ensure!(ends.committed == ends.ends, "{:?} of {:?}", ends.committed, ends.ends);
        for (partition, end) in &ends.ends {
            let stints = self.ended.iter().flat_map(|seen| &seen.stints);
            let mut read: Vec<(i64, i64)> = stints
                .filter(|one| one.partition == *partition)
                .filter_map(|one| one.read)
                .collect();
            read.sort_unstable();
            let mut to = 0;
            for (first, next) in &read {
                let is_missing = *first > to;
                // At the end of a stint, one record.
                let is_swallowed = *first == to + 1 && self.kind.may_swallow.is_some();
                ensure!(
                    !is_missing || is_swallowed,
                    "partition {partition}: nobody read {to} to {first}: {read:?}"
                );
                self.swallowed += usize::from(is_missing);
                to = to.max(*next);
            }
            ensure!(to == *end, "partition {partition}: read up to {to} of {end}");
        }
        Ok(())
    }
}

/// Each partition is somebody's, nobody else's, and nobody has nothing.
fn is_shared(seen: &[Seen], partitions: i32) -> bool {
    let mut all: Vec<i32> = seen.iter().flat_map(|one| one.owned.iter().copied()).collect();
    all.sort_unstable();
    all.into_iter().eq(0..partitions) && seen.iter().all(|one| !one.owned.is_empty())
}

fn reader_of(seen: &[Seen], partition: i32) -> Option<usize> {
    seen.iter().position(|one| one.owned.contains(&partition))
}

/// The offset after the last that was read in the present stint.
fn next(seen: &Seen, partition: i32) -> Option<i64> {
    seen.latest(partition)?.read.map(|(_, next)| next)
}

/// The offset after the last that it ever read.
fn furthest(seen: &Seen, partition: i32) -> Option<i64> {
    let stints = seen.stints.iter().filter(|stint| stint.partition == partition);
    stints.filter_map(|stint| stint.read).map(|(_, next)| next).max()
}

fn print_table(stories: &[Story]) {
    println!(
        "\nconsumer groups with every client, seconds until the state was reached (loaded machine: no measure):"
    );
    let heads: String = SCENES.iter().map(|scene| format!(" {scene:>11}")).collect();
    println!("  {:26}{heads}", "");
    let mut reasons = Vec::new();
    for story in stories {
        let mut cells = String::new();
        for scene in SCENES {
            let cell = match story.outcomes.get(scene) {
                Some(Outcome::Took(took)) => format!("{:.1}", took.as_secs_f64()),
                Some(Outcome::Cannot(reason)) => {
                    reasons.push(format!("  - {}, {scene}: {reason}", story.kind.name));
                    "-".to_owned()
                }
                None => "?".to_owned(),
            };
            cells.push_str(&format!(" {cell:>11}"));
        }
        println!("  {:26}{cells}", story.kind.name);
        if let Some(reason) = story.kind.may_hang.filter(|_| story.hung > 0) {
            let (name, count) = (story.kind.name, story.hung);
            reasons.push(format!("  - {name}: {count} members had to be killed: {reason}"));
        }
        if let Some(reason) = story.kind.may_swallow {
            let (name, count) = (story.kind.name, story.swallowed);
            reasons
                .push(format!("  - {name}: {count} records committed and not printed: {reason}"));
        }
    }
    reasons.iter().for_each(|reason| println!("{reason}"));
}
