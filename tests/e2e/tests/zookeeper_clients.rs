//! All that other clients of ZooKeeper ask for: zkCli's commands, held against what Apache ZooKeeper answers; the C
//! client, node-zookeeper-client and the Rust crate `zookeeper-client`, whose programs say themselves what is wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use e2e::clients::{self, run, skip};
use e2e::coordinators::Coordinators;
use e2e::talk::Talk;
use e2e::zookeeper::ZooKeeper;

/// The super user of the scripts is super:test, as in `Coordinators`.
const SUPER: &str =
    "-Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=";
/// What ours needs no setting for.
const SAME_SETTINGS: &str = "enforceQuota=true\n";
const TTL: &str = "-Dzookeeper.extendedTypesEnabled=true";
const OPEN: &str = "reconfigEnabled = true\n";
const C_HEADER: &str = "/usr/include/zookeeper/zookeeper.h";
/// What 3.4 does not have of what the program calls.
const C_CALLS: [&str; 4] =
    ["zoo_create2_ttl", "zoo_reconfig", "zoo_remove_watches", "zoo_remove_all_watches"];

fn client_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// What zkCli prints of a script, on both ways out.
fn zkcli(servers: &str, script: &str) -> Result<Option<(Said, Said)>> {
    let Some(mut java) = clients::zookeeper_cli() else { return Ok(None) };
    let home = Home::new(servers)?;
    let (input, errors) = (home.0.join("script"), home.0.join("errors"));
    fs::write(&input, script)?;
    java.args(["-waitforconnection", "-timeout", "60000", "-server", servers]);
    java.stdin(fs::File::open(&input)?).stderr(fs::File::create(&errors)?);
    let printed = clients::wait(java.stdout(Stdio::piped()).spawn()?);
    let errors = fs::read_to_string(&errors)?;
    let printed = printed.with_context(|| format!("zkCli does not end:\n{errors}"))?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    Ok(Some((Said::of(&printed), Said::of(&errors))))
}

/// A folder that goes with the value.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Result<Home> {
        let name: String = name.chars().filter(char::is_ascii_digit).take(20).collect();
        let name = format!("tidegate-zkcli-{}-{name}", std::process::id());
        let home = Home(std::env::temp_dir().join(name));
        fs::create_dir_all(&home.0)?;
        Ok(home)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a client printed, without times and ids, and what is told by another thread apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    lines: Vec<String>,
    events: Vec<String>,
}

impl Said {
    fn of(text: &str) -> Said {
        let mut said = Said::default();
        // The order of identities is that of a hash table.
        let mut identities: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| is_told(line)) {
            if ["ip: ", "digest: ", "super:"].iter().any(|scheme| line.starts_with(scheme)) {
                identities.push(line.to_owned());
                continue;
            }
            identities.sort();
            said.lines.append(&mut identities);
            match line.strip_prefix("WatchedEvent ") {
                // They have the write's zxid.
                Some(event) => {
                    let event = event.split_once(" zxid: ").map_or(event, |(event, _)| event);
                    said.events.push(event.to_owned());
                }
                None => said.lines.push(settled(line)),
            }
        }
        identities.sort();
        said.lines.append(&mut identities);
        said
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }
}

fn is_told(line: &str) -> bool {
    let of_the_client = ["WATCHER::", "Connecting to ", "Welcome", "JLine", "WARN "];
    !line.is_empty() && !of_the_client.iter().any(|start| line.starts_with(start))
}

/// A line without what differs from run to run.
fn settled(line: &str) -> String {
    if let Some(list) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
        let mut names: Vec<&str> = list.split(", ").collect();
        names.sort_unstable();
        return format!("[{}]", names.join(", "));
    }
    match line.split_once(" = ") {
        Some((name @ ("cZxid" | "mZxid" | "pZxid" | "ctime" | "mtime"), _)) => format!("{name} ="),
        // Of containers and TTL nodes it says what they are.
        Some(("ephemeralOwner", owner))
            if owner != "0x0" && owner.len() < "0x8000000000000000".len() =>
        {
            "ephemeralOwner = a session".to_owned()
        }
        _ => line.to_owned(),
    }
}

