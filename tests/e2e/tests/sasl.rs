//! ZooKeeper's own clients prove a password by SASL DIGEST-MD5.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::clients::{self, run, skip};
use e2e::running::programs;

/// A coordinator alone, killed and removed with the value.
struct Coordinator {
    process: Child,
    home: PathBuf,
    address: String,
}

impl Coordinator {
    fn start(name: &str, settings: &[&str]) -> Result<Coordinator> {
        let home = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        fs::create_dir_all(&home)?;
        let users = home.join("users");
        fs::write(&users, "bob:bob's secret\neve:eve's secret\nroot:root's secret\n")?;
        let mut command = Command::new(programs()?.join("coordinator"));
        command.args(["--set", "clientPort=0", "--set"]);
        command.arg(format!("dataDir={}", home.join("data").display()));
        command.arg("--set").arg(format!("saslUsers={}", users.display()));
        for setting in settings {
            command.args(["--set", setting]);
        }
        let log = fs::File::create(home.join("log"))?;
        let mut process = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let out = process.stdout.take().context("no standard output")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.split_whitespace().find_map(|word| word.strip_prefix("client="));
        let address = address.with_context(|| format!("it said {line:?}"))?.to_owned();
        Ok(Coordinator { process, home, address })
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// What Java's clients read their credentials from.
fn write_jaas(home: &Path, password: &str) -> Result<String> {
    let file = home.join("jaas.conf");
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    fs::write(
        &file,
        format!("Client {{ {module} required username=\"bob\" password=\"{password}\"; }};\n"),
    )?;
    Ok(format!("-Djava.security.auth.login.config={}", file.display()))
}

#[test]
fn kazoo_proves_passwords() -> Result<()> {
    let (Some(mut kazoo), Some(_)) = (clients::python("kazoo"), clients::python("puresasl")) else {
        skip("kazoo with SASL", "kazoo or pure-sasl is not installed for Python");
        return Ok(());
    };
    let coordinator = Coordinator::start("sasl-kazoo", &["superUser=root"])?;
    kazoo.arg(format!("{}/clients/kazoo_sasl.py", env!("CARGO_MANIFEST_DIR")));
    kazoo.arg(&coordinator.address);
    print!("{}", run(kazoo, "")?);
    Ok(())
}

#[test]
fn zkcli_proves_its_password_where_nothing_else_is_answered() -> Result<()> {
    let coordinator = Coordinator::start("sasl-java", &["sessionRequireClientSASLAuth=true"])?;
    let cli = |properties: &[&str], command: &str| -> Option<Result<String>> {
        // With FIPS mode on, which it is by default, Java's client has no DIGEST-MD5.
        let properties = [&["-Dzookeeper.fips-mode=false"], properties].concat();
        let mut java = clients::zookeeper_cli_with(&properties)?;
        java.args(["-server", &coordinator.address, command]);
        Some(run(java, ""))
    };
    let right = write_jaas(&coordinator.home, "bob's secret")?;
    let Some(shown) = cli(&[&right], "whoami") else {
        skip("zkCli with SASL", "no Java, or Maven could not fetch its jars");
        return Ok(());
    };
    let shown = shown?;
    ensure!(shown.contains("sasl: bob"), "zkCli printed:\n{shown}");
    let wrong = write_jaas(&coordinator.home, "a guess")?;
    for properties in [&[wrong.as_str()][..], &[]] {
        let outcome = cli(properties, "whoami").context("Java was here")?;
        ensure!(
            !outcome.is_ok_and(|shown| shown.contains("sasl: bob")),
            "{properties:?} was let in"
        );
    }
    Ok(())
}
