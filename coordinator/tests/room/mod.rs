//! Little room on the disk, and none: a real filesystem where the system lets us have one.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use coordinator::config::{Config, Values};
use coordinator::embedded::Embedded;
use coordinator_protocol::{CreateMode, DeleteRequest, ErrorCode, Request, SetDataRequest};

use crate::client::Client;
use crate::{SOON, create, exists, say};

/// Of the filesystem in memory. The first segment takes 64 MiB of it.
const DISK_BYTES: u64 = 100 << 20;

fn start(folder: &Path, free_bytes_min: u64) -> Embedded {
    let mut values = Values::default();
    values.set("dataDir", &folder.join("data").display().to_string());
    values.set("clientPort", "0");
    values.set("httpPort", "0");
    values.set("diskFreeBytesMin", &free_bytes_min.to_string());
    Embedded::start_with(Config::from_values(&values).unwrap()).unwrap()
}

/// Until a write is answered so.
fn await_writes(client: &mut Client, expected: ErrorCode) {
    let began = Instant::now();
    let set = SetDataRequest { path: "/a".into(), data: Some("y".into()), version: -1 };
    loop {
        let (error, _) = client.ask(&Request::SetData(set.clone()));
        if error == expected {
            return;
        }
        assert!([ErrorCode::Ok, ErrorCode::QuotaExceeded].contains(&error), "{error:?}");
        assert!(began.elapsed() < SOON, "still {error:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn setting_above_the_free_room_refuses_writes_until_it_is_lowered() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), 1);
    let mut client = Client::connect(server.client_address());
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    assert_eq!(client.ask(&create("/b", CreateMode::Persistent)).0, ErrorCode::Ok);
    server.stop().unwrap();
    let server = start(folder.path(), u64::MAX / 4);
    let mut client = Client::connect(server.client_address());
    await_writes(&mut client, ErrorCode::QuotaExceeded);
    assert!(exists(&mut client, "/a"));
    let gone = Request::Delete(DeleteRequest { path: "/b".into(), version: -1 });
    assert_eq!(client.ask(&gone).0, ErrorCode::Ok);
    assert!(!exists(&mut client, "/b"));
    let measures = say(server.client_address(), b"mntr");
    for line in ["zk_disk_low\t1", "zk_writes_refused\t1"] {
        assert!(measures.lines().any(|found| found == line), "{measures}");
    }
    assert_eq!(say(server.client_address(), b"ruok"), "imok");
    server.stop().unwrap();
    let server = start(folder.path(), 1);
    let mut client = Client::connect(server.client_address());
    await_writes(&mut client, ErrorCode::Ok);
}

/// A filesystem in memory that only this test's processes see. It ends with the value.
struct SmallDisk {
    /// Keeps it.
    keeper: Child,
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// `None` where the system does not let us have one.
    fn mount(folder: &Path) -> Option<SmallDisk> {
        let mounted_at = folder.join("disk");
        fs::create_dir(&mounted_at).unwrap();
        let script = "mount -t tmpfs -o size=\"$1\" none \"$2\" && echo done && exec sleep 600";
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(DISK_BYTES.to_string())
            .arg(&mounted_at)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take()?).read_line(&mut line).ok()?;
        let disk = SmallDisk { keeper, mounted_at };
        (line == "done\n").then_some(disk)
    }

    /// The same place, for processes that do not see it.
    fn path(&self, name: &str) -> PathBuf {
        let inside = self.mounted_at.strip_prefix("/").unwrap().join(name);
        Path::new(&format!("/proc/{}/root", self.keeper.id())).join(inside)
    }

    /// Leaves so many bytes free.
    fn fill(&self, left: u64) {
        let stat = rustix::fs::statvfs(self.path("")).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(left);
        fs::write(self.path("filler"), vec![0; usize::try_from(bytes).unwrap()]).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.path("filler")).unwrap();
    }

    fn start(&self, free_bytes_min: u64) -> Process {
        let mut process = Command::new("nsenter")
            .args(["--mount", "--target", &self.keeper.id().to_string(), "--"])
            .arg(env!("CARGO_BIN_EXE_coordinator"))
            .args(["--set", "clientPort=0", "--set"])
            .arg(format!("dataDir={}", self.mounted_at.join("data").display()))
            .arg("--set")
            .arg(format!("diskFreeBytesMin={free_bytes_min}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("client=").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.map(|text| text.parse().unwrap());
        Process { process, address }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

struct Process {
    process: Child,
    /// None if it ended at its start.
    address: Option<SocketAddr>,
}

impl Process {
    fn connect(&self) -> Client {
        Client::connect(self.address.unwrap())
    }

    /// Waits for its end: whether it ended well, and what it had to say.
    fn end(mut self) -> (bool, String) {
        let mut log = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.process.wait().unwrap().success(), log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn large(number: usize) -> Request {
    let data = Some(vec![b'x'; 900 << 10].into());
    let path = "/a".to_owned();
    let version = -1;
    assert!(number < 1_000, "the log never ends");
    Request::SetData(SetDataRequest { path, data, version })
}

#[test]
fn disk_that_gets_full_refuses_writes_and_serves_them_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        eprintln!("SKIP: no filesystem can be mounted here");
        return;
    };
    let server = disk.start(8 << 20);
    let mut client = server.connect();
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    disk.fill(4 << 20);
    await_writes(&mut client, ErrorCode::QuotaExceeded);
    assert!(exists(&mut client, "/a"));
    let mut other = server.connect();
    assert_eq!(other.ask(&Request::CloseSession).0, ErrorCode::Ok);
    disk.empty();
    await_writes(&mut client, ErrorCode::Ok);
}

#[test]
fn full_disk_ends_the_server_with_a_word_and_room_lets_it_start_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        eprintln!("SKIP: no filesystem can be mounted here");
        return;
    };
    let server = disk.start(0);
    let mut client = server.connect();
    assert_eq!(client.ask(&create("/a", CreateMode::Persistent)).0, ErrorCode::Ok);
    disk.fill(0);
    let mut acknowledged = 0;
    while let Some((error, _)) = client.try_ask(&large(acknowledged)) {
        assert_eq!(error, ErrorCode::Ok);
        acknowledged += 1;
    }
    assert!(acknowledged > 60, "a segment is reserved");
    let (is_well, log) = server.end();
    assert!(!is_well);
    assert!(log.contains("the disk is full: make room"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let server = disk.start(0);
    if let Some(mut client) = server.address.and_then(Client::try_connect) {
        // What is left of a page may take the election, and no more.
        while client.try_ask(&large(0)).is_some() {}
    }
    let (is_well, log) = server.end();
    assert!(!is_well && !log.contains("panicked"), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
    disk.empty();
    let server = disk.start(0);
    let mut client = server.connect();
    let read = coordinator_protocol::PathWatch { path: "/a".into(), watch: false };
    let (_, answer) = client.ask(&Request::GetData(read));
    let Some(coordinator_protocol::Response::DataStat(_, stat)) = answer else {
        panic!("{answer:?}")
    };
    // The last one was written perhaps, and its answer lost.
    assert!([acknowledged, acknowledged + 1].contains(&usize::try_from(stat.version).unwrap()));
    await_writes(&mut client, ErrorCode::Ok);
}
