//! What an ensemble gives while it lacks servers, files or room, and that all is well afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coordinator_client::protocol::{CreateMode, ErrorCode};
use coordinator_client::{Client, Config};
use e2e::clients::{self, skip};
use e2e::coordinators::Coordinators;
use e2e::running::{Running, programs};
use e2e::talk::Talk;
use e2e::zookeeper::four_letters;
use rustix::process::Signal;
use tests::cluster::{Cluster, HANG_GUARD, Options, Place, status};

#[test]
fn reads_go_on_without_a_quorum_and_the_session_with_one() -> Result<()> {
    let Some(mut kazoo) = clients::python("kazoo") else {
        skip("reads without a quorum", "kazoo is not installed for Python");
        return Ok(());
    };
    let mut all = Coordinators::start("read-only", 3, "readonlymode.enabled = true\n")?;
    kazoo.arg(format!("{}/clients/kazoo_read_only.py", env!("CARGO_MANIFEST_DIR")));
    kazoo.arg(all.addresses());
    let mut kazoo = Talk::start(kazoo)?;
    kazoo.hear(&["kill"])?;
    for id in [2, 3] {
        all.kill(id)?;
    }
    all.wait("reads only", |all| {
        four_letters(&all.address(1), "isro", HANG_GUARD).as_deref() == Some("ro")
    })?;
    kazoo.say("done\n")?;
    kazoo.hear(&["start"])?;
    for id in [2, 3] {
        all.launch(id)?;
    }
    kazoo.say("done\n")?;
    kazoo.hear(&["wrote with one"])
}

/// Damage in the middle of a member's log: it refuses to start, begins anew with its term and vote, and vouches for
/// everything again once it has caught up.
#[test]
fn damaged_member_is_filled_again_by_the_others() -> Result<()> {
    let mut all = Coordinators::start("refill", 3, "")?;
    let damaged = (1..=3).find(|id| all.leader() != Some(*id)).context("two follow")?;
    let leader = all.leader().context("nothing was killed")?;
    fill(&all, "before")?;
    // A majority has them; that this one has is asked. Damage before the mark of what was synced is more than a torn
    // end, and that mark is written once nothing was for a while.
    ensure!(count(&all.address(damaged), "before")? == NODES, "it has not kept up");
    let log = all.data_folder(damaged).join("log");
    all.wait("mark in the log", |_| is_marked(&log, b"before-10").unwrap_or(false))?;
    all.kill(damaged)?;
    let segment = damage(&log, b"before-10")?;
    all.launch(damaged)?;
    all.await_end(damaged)?;
    ensure!(all.log(damaged).contains("damage"), "it did not say why: {}", all.log(damaged));

    let repair = |flags: &[&str]| repair(&all, damaged, flags);
    let plan: serde_json::Value = serde_json::from_slice(&repair(&["-o", "json"])?.stdout)?;
    ensure!(plan["plan"] == "refill" && plan["needs_flag"] == "--refill", "{plan}");
    let refused = repair(&["--yes"])?;
    ensure!(!refused.status.success() && segment.exists(), "something was done: {refused:?}");
    let done = repair(&["--refill", "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    ensure!(done.status.success() && told["done"] == true, "{told}");
    let aside = told["set_aside_in"].as_str().context("nothing was set aside")?;
    ensure!(fs::read_dir(aside)?.count() > 0, "the damaged files are gone: {told}");
    ensure!(repair(&["-o", "json"])?.status.success(), "what is left is not sound");

    // As the command says: a leader that counts on what is lost is refused.
    let heir = (1..=3).find(|id| ![damaged, leader].contains(id)).context("three of them")?;
    all.json(&all.address(leader), &["transfer", "--to", &heir.to_string()])?;
    fill(&all, "meanwhile")?;
    all.launch(damaged)?;
    all.wait("member again", |all| all.role(damaged).is_some())?;
    // It counts: with another one gone it is half of the majority, and has what it had lost.
    all.kill(leader)?;
    fill(&all, "after")?;
    for of in ["before", "meanwhile", "after"] {
        ensure!(count(&all.address(damaged), of)? == NODES, "nodes {of} are missing");
    }
    Ok(())
}

const NODES: usize = 20;

/// Some nodes of that name, by whoever can write.
fn fill(all: &Coordinators, name: &str) -> Result<()> {
    with_client(&all.addresses(), async |client| {
        for number in 0..NODES {
            let path = format!("/{name}-{number}");
            loop {
                match client.create(&path, None, CreateMode::Persistent).await {
                    Ok(_) => break,
                    Err(error) if error.is(ErrorCode::NodeExists) => break,
                    // Whether it was done is asked by doing it again.
                    Err(error) if error.is_retriable() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    })
}

/// How many nodes of that name one server has.
fn count(server: &str, name: &str) -> Result<usize> {
    with_client(server, async |client| {
        client.sync("/").await?;
        let (names, _) = client.get_children("/").await?;
        Ok(names.iter().filter(|found| found.starts_with(name)).count())
    })
}

fn with_client<T>(servers: &str, work: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::open(Config::new(servers.split(',').map(str::to_owned).collect()));
        let done = tokio::time::timeout(HANG_GUARD, work(&client)).await;
        client.close().await;
        done.context("no answer in time")?
    })
}

fn repair(all: &Coordinators, id: usize, flags: &[&str]) -> Result<Output> {
    let mut command = Command::new(programs()?.join("coordinator"));
    command.arg("--config").arg(all.settings_file(id)).arg("repair").args(flags);
    Ok(command.stdin(Stdio::null()).output()?)
}

/// Begins each frame of a log; 8 bytes behind it stands how far the file was known to be synced, in 8 bytes.
const FRAME_MAGIC: &[u8] = b"TGFR";

/// Whether the log says, behind the first `text` in it, that this was synced.
fn is_marked(folder: &Path, text: &[u8]) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let bytes = fs::read(entry?.path())?;
        let Some(at) = bytes.windows(text.len()).position(|found| found == text) else { continue };
        let mut frames = bytes[at..].windows(16).filter(|head| head.starts_with(FRAME_MAGIC));
        return Ok(frames.any(|head| {
            let synced = head[8..].try_into().map_or(0, u64::from_le_bytes);
            synced > at as u64
        }));
    }
    Ok(false)
}

/// Changes a byte of `text` in the file of `folder` that has it; returns which.
fn damage(folder: &Path, text: &[u8]) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        if let Some(at) = bytes.windows(text.len()).position(|found| found == text) {
            bytes[at] ^= 1;
            fs::write(&path, bytes)?;
            return Ok(path);
        }
    }
    anyhow::bail!("nothing of that in {}", folder.display())
}