fn same(what: &str, theirs: &[String], ours: &[String]) -> Result<()> {
    let at = (0..theirs.len().max(ours.len())).find(|at| theirs.get(*at) != ours.get(*at));
    let Some(at) = at else { return Ok(()) };
    let before = &theirs[at.saturating_sub(3)..at];
    bail!("after {before:?} ZooKeeper has the {what} {:?}, ours {:?}", theirs.get(at), ours.get(at))
}

#[test]
fn zkcli_is_answered_as_by_zookeeper() -> Result<()> {
    let Some(java) = clients::zookeeper_server(&[SUPER, TTL]) else {
        skip("zkCli beside ZooKeeper", "no Java, or Maven could not fetch its jars");
        return Ok(());
    };
    // It outlives the server that writes there.
    let home = Home::new("")?;
    let theirs = ZooKeeper::start(java, &home.0, SAME_SETTINGS)?;
    let ours = Coordinators::start("zkcli", 3, OPEN)?;
    theirs.wait_ready()?;
    let script = fs::read_to_string(client_file("zkcli.txt"))?;
    let expected = zkcli(theirs.address(), &script)?.context("Java was here")?;
    let found = zkcli(&ours.addresses(), &script)?.context("Java was here")?;
    ensure!(
        expected.0.lines.len() > 100 && expected.1.lines.len() > 30 && expected.0.events.len() > 10,
        "the script did not run: {expected:?}"
    );
    for (expected, found) in [(&expected.0, &found.0), (&expected.1, &found.1)] {
        same("line", &expected.lines, &found.lines)?;
        same("event", &expected.events, &found.events)?;
    }
    Ok(())
}

/// Java's client sets all kinds of watches again in one request; of those that stay ZooKeeper tells nothing that they
/// missed, and ours does.
#[test]
fn zkcli_hears_what_its_watches_missed() -> Result<()> {
    let Some(mut java) = clients::zookeeper_cli() else {
        skip("zkCli that comes back", "no Java, or Maven could not fetch its jars");
        return Ok(());
    };
    let mut all = Coordinators::start("zkcli-back", 3, OPEN)?;
    let address = all.address(2);
    let other = |script: &str| zkcli(&address, &format!("{script}\nquit\n"));
    other("create /back\ncreate /back/a\ncreate /back/b")?;
    java.args(["-waitforconnection", "-timeout", "60000", "-server", &all.address(1)]);
    let mut watcher = Talk::start(java)?;
    watcher.say("addWatch -m PERSISTENT_RECURSIVE /back/a\naddWatch -m PERSISTENT /back/b\n")?;
    watcher.say("get -w /back\nversion\n")?;
    watcher.hear(&["ZooKeeper CLI version"])?;
    all.kill(1)?;
    other("set /back 1\ncreate /back/a/x\nset /back/b 1")?;
    all.launch(1)?;
    watcher.hear(&[
        "type:NodeDataChanged path:/back ",
        "type:NodeCreated path:/back/a/x ",
        "type:NodeDataChanged path:/back/b ",
    ])
}

