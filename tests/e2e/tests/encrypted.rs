//! From `tidegate certs init` to an ensemble that takes encrypted connections only, a broker and the operator's command.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::running::programs;
use tests::cluster::HANG_GUARD;
use tests::cluster::ports::claim_ports;

/// The broker's: so long that a busy machine finds the broker's death out by its socket well before.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// In the notice of its death.
const LOST_BROKER: &str = "\"subject\":\"broker 1\"";

/// Processes in one folder; ended and removed with the value.
struct Home {
    path: PathBuf,
    children: Vec<Child>,
}

impl Drop for Home {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("what was there is left in {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Home {
    fn new() -> Result<Home> {
        let path = std::env::temp_dir().join(format!("tidegate-encrypted-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Home { path, children: Vec::new() })
    }

    /// As a person would, with nothing from the environment.
    fn tidegate(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(programs()?.join("tidegate"));
        for name in ["BOOTSTRAP", "COORDINATOR", "CONFIG", "TLS_CA", "TLS_CERT", "TLS_KEY"] {
            command.env_remove(format!("TIDEGATE_{name}"));
        }
        Ok(command.current_dir(&self.path).args(arguments).output()?)
    }

    /// The same, which has to end well.
    fn does(&self, arguments: &[&str]) -> Result<String> {
        let output = self.tidegate(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts a program with a file of settings, and gives what it says first: where it listens.
    fn start(&mut self, program: &str, name: &str, settings: &str) -> Result<String> {
        let file = self.path.join(format!("{name}.toml"));
        fs::write(&file, settings)?;
        let log = fs::File::create(self.log_file(name))?;
        let mut command = Command::new(programs()?.join(program));
        command.current_dir(&self.path).arg("--config").arg(&file).stderr(log);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no output")?;
        self.children.push(child);
        let first = read_lines(out).recv_timeout(HANG_GUARD);
        first.with_context(|| format!("{name} did not start: {}", self.log(name)))
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }
}

fn wait<T>(what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Err(error) if begun.elapsed() > HANG_GUARD => {
                return Err(error.context(what.to_owned()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
            done => return done,
        }
    }
}

fn file_name(path: &Path) -> String {
    path.display().to_string()
}

/// Three coordinators that take and make encrypted links only; where clients reach them.
fn start_coordinators(home: &mut Home) -> Result<String> {
    let ports = claim_ports(6, &home.path)?;
    let servers: Vec<_> = ports
        .chunks_exact(2)
        .zip(1..)
        .map(|(ports, id)| format!("{id} = \"127.0.0.1:{};127.0.0.1:{}\"\n", ports[0], ports[1]))
        .collect();
    for (id, ports) in (1..).zip(ports.chunks_exact(2)) {
        let settings = format!(
            "id = {id}\ndataDir = \"data-{id}\"\nclientPort = {}\nclusterId = \"encrypted\"\npeerSecret = \"theirs\"\n\
             sslQuorum = true\nssl.quorum.keyStore.location = \"certs/one.pem\"\n\
             ssl.quorum.trustStore.location = \"certs/ca.pem\"\nssl.keyStore.location = \"certs/one.pem\"\n\
             ssl.trustStore.location = \"certs/ca.pem\"\nskipACL = \"yes\"\n[server]\n{}",
            ports[1],
            servers.concat()
        );
        home.start("coordinator", &format!("coordinator-{id}"), &settings)?;
    }
    let clients: Vec<_> =
        ports.chunks_exact(2).map(|ports| format!("127.0.0.1:{}", ports[1])).collect();
    Ok(clients.join(","))
}

#[test]
fn ensemble_broker_and_operator_speak_encrypted_only() -> Result<()> {
    let mut home = Home::new()?;
    home.does(&["certs", "init"])?;
    home.does(&["certs", "sign", "one"])?;
    home.does(&["certs", "sign", "broker", "--client"])?;
    home.does(&["certs", "sign", "operator", "--client"])?;
    let coordinators = start_coordinators(&mut home)?;

    let trust = ["--coordinator", &coordinators, "--tls-ca", "certs/ca.pem"];
    let shown = [&trust[..], &["--tls-cert", "certs/operator.pem"]].concat();
    let list = [&["coordinator", "list", "-o", "json"], &shown[..]].concat();
    let members = wait("an ensemble", || {
        let told: serde_json::Value = serde_json::from_str(&home.does(&list)?)?;
        let up = told["members"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|one| one["up"] == true).count());
        ensure!(up == 3 && told["leader"].is_i64(), "{told}");
        Ok(told)
    })?;
    let leader = members["leader"].as_i64().context("a leader")?;
    let to = (leader % 3 + 1).to_string();
    let transfer = [&["coordinator", "transfer", "--to", &to, "-o", "json"], &shown[..]].concat();
    wait("another leader", || home.does(&transfer))?;

    // Without a certificate, with the wrong authority and unencrypted it says what to do.
    let bare = [&["coordinator", "list"], &trust[..]].concat();
    let refused = String::from_utf8(home.tidegate(&bare)?.stderr)?;
    assert!(refused.contains("certs sign NAME --client"), "{refused}");
    home.does(&["certs", "init", "--dir", "other"])?;
    let other =
        ["coordinator", "transfer", "--coordinator", &coordinators, "--tls-ca", "other/ca.pem"];
    let refused = String::from_utf8(home.tidegate(&other)?.stderr)?;
    assert!(refused.contains("hint: name the ca.pem"), "{refused}");
    let plain = ["coordinator", "list", "--coordinator", &coordinators];
    let refused = String::from_utf8(home.tidegate(&plain)?.stderr)?;
    assert!(refused.contains("--tls-ca"), "{refused}");

    let settings = format!(
        "broker.id = 1\nlog.dirs = {:?}\nlisteners = \"PLAINTEXT://127.0.0.1:0,INTERNAL://127.0.0.1:0\"\n\
         http.address = \"127.0.0.1:0\"\noffsets.topic.replication.factor = 1\nzookeeper.connect = \"{coordinators}\"\n\
         zookeeper.session.timeout.ms = {}\nzookeeper.ssl.client.enable = true\nzookeeper.ssl.truststore.location = \"certs/ca.pem\"\n\
         zookeeper.ssl.keystore.location = \"certs/broker.pem\"\n",
        file_name(&home.path.join("logs")),
        SESSION_TIMEOUT.as_millis()
    );
    let said = home.start("broker", "broker", &settings)?;
    let bootstrap = said.split_whitespace().find_map(|word| word.strip_prefix("client="));
    let bootstrap = bootstrap.with_context(|| format!("no address in {said:?}"))?;
    let cluster = [&["--bootstrap", bootstrap], &shown[..]].concat();
    let run = |arguments: &[&str]| home.does(&[arguments, &cluster[..]].concat());
    wait("a topic", || run(&["topic", "create", "orders", "--if-not-exists"]))?;
    let described = run(&["topic", "describe", "orders"])?;
    assert!(described.contains("orders"), "{described}");
    let status = run(&["cluster", "status", "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_str(&status)?;
    assert_eq!(told["controller"], 1, "{told}");
    let role = told["coordinators"][0]["role"].as_str().unwrap_or_default();
    assert!(["leader", "follower"].contains(&role), "{told}");
    dies_at_once(&mut home, &cluster)
}

/// A killed broker is found out by its socket, encrypted or not, and not by its session's time-out.
fn dies_at_once(home: &mut Home, cluster: &[&str]) -> Result<()> {
    let broker = home.children.len() - 1;
    let mut watch = Command::new(programs()?.join("tidegate"));
    watch.current_dir(&home.path).args(["cluster", "watch", "-o", "json"]).args(cluster);
    let mut watch = watch.stdout(Stdio::piped()).spawn()?;
    let out = watch.stdout.take();
    home.children.push(watch);
    let lines = read_lines(out.context("no output")?);
    let first = lines.recv_timeout(HANG_GUARD).context("nothing is watched")?;
    ensure!(first.contains("watching"), "{first}");
    let killed = Instant::now();
    home.children[broker].kill()?;
    while !lines.recv_timeout(HANG_GUARD).context("nothing was told")?.contains(LOST_BROKER) {}
    let took = killed.elapsed();
    assert!(took < SESSION_TIMEOUT / 2, "{took:?}");
    Ok(())
}

/// Line after line of what a process says, so that nobody has to wait for ever for the next one.
fn read_lines(out: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
