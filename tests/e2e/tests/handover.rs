//! `tidegate coordinator check` and the others that the program `coordinator` does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use e2e::coordinators::Coordinators;
use e2e::running::programs;

/// A folder of this test, removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Folder> {
        let path = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(tidegate: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(tidegate);
    command.env("PATH", "").env_remove("TIDEGATE_CONFIG").env_remove("TIDEGATE_COORDINATOR");
    command.args(arguments).output().context("tidegate does not run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One test: the second part writes programs that it executes, and another thread's child could have them open for writing
/// just then (ETXTBSY).
#[test]
fn commands_of_the_coordinator_are_done_by_its_program_or_told_why_not() -> Result<()> {
    commands_are_done_by_the_program()?;
    program_that_is_not_there_or_of_another_version_is_told_of()
}

fn commands_are_done_by_the_program() -> Result<()> {
    let mut all = Coordinators::start("handover", 1, "")?;
    all.kill(1)?;
    let (tidegate, settings) = (programs()?.join("tidegate"), all.settings_file(1));
    let settings = settings.to_str().context("a folder that is no text")?;
    let did = |arguments: &[&str]| run(&tidegate, arguments);

    let checked = did(&["coordinator", "check", "--config", settings, "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_slice(&checked.stdout)?;
    assert!(checked.status.success() && told["sound"] == true, "{checked:?}");
    let before = did(&["-o", "json", "coordinator", "--config", settings, "check"])?;
    assert_eq!(text(&before.stdout), text(&checked.stdout), "{before:?}");
    // What the environment has for commands that ask an ensemble does not count, and is told of.
    let mut exported = Command::new(&tidegate);
    exported.env("PATH", "").env("TIDEGATE_CONFIG", "/none.toml");
    exported.env("TIDEGATE_COORDINATOR", "other:2181");
    let exported = exported.args(["coordinator", "check", "--config", settings, "-o", "json"]);
    let exported = exported.output()?;
    assert_eq!(text(&exported.stdout), text(&checked.stdout), "{exported:?}");
    let note = "TIDEGATE_COORDINATOR, TIDEGATE_CONFIG of the environment does not count";
    assert!(text(&exported.stderr).contains(note), "{exported:?}");
    let table = did(&["coordinator", "check", "--config", settings, "-o", "table"])?;
    assert!(text(&table.stdout).starts_with("sound: "), "{table:?}");

    // The other program's exit codes are what is seen: 1 for damage, 2 for words that it does not know.
    fs::remove_dir_all(all.data_folder(1).join("log"))?;
    let damaged = did(&["coordinator", "check", "--config", settings, "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_slice(&damaged.stdout)?;
    assert!(damaged.status.code() == Some(1) && told["damage"].is_string(), "{damaged:?}");
    assert_eq!(did(&["coordinator", "repair", "--nonsense"])?.status.code(), Some(2));
    let nowhere = did(&["coordinator", "import-zookeeper", "--from", "/nowhere"])?;
    assert!(nowhere.status.code() == Some(1), "{nowhere:?}");

    let help = text(&did(&["coordinator", "--help"])?.stdout);
    for name in ["check", "repair", "snapshot", "restore", "import-zookeeper"] {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(&format!("{name} "))),
            "{help}"
        );
        let own = text(&did(&["coordinator", name, "--help"])?.stdout);
        assert!(own.contains(&format!("Usage: tidegate coordinator {name} ")), "{own}");
    }
    Ok(())
}

fn program_that_is_not_there_or_of_another_version_is_told_of() -> Result<()> {
    let folder = Folder::new("alone")?;
    let tidegate = folder.0.join("tidegate");
    let whole = programs()?.join("tidegate");
    fs::hard_link(&whole, &tidegate).or_else(|_| fs::copy(&whole, &tidegate).map(|_| ()))?;

    let alone = run(&tidegate, &["coordinator", "check", "-o", "json"])?;
    let told: serde_json::Value = serde_json::from_slice(&alone.stdout)?;
    assert_eq!(alone.status.code(), Some(1));
    assert!(told["error"].as_str().is_some_and(|why| why.contains("nor in PATH")), "{told}");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("same build")), "{told}");
    assert!(text(&alone.stderr).contains("hint: "), "{alone:?}");

    let other = folder.0.join("coordinator");
    fs::write(&other, "#!/bin/sh\necho coordinator 9.9.9\n")?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755))?;
    let other = run(&tidegate, &["coordinator", "repair", "--yes"])?;
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    assert!(text(&other.stderr).contains("\"coordinator 9.9.9\""), "{other:?}");
    assert!(text(&other.stderr).contains("hint: put both programs"), "{other:?}");
    assert_eq!(text(&other.stdout), "");
    Ok(())
}