#[test]
fn zkcli_sees_and_changes_the_members() -> Result<()> {
    let all = Coordinators::start("zkcli-config", 3, OPEN)?;
    let server =
        |id| format!("server.{id}={}:0:participant;{}", all.peer_address(id), all.address(id));
    let observer = "server.9=127.0.0.1:9:10:observer;127.0.0.1:11";
    let three: Vec<String> = (1..=3).map(server).collect();
    let script = format!(
        "config\nreconfig -add {observer}\naddauth digest super:test\nconfig -w -s\n\
         reconfig -s -add {observer}\nconfig -c\nreconfig -v 1 -remove 9\nreconfig -remove 9\n\
         reconfig -members {}\nreconfig -remove 1,2\nget /zookeeper/config\nquit\n",
        three.join(",")
    );
    let Some((printed, errors)) = zkcli(&all.addresses(), &script)? else {
        skip("zkCli with members", "no Java, or Maven could not fetch its jars");
        return Ok(());
    };
    let lines = &printed.lines;
    let times = |wanted: &str| lines.iter().filter(|line| line.contains(wanted)).count();
    for line in &three {
        ensure!(times(line) == 6, "{line} is not in each of six configurations: {lines:#?}");
    }
    ensure!(times(observer) == 1, "the observer came once: {lines:#?}");
    // What `config -c` and Curator read out of it is where clients can go.
    let addresses =
        lines.iter().find(|line| line.split_once(' ').is_some_and(|(_, all)| all.contains(":11")));
    let mut addresses: Vec<&str> =
        addresses.into_iter().flat_map(|all| all.split([' ', ','])).skip(1).collect();
    addresses.sort_unstable();
    let mut clients: Vec<String> =
        (1..=3).map(|id| all.address(id)).chain(["127.0.0.1:11".into()]).collect();
    clients.sort_unstable();
    ensure!(addresses == clients, "{addresses:?} are not {clients:?}: {lines:#?}");
    ensure!(printed.events.iter().any(|event| event.ends_with("path:/zookeeper/config")));
    let refused = errors.text() + &printed.text();
    for why in ["Insufficient permission", "Arguments are not valid", "version"] {
        ensure!(refused.contains(why), "{why} was not said:\n{refused}");
    }
    Ok(())
}

#[test]
fn c_client_works() -> Result<()> {
    let Ok(header) = fs::read_to_string(C_HEADER) else {
        skip("ZooKeeper's C client", "libzookeeper-mt-dev is not installed");
        return Ok(());
    };
    if let Some(call) = C_CALLS.iter().find(|call| !header.contains(**call)) {
        skip("ZooKeeper's C client", &format!("the one installed is too old: it lacks {call}"));
        return Ok(());
    }
    if run_quietly("cc").is_none() {
        skip("ZooKeeper's C client", "no C compiler");
        return Ok(());
    }
    let home = Home::new("1")?;
    let program = home.0.join("client");
    let mut compile = Command::new("cc");
    compile.args(["-Wall", "-DTHREADED", "-o"]).arg(&program).arg(client_file("zookeeper.c"));
    compile.args(["-lzookeeper_mt", "-lpthread"]);
    run(compile, "")?;
    let all = Coordinators::start("c-client", 3, OPEN)?;
    let mut client = Command::new(&program);
    client.arg(all.addresses());
    print!("{}", run(client, "")?);
    Ok(())
}

fn run_quietly(program: &str) -> Option<()> {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().ok().filter(|status| status.success()).map(|_| ())
}

#[test]
fn node_zookeeper_client_works() -> Result<()> {
    let Some(mut node) = clients::node("node-zookeeper-client") else {
        skip("node-zookeeper-client", "no Node, or npm could not install it");
        return Ok(());
    };
    let all = Coordinators::start("node-client", 3, OPEN)?;
    node.arg(client_file("zookeeper.js")).arg(all.addresses());
    print!("{}", run(node, "")?);
    Ok(())
}

#[test]
fn rust_crate_zookeeper_client_works() -> Result<()> {
    let program = clients::folder().join("zookeeper-rs/release/zookeeper-rs");
    if !program.exists() {
        skip("the crate zookeeper-client", "scripts/clients could not build it");
        return Ok(());
    }
    let mut all = Coordinators::start("rust-client", 3, OPEN)?;
    let others = format!("{},{}", all.address(2), all.address(3));
    let mut client = Command::new(program);
    client.arg(all.address(1)).arg(others);
    let mut client = Talk::start(client)?;
    client.hear(&["kill"])?;
    all.kill(1)?;
    client.say("done\n")?;
    client.hear(&["start"])?;
    all.launch(1)?;
    client.say("done\n")?;
    client.hear(&["all answered"])?;
    println!("the crate zookeeper-client: all answered");
    Ok(())
}
