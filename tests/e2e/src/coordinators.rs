//! Coordinators alone, each with settings of its own: started, killed and removed with the value.
//!
//! Called by: tests of the ensemble itself. It does not know brokers.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tests::cluster::HANG_GUARD;
use tests::cluster::ports::claim_ports;

use crate::running::{programs, tidegate};
use crate::zookeeper::four_letters;

/// The operator of these ensembles; its digest stands in their settings.
pub const OPERATOR: &str = "digest:super:test";
const SUPER_DIGEST: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// One process and where it is.
struct One {
    client_port: u16,
    peer_port: u16,
    process: Option<Child>,
}

/// Some coordinators in one folder.
pub struct Coordinators {
    home: PathBuf,
    ones: Vec<One>,
    settings: String,
}

impl Coordinators {
    /// Starts `size` members that know one another, with `settings` in each file, and waits until one leads.
    ///
    /// # Errors
    /// When that does not come to be.
    pub fn start(name: &str, size: usize, settings: &str) -> Result<Coordinators> {
        let home = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        fs::create_dir_all(&home)?;
        let mut all = Coordinators { home, ones: Vec::new(), settings: settings.to_owned() };
        all.add_places(size)?;
        let members: Vec<usize> = (1..=size).collect();
        for id in 1..=size {
            all.write_settings(id, &members)?;
            all.launch(id)?;
        }
        all.wait("a leader", |all| all.leader().is_some())?;
        Ok(all)
    }

    /// Room for more members, which are not started.
    ///
    /// # Errors
    /// When the machine has no ports left.
    pub fn add_places(&mut self, count: usize) -> Result<()> {
        for ports in claim_ports(count * 2, &self.home)?.chunks_exact(2) {
            let one = One { client_port: ports[0], peer_port: ports[1], process: None };
            self.ones.push(one);
        }
        Ok(())
    }

    /// Writes the settings of member `id`, which are to name `members`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_settings(&self, id: usize, members: &[usize]) -> Result<()> {
        let mut text = format!(
            "id = {id}\ndataDir = \"{}\"\nclientPort = {}\nclusterId = \"coordinators\"\npeerSecret = \"theirs\"\n\
             DigestAuthenticationProvider.superDigest = \"{SUPER_DIGEST}\"\n{}\n[server]\n",
            self.data_folder(id).display(),
            self.ones[id - 1].client_port,
            self.settings,
        );
        for member in members {
            let client = self.address(*member);
            let peer = self.peer_address(*member);
            text.push_str(&format!("{member} = \"{peer};{client}\"\n"));
        }
        Ok(fs::write(self.settings_file(id), text)?)
    }

    /// What files that are written from now on say.
    pub fn set_settings(&mut self, settings: &str) {
        self.settings = settings.to_owned();
    }

    /// Starts the process of member `id`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, id: usize) -> Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file(id))?;
        let mut command = Command::new(programs()?.join("coordinator"));
        command.arg("--config").arg(self.settings_file(id));
        command.stdout(log.try_clone()?).stderr(log);
        self.ones[id - 1].process = Some(command.spawn()?);
        Ok(())
    }

    /// Kills the process of member `id` with -9.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, id: usize) -> Result<()> {
        if let Some(mut process) = self.ones[id - 1].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Removes the data of member `id`, which must not run.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn wipe(&self, id: usize) -> Result<()> {
        Ok(fs::remove_dir_all(self.data_folder(id))?)
    }

    /// Where member `id` has its data.
    pub fn data_folder(&self, id: usize) -> PathBuf {
        self.home.join(format!("data-{id}"))
    }

    /// Where the settings of member `id` are.
    pub fn settings_file(&self, id: usize) -> PathBuf {
        self.home.join(format!("{id}.toml"))
    }

    /// Waits until the process of member `id` ends by itself.
    ///
    /// # Errors
    /// When it goes on for a long time.
    pub fn await_end(&mut self, id: usize) -> Result<()> {
        let begun = Instant::now();
        while let Some(process) = &mut self.ones[id - 1].process {
            if process.try_wait()?.is_some() {
                self.ones[id - 1].process = None;
            }
            ensure!(begun.elapsed() < HANG_GUARD, "member {id} goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What member `id` has logged.
    pub fn log(&self, id: usize) -> String {
        fs::read_to_string(self.log_file(id)).unwrap_or_default()
    }

    fn log_file(&self, id: usize) -> PathBuf {
        self.home.join(format!("{id}.log"))
    }

    /// Where clients reach member `id`.
    pub fn address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.ones[id - 1].client_port)
    }

    /// Where members reach member `id`.
    pub fn peer_address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.ones[id - 1].peer_port)
    }

    /// Where clients reach all.
    pub fn addresses(&self) -> String {
        let all: Vec<_> = (1..=self.ones.len()).map(|id| self.address(id)).collect();
        all.join(",")
    }

    /// What member `id` says of its part, in ZooKeeper's words.
    pub fn role(&self, id: usize) -> Option<String> {
        let answer = four_letters(&self.address(id), "srvr", HANG_GUARD)?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.to_owned())
    }

    /// Which member leads.
    pub fn leader(&self) -> Option<usize> {
        let leads = |id: &usize| matches!(self.role(*id).as_deref(), Some("leader" | "standalone"));
        (1..=self.ones.len()).find(leads)
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it is not for a long time.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self) {
            if begun.elapsed() > HANG_GUARD {
                let logs: Vec<_> = (1..=self.ones.len()).map(|id| self.log(id)).collect();
                bail!("no {what} in time; logs:\n{}", logs.join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Runs `tidegate coordinator` as the operator.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn command(&self, at: &str, arguments: &[&str]) -> Result<Output> {
        // There are no brokers; nothing here asks one.
        let mut command = tidegate("127.0.0.1:9", at)?;
        command.env("TIDEGATE_COORDINATOR_AUTH", OPERATOR);
        Ok(command.arg("coordinator").args(arguments).output()?)
    }

    /// Runs `tidegate coordinator ... -o json`, which must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn json(&self, at: &str, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.command(at, &[arguments, &["-o", "json"]].concat())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).context(said)
    }
}

impl Drop for Coordinators {
    fn drop(&mut self) {
        for id in 1..=self.ones.len() {
            let _ = self.kill(id);
        }
        if std::thread::panicking() {
            eprintln!("the ensemble is left in {}", self.home.display());
        } else {
            let _ = fs::remove_dir_all(&self.home);
        }
    }
}
