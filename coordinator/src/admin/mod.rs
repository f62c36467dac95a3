//! What operators ask for: four-letter words at the client port, commands over HTTP.
//!
//! ```text
//! facts        what a server is told at its start and does not change
//! desk         where words and commands ask, so many at a time
//! known        what is known of a server at one moment
//! sizes        bytes in the data folder
//! environment  the machine and the process
//! monitor      every measure, by ZooKeeper's names
//! text         the writer for words
//! commands     which commands there are, and what each asks for
//! json         the writer for commands
//! ```
//!
//! Called by: `net` (words), `http` (commands). Both writers are given the same [`Known`].

mod commands;
mod desk;
mod environment;
mod facts;
mod json;
mod known;
mod monitor;
mod sizes;
mod text;

pub use commands::{Answer, COMMANDS_PATH, Question, answer, list};
pub use desk::Desk;
pub use facts::Facts;
pub use known::{Connected, Known, Lists, Wanted, mode_name, status};
pub use monitor::{average, gauges};
pub use text::{answer as answer_word, shows_list};

#[cfg(test)]
mod tests;