/// A filesystem in memory that only the coordinator sees; the first segment of its log takes 64 MiB.
const DISK_BYTES: u64 = 256 << 20;
/// Less than what is to be free.
const LEFT_BYTES: u64 = 16 << 20;

/// A coordinator in such a filesystem and a broker; `None` where the system does not let us have one.
fn start_with_small_disk() -> Result<Option<Running>> {
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let mut mount = Command::new(unshare[0]);
    mount.args(&unshare[1..]).args(["mount", "-t", "tmpfs", "none", "/mnt"]);
    let asked = mount.stderr(Stdio::null()).status();
    if !asked.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let dir = std::env::temp_dir().join(format!("tidegate-room-{}", std::process::id()));
    let data = dir.join("coordinator-1/data");
    fs::create_dir_all(&data)?;
    let script = format!(
        "mount -t tmpfs -o size={DISK_BYTES} none \"{}\" && exec \"$0\" \"$@\"",
        data.canonicalize()?.display()
    );
    let mut launcher: Vec<String> = unshare.map(str::to_owned).into();
    launcher.extend(["sh".to_owned(), "-c".to_owned(), script]);
    let places = vec![Place { launcher, ..Place::default() }];
    let options = Options {
        dir,
        programs: programs()?,
        coordinators: 1,
        brokers: 1,
        broker_settings: Vec::new(),
        places,
    };
    Ok(Some(Running { cluster: Cluster::up(options)? }))
}

/// A file of the coordinator's disk, for processes that do not see that.
fn filler(running: &Running) -> Result<PathBuf> {
    let node = running.cluster.node("coordinator-1")?;
    let pid = node.process.context("it runs")?.pid;
    let inside = running.dir().join("coordinator-1/data/filler");
    Ok(Path::new(&format!("/proc/{pid}/root")).join(inside.strip_prefix("/")?))
}

/// What the coordinator measures under that name.
fn measured(running: &Running, name: &str) -> Result<u64> {
    let address = running.cluster.node("coordinator-1")?.address();
    let said = four_letters(&address, "mntr", HANG_GUARD).context("no answer")?;
    let line = said.lines().find_map(|line| line.strip_prefix(name)).context("not measured")?;
    Ok(line.trim().parse()?)
}

fn await_measure(running: &Running, name: &str, value: u64) -> Result<()> {
    running.wait_for(name, || Ok((measured(running, name)? == value).then_some(())))
}

#[test]
fn broker_comes_back_once_its_coordinator_has_room() -> Result<()> {
    let Some(mut running) = start_with_small_disk()? else {
        skip("a broker without room", "no filesystem of its own can be mounted");
        return Ok(());
    };
    running.create_topic("records", 1)?;
    let filler = filler(&running)?;
    let disk = rustix::fs::statvfs(filler.parent().context("a folder")?)?;
    let free = disk.f_bavail * disk.f_frsize;
    fs::write(&filler, vec![0; usize::try_from(free - LEFT_BYTES)?])?;
    await_measure(&running, "zk_disk_low", 1)?;
    // It registers nobody, and a broker that waits does not open one session after another.
    running.signal("broker-1", Signal::KILL)?;
    await_measure(&running, "zk_global_sessions", 0)?;
    running.cluster.start("broker-1")?;
    await_measure(&running, "zk_global_sessions", 1)?;
    let entries = measured(&running, "zk_log_last_index")?;
    // Nothing tells that nothing happens but time.
    std::thread::sleep(Duration::from_secs(3));
    let since = measured(&running, "zk_log_last_index")? - entries;
    let broker = running.cluster.node("broker-1")?;
    ensure!(broker.is_alive() && !status::is_ready(broker), "it registered without room");
    ensure!(since <= 1, "it wrote {since} entries: {}", running.cluster.log_tail("broker-1"));

    fs::remove_file(&filler)?;
    await_measure(&running, "zk_disk_low", 0)?;
    running.cluster.wait_ready("broker-1")?;
    let leader = running.leader("records", 0)?;
    ensure!(leader == "broker-1", "{leader} leads");
    running.create_topic("more", 1)
}
