//! `tidegate coordinator check` and the others that work on a coordinator's own folder: handed to the program `coordinator`.
//!
//! *Called by* `main`, before the command line is parsed, and `coordinator`. *Calls* the program that lies beside this one, or else
//! is in PATH. What follows the command's name is not looked at but for whether errors are to be JSON; it does not know what
//! such a command takes or does.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use thiserror::Error;

use crate::args::{self, Arguments, CoordinatorCommand, Format, ServerCommand};

const PROGRAM: &str = "coordinator";
/// What such a program calls itself in its help: as it was called by whoever reads that.
const CALLED: &str = "tidegate coordinator";
/// Flags of commands that ask an ensemble, by clap's names, as they are written, and as the environment has them.
const ELSEWHERE: [(&str, &str, &str); 5] = [
    ("coordinator", "--coordinator", "TIDEGATE_COORDINATOR"),
    ("auth", "--auth", "TIDEGATE_COORDINATOR_AUTH"),
    ("tls_ca", "--tls-ca", "TIDEGATE_TLS_CA"),
    ("tls_cert", "--tls-cert", "TIDEGATE_TLS_CERT"),
    ("tls_key", "--tls-key", "TIDEGATE_TLS_KEY"),
];
/// The file of settings: on the command line the coordinator's, in the environment that of commands which ask somebody.
const CONFIG: (&str, &str) = ("config", "TIDEGATE_CONFIG");
/// For a program to say of which version it is.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Of what it says then.
const VERSION_BYTES_MAX: u64 = 256;

/// Why nothing was handed over.
#[derive(Debug, Error)]
pub enum HandoverError {
    /// What was said before means nothing to it: it asks no ensemble.
    #[error("{name} works on this machine's folder or server only: {} is not for it", .flags.join(", "))]
    Elsewhere {
        /// The command.
        name: String,
        /// What was said.
        flags: Vec<&'static str>,
    },
    /// There is no such program.
    #[error("the program `{PROGRAM}`, which does this, is neither beside {} nor in PATH", .0.display())]
    Missing(PathBuf),
    /// It is of another build, or another program of that name.
    #[error("{} says that it is {found:?}, and this is tidegate {}", path.display(), env!("CARGO_PKG_VERSION"))]
    OtherVersion {
        /// Where it is.
        path: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// It does not run.
    #[error("cannot run {}: {why}", path.display())]
    Broken {
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
}

impl HandoverError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Elsewhere { .. } => {
                "run it on the machine of the coordinator that is meant, without these; --config FILE names that one's settings"
            }
            Self::Missing(_) => {
                "these commands work on a coordinator's own machine: run them there, or put the program `coordinator` of the \
                 same build beside `tidegate`"
            }
            Self::OtherVersion { .. } => {
                "put both programs of one build into the same folder; `coordinator` can also be run by itself, with the same \
                 words after it"
            }
            Self::Broken { .. } => "may it be executed by you, and was it built for this machine?",
        }
    }
}

/// A command for the other program.
#[derive(Debug, PartialEq, Eq)]
pub struct Handover {
    /// Its name and what follows, for the program.
    pub words: Vec<OsString>,
    /// Whether errors are told as JSON, too.
    pub format: Format,
    /// Flags that say where an ensemble is, and how to speak to it: nobody is to believe that they were heeded.
    pub elsewhere: Vec<&'static str>,
    /// What the environment has of that kind, for other commands: it is not heeded, and told of.
    pub unheeded: Vec<&'static str>,
}

impl Handover {
    /// Whether a whole command line is such a command. What stands before the command's name is taken apart here; all that
    /// follows it is the program's.
    pub fn asked(line: &[OsString]) -> Option<Handover> {
        let names = args::server_commands();
        let is_name = |word: &OsStr| names.iter().any(|name| word == name.as_str());
        let ends = line.iter().enumerate().filter(|(_, word)| is_name(word)).map(|(at, _)| at);
        for end in ends {
            // Whether it is the command's name, or the value of a flag, only the parser knows.
            let begin = line.get(..=end)?;
            let Ok(matches) = Arguments::command().try_get_matches_from(begin) else { continue };
            let parsed = Arguments::from_arg_matches(&matches).ok()?;
            let args::Command::Coordinator(asked) = parsed.command else { continue };
            if let CoordinatorCommand::OfServer(command) = asked.command {
                let rest = line.get(end + 1..).unwrap_or_default();
                let own = innermost(&matches);
                let handover = Self::of(command, flags(own), parsed.output, rest);
                return Some(Self {
                    elsewhere: elsewhere(own),
                    unheeded: unheeded(own),
                    ..handover
                });
            }
        }
        None
    }

