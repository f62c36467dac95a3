//! What `coordinator repair` says, for people and for programs.
//!
//! Called by: `repair`. Calls: nothing.
//! Invariant: each plan ends in what is to be done next, and no advice leads back to where it came from.
//! Does not know: how things are done.

use std::path::Path;

use coordinator::storage::{Plan, Way};

/// What is said of a plan.
pub struct Said<'a> {
    pub plan: &'a Plan,
    /// Whether the settings name other members.
    pub is_member: bool,
    /// What it has to be told to do it.
    pub flag: &'a str,
    /// Where things were set aside, if it was done.
    pub aside: Option<&'a Path>,
}

/// How a member gets its data back that has nothing left.
const ANEW: [&str; 3] = [
    "keep this server stopped, and see that ALL other members run and one leads (`tidegate coordinator list`)",
    "move leadership once (`tidegate coordinator transfer`, or, where nobody has set a superDigest, a restart of the leader): a \
     leader that was elected before counts on what is lost, and this server would stop again",
    "move dataDir itself elsewhere (`.begun` in it too), start this server without it, and stop no other member until \
     `/ready` says that it is",
];

impl Said<'_> {
    pub fn text(&self) -> String {
        let Said { plan, aside, flag, .. } = self;
        let mut lines = Vec::new();
        lines.extend(plan.damage.iter().map(|damage| format!("damage         {damage}")));
        lines.extend(words(&plan.way, self.is_member));
        match (aside, &plan.way) {
            (_, Way::Nothing) => {}
            (None, Way::Rejoin | Way::Hopeless) => {
                lines.push("changed        nothing".to_owned());
            }
            (Some(aside), _) => {
                lines.push(format!("done           what was there is in {}", aside.display()));
            }
            (None, _) => {
                lines.push(format!("dry run        nothing was changed; to do it: {flag}"));
            }
        }
        lines.extend(self.next().iter().map(|step| format!("next           {step}")));
        lines.join("\n")
    }

    pub fn json(&self) -> String {
        let Said { plan, aside, flag, .. } = self;
        let name = match &plan.way {
            Way::Nothing => "nothing",
            Way::Finish => "finish",
            Way::DropSegments { .. } => "drop_segments",
            Way::Cut { .. } => "cut",
            Way::Refill { .. } => "refill",
            Way::Rejoin => "rejoin",
            Way::Hopeless => "none",
        };
        let mut shown = serde_json::json!({
            "damage": plan.damage,
            "plan": name,
            "needs_flag": flag,
            "done": aside.is_some(),
            "set_aside_in": aside,
            "next": self.next(),
        });
        match &plan.way {
            Way::DropSegments { numbers, snapshot_index } => {
                shown["segments"] = serde_json::json!(numbers);
                shown["snapshot_index"] = serde_json::json!(snapshot_index);
            }
            Way::Cut { image, zxid, lost_to } => {
                shown["kept_to_index"] = serde_json::json!(image.index);
                shown["kept_to_zxid"] = serde_json::json!(format!("{zxid:#x}"));
                shown["lost_to_index_at_least"] =
                    serde_json::json!((*lost_to).max(image.index + 1));
            }
            Way::Refill { hard_state } => {
                shown["term"] = serde_json::json!(hard_state.term);
                shown["vote"] = serde_json::json!(hard_state.vote);
            }
            Way::Nothing | Way::Finish | Way::Rejoin | Way::Hopeless => {}
        }
        shown.to_string()
    }

    fn next(&self) -> Vec<&'static str> {
        match &self.plan.way {
            Way::Nothing => Vec::new(),
            Way::Rejoin => vec![
                "remove this server from the ensemble and add it again with an empty dataDir (`tidegate coordinator remove`, \
                 `add`)",
            ],
            Way::Hopeless if self.is_member => ANEW.to_vec(),
            Way::Hopeless => vec![
                "with a backup: move dataDir itself elsewhere (`.begun` in it too), then `coordinator restore`",
                "without one: all is lost; a start with an empty dataDir begins with nothing",
            ],
            Way::Refill { .. } => vec![
                "see that ALL other members run",
                "move leadership once while this one is stopped (`tidegate coordinator transfer`, or, where nobody has set a \
                 superDigest, a restart of the leader): a leader that was elected before counts on what is lost, and this \
                 server would stop again",
                "start this one, and stop none until `/ready` says that it is. With reconfigEnabled, removing this member and \
                 adding it again with an empty dataDir needs none of that",
            ],
            Way::Cut { .. } => {
                vec!["start the server; its clients begin anew where they saw what is lost"]
            }
            Way::Finish | Way::DropSegments { .. } => {
                vec!["`coordinator check`, then start the server"]
            }
        }
    }
}

fn words(way: &Way, is_member: bool) -> Vec<String> {
    match way {
        Way::Nothing => vec!["sound: there is nothing to repair".to_owned()],
        Way::Finish => vec!["plan           do the last steps of a repair".to_owned()],
        Way::DropSegments { numbers, snapshot_index } => vec![
            format!("plan           set aside log segments {numbers:?}"),
            format!(
                "lost           nothing: the snapshot as of log index {snapshot_index} and the rest of the log have \
                 all of it"
            ),
        ],
        Way::Cut { image, zxid, lost_to } => vec![
            format!("plan           go on with the state as of log index {}, zxid {zxid:#x}", image.index),
            format!(
                "lost           every later write: log entries from {} to {} at least, whatever clients were told",
                image.index + 1,
                (*lost_to).max(image.index + 1)
            ),
        ],
        Way::Refill { hard_state } => vec![
            format!(
                "plan           keep term {} and the vote for {} in it, and get all else from the other members, under a \
                 leader that was elected while this one was stopped",
                hard_state.term, hard_state.vote
            ),
            "lost           nothing that the others have. Until this member has caught up it cannot vouch for what it \
             had acknowledged: ALL other members have to run, with a leader, from its start until it is ready"
                .to_owned(),
        ],
        Way::Rejoin => vec![
            "plan           none here: this server has, or may have, members that its settings do not name".to_owned(),
        ],
        Way::Hopeless if is_member => vec![
            "plan           none here: neither a state nor a term can be read. A member that has nothing left gets \
             everything from the others, as long as they have it; a backup (`coordinator restore`) is for when all \
             members begin with the same"
                .to_owned(),
        ],
        Way::Hopeless => {
            vec!["plan           none: neither a state nor a term can be read".to_owned()]
        }
    }
}
