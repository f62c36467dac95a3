//! Starts Java servers from the jars that `scripts/clients` fetches by Maven, with their distributions' own
//! heap and collector settings.
//!
//! Called by: `kafka`, `zookeeper`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tests::cluster::process::Process;

use crate::clients;

/// A hang guard for a server's start.
const START_LIMIT: Duration = Duration::from_secs(120);
const COLLECTOR: [&str; 5] = [
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// A Java program: folder of its jars, heap, logging.
pub struct Program {
    /// Folder below the clients' folder.
    pub jars: &'static str,
    /// Heap flags.
    pub heap: &'static [&'static str],
    /// Main class.
    pub class: &'static str,
}

/// Why programs of these jars cannot be started here, if they cannot.
pub fn missing(jars: &str) -> Option<String> {
    let folder = clients::folder().join(jars);
    if !folder.join(".complete").exists() {
        return Some(format!(
            "the jars of {jars} are not in {}; scripts/clients fetches them where Java and Maven are installed",
            folder.display()
        ));
    }
    let asked =
        Command::new("java").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = asked.is_ok_and(|status| status.success());
    (!is_there).then(|| "no java".to_string())
}

impl Program {
    /// Starts it; its output goes to `out.log` in `folder`.
    ///
    /// # Errors
    /// When Java or the jars are not there.
    pub fn start(&self, folder: &Path, arguments: &[&str]) -> Result<Process> {
        let mut all = self.flags()?;
        all.push(self.class.to_string());
        all.extend(arguments.iter().map(ToString::to_string));
        Process::start(Path::new("java"), &all, &folder.join("out.log"))
    }

    /// Runs another class of the same jars to its end.
    ///
    /// # Errors
    /// When it fails; its output is in the error.
    pub fn run(&self, class: &str, arguments: &[&str]) -> Result<()> {
        let output =
            Command::new("java").args(self.flags()?).arg(class).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{class} {arguments:?} failed:\n{text}");
        Ok(())
    }

    fn flags(&self) -> Result<Vec<String>> {
        if let Some(reason) = missing(self.jars) {
            bail!("{reason}");
        }
        let home = clients::folder();
        let mut all: Vec<String> =
            self.heap.iter().chain(&COLLECTOR).map(ToString::to_string).collect();
        let file = |name: &str| home.join(name).display().to_string();
        all.push(format!("-Dlog4j.configuration=file:{}", file("log4j.properties")));
        all.push(format!("-Dlogback.configurationFile={}", file("logback.xml")));
        all.push("-cp".to_string());
        all.push(format!("{}/*", home.join(self.jars).display()));
        Ok(all)
    }
}

/// Waits until `ready` says so.
///
/// # Errors
/// When the process ends first or the hang guard passes; the end of its output is in the error.
pub fn wait_ready(process: Process, folder: &Path, ready: impl Fn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !ready() {
        let alive = process.is_alive();
        if !alive || began.elapsed() > START_LIMIT {
            let text = std::fs::read_to_string(folder.join("out.log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(20)..].join("\n");
            bail!("a Java server was not ready (alive: {alive}):\n{end}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