    /// `command` without anything else said.
    pub fn bare(command: ServerCommand, format: Format) -> Handover {
        Self::of(command, Vec::new(), format, &[])
    }

    fn of(
        command: ServerCommand,
        mut flags: Vec<OsString>,
        format: Format,
        rest: &[OsString],
    ) -> Handover {
        // Only where it was asked for: all the words' own flags come later and count more.
        if format == Format::Json && !says_output(rest) {
            flags.extend(["--output", "json"].map(OsString::from));
        }
        let format = if says_json(rest) { Format::Json } else { format };
        let words = [vec![command.name().into()], flags, rest.to_vec()].concat();
        Handover { words, format, elsewhere: Vec::new(), unheeded: Vec::new() }
    }

    /// Becomes the other program. Returns only with an error.
    ///
    /// # Errors
    /// When there is none, or none of this version, or an ensemble was named that it would not ask.
    pub fn run(&self) -> Result<std::process::ExitCode, HandoverError> {
        if !self.elsewhere.is_empty() {
            let name = self.words.first().map(|name| name.to_string_lossy().into_owned());
            let (name, flags) = (name.unwrap_or_default(), self.elsewhere.clone());
            return Err(HandoverError::Elsewhere { name, flags });
        }
        let path = find()?;
        let broken = |why| HandoverError::Broken { path: path.clone(), why };
        let found = version(&path).map_err(broken)?;
        if found != format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")) {
            return Err(HandoverError::OtherVersion { path, found });
        }
        if let Some(note) = self.note() {
            eprintln!("{note}");
        }
        let mut command = Command::new(&path);
        command.args(&self.words);
        become_it(command).map_err(broken)
    }
}

impl Handover {
    /// What is said of the environment before the other program says anything; nothing to who wants help only.
    fn note(&self) -> Option<String> {
        let asks_help = |word: &OsString| word == "--help" || word == "-h" || word == "--version";
        if self.unheeded.is_empty() || self.words.iter().any(asks_help) {
            return None;
        }
        let name = self.words.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let names = self.unheeded.join(", ");
        Some(format!(
            "note: {name} works on this machine's folder or server only, as its --config FILE names it: {names} of the environment \
             does not count"
        ))
    }
}

/// Replaces this process, so that signals, exit code and terminal are the other's.
#[cfg(unix)]
fn become_it(mut command: Command) -> std::io::Result<std::process::ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.arg0(CALLED).exec())
}

/// Waits for the other one, and ends as it does.
#[cfg(not(unix))]
fn become_it(mut command: Command) -> std::io::Result<std::process::ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(std::process::ExitCode::FAILURE, std::process::ExitCode::from))
}

/// What was said before the command's name and means something to the other program: the file of settings, which of a command
/// that asks no cluster can only be the coordinator's.
fn flags(own: &ArgMatches) -> Vec<OsString> {
    let file = own.get_one::<PathBuf>(CONFIG.0).filter(|_| is_said(own, CONFIG.0));
    file.map_or_else(Vec::new, |file| vec!["--config".into(), file.into()])
}

/// What was said before the command's name and names an ensemble, or how to speak to it.
fn elsewhere(own: &ArgMatches) -> Vec<&'static str> {
    let said = ELSEWHERE.iter().filter(|(id, _, _)| is_said(own, id));
    said.map(|(_, flag, _)| *flag).collect()
}

/// The same of the environment, which may have it for others, and the file that it names.
fn unheeded(own: &ArgMatches) -> Vec<&'static str> {
    let names = ELSEWHERE.iter().map(|(id, _, name)| (*id, *name)).chain([CONFIG]);
    let from_there = |id: &str| own.value_source(id) == Some(ValueSource::EnvVariable);
    names.filter(|(id, _)| from_there(id)).map(|(_, name)| name).collect()
}

fn is_said(own: &ArgMatches, id: &str) -> bool {
    own.value_source(id) == Some(ValueSource::CommandLine)
}

/// The last command's, which have all flags that stood before.
fn innermost(matches: &ArgMatches) -> &ArgMatches {
    let mut own = matches;
    while let Some((_, deeper)) = own.subcommand() {
        own = deeper;
    }
    own
}

fn says_output(words: &[OsString]) -> bool {
    words.iter().filter_map(|word| word.to_str()).any(|word| {
        word.starts_with("--output") || (word.starts_with("-o") && !word.starts_with("--"))
    })
}

fn says_json(words: &[OsString]) -> bool {
    let words: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
    words.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
        || words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
}

/// Beside this program, or else in PATH.
fn find() -> Result<PathBuf, HandoverError> {
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tidegate"));
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = own.parent().map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    // A folder that is named relative to where one happens to be is nobody's intention, and not safe.
    let found = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(&name));
    found.into_iter().find(|path| path.is_file()).ok_or(HandoverError::Missing(own))
}

/// What the program says that it is.
fn version(path: &Path) -> std::io::Result<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let Some(out) = child.stdout.take() else { return Ok(String::new()) };
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = out.take(VERSION_BYTES_MAX).read_to_end(&mut text);
        // Nobody waits any more when it took too long.
        let _ = sender.send(read.map(|_| String::from_utf8_lossy(&text).trim().to_owned()));
    });
    let said = receiver.recv_timeout(VERSION_TIMEOUT);
    // Whatever it does now, it has said what was asked, or will not. It may be gone already.
    let _ = child.kill();
    child.wait()?;
    said.unwrap_or_else(|_| Ok(String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_follows_the_name_is_handed_over_untouched() {
        let check = |said: &str, expected: Option<(&str, Format)>| {
            let handover = Handover::asked(&line(said));
            let expected = expected.map(|(words, format)| Handover {
                words: line(words),
                format,
                elsewhere: Vec::new(),
                unheeded: Vec::new(),
            });
            let handover = handover.map(|found| Handover { unheeded: Vec::new(), ..found });
            assert_eq!(handover, expected, "{said}");
        };
        let (table, json) = (Format::Table, Format::Json);
        check("tidegate coordinator check", Some(("check", table)));
        check(
            "tidegate coordinator repair --config a.toml --set id=2 --yes",
            Some(("repair --config a.toml --set id=2 --yes", table)),
        );
        check("tidegate coordinator check --help", Some(("check --help", table)));
        check("tidegate coordinator check -o json", Some(("check -o json", json)));
        check("tidegate coordinator check -o text", Some(("check -o text", table)));
        check("tidegate -o json coordinator check", Some(("check --output json", json)));
        check("tidegate -o json coordinator check -o text", Some(("check -o text", json)));
        check(
            "tidegate coordinator --config a.toml snapshot --http b",
            Some(("snapshot --config a.toml --http b", table)),
        );
        check(
            "tidegate -b check coordinator import-zookeeper --from repair",
            Some(("import-zookeeper --from repair", table)),
        );
        check("tidegate coordinator list", None);
        check("tidegate coordinator list check", None);
        check("tidegate topic create check", None);
        check("tidegate coordinator help check", None);
    }

    #[test]
    fn ensemble_that_would_not_be_asked_is_refused() {
        let refused = |said: &str| match Handover::asked(&line(said)).unwrap().run() {
            Err(error @ HandoverError::Elsewhere { .. }) => error.to_string(),
            other => panic!("{said}: {other:?}"),
        };
        assert_eq!(
            refused("tidegate --coordinator other:2181 coordinator snapshot"),
            "snapshot works on this machine's folder or server only: --coordinator is not for it"
        );
        let many =
            "tidegate coordinator --tls-ca a --tls-cert b --tls-key c --auth digest:a:b check";
        let told = refused(many);
        assert!(told.contains("--auth, --tls-ca, --tls-cert, --tls-key is"), "{told}");
    }

    #[test]
    fn environment_that_does_not_count_is_told_but_to_who_asks_for_help() {
        let note = |words: &str, unheeded: &[&'static str]| {
            let unheeded = unheeded.to_vec();
            Handover { words: line(words), format: Format::Table, elsewhere: Vec::new(), unheeded }
                .note()
        };
        let told = note("check", &["TIDEGATE_COORDINATOR", "TIDEGATE_CONFIG"]).unwrap();
        assert!(told.contains("TIDEGATE_COORDINATOR, TIDEGATE_CONFIG of the env"), "{told}");
        assert_eq!(note("check", &[]), None);
        assert_eq!(note("check --help", &["TIDEGATE_CONFIG"]), None);
    }

    #[test]
    fn each_error_says_what_to_do() {
        let path = || PathBuf::from("/x/coordinator");
        let other = HandoverError::OtherVersion { path: path(), found: "coordinator 9".to_owned() };
        assert!(other.to_string().contains("9") && other.hint().contains("one build"));
        let missing = HandoverError::Missing(path());
        assert!(missing.to_string().contains("PATH") && missing.hint().contains("same build"));
    }
}
