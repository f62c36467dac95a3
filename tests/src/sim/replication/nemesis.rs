//! What goes wrong: one fault after another, drawn from the seed.
//!
//! Called by: `world`. Calls: `world`'s means of breaking things, `rot`. Invariant: only one machine's disk loses or changes what was durable in
//! a run, so that what two replicas acknowledged is still somewhere.

use broker_core::ids::BrokerId;

use super::world::{Event, World};
use crate::sim::ensemble::schedule::{MS, SECOND, Time};
use crate::sim::fault::Fault;

/// The longest that a process stands still.
const PAUSE_MAX: Time = 120 * SECOND;
/// The longest that a disk does.
const STALL_MAX: Time = 30 * SECOND;
/// What strikes when a process gets there, a disk is asked, or a machine is down.
const TOLD_LATER: [Fault; 9] = [
    Fault::KillWithin,
    Fault::FailSync,
    Fault::DropPages,
    Fault::FullDisk,
    Fault::ReadError,
    Fault::FlipBit,
    Fault::LoseSector,
    Fault::LoseFile,
    Fault::OldDisk,
];

impl World {
    /// Breaks something and plans the next fault.
    pub(super) fn strike(&mut self) {
        self.back_up();
        let every = self.settings.fault_every;
        let next = self.faults.below(2 * every);
        self.schedule.after(next, Event::Nemesis);
        let id = BrokerId::new(1 + i32::try_from(self.faults.below(3)).expect("small"));
        let short = self.faults.chance(1, 2);
        let time = if short { self.faults.below(300 * MS) } else { self.faults.below(8 * SECOND) };
        let (fault, id) = self.choose_fault(id);
        if self.arsenal.is_on(fault) && self.inflict(fault, id, time) {
            self.arsenal.note(fault);
        }
    }

    /// Whether it has struck; some do so later, and tell by themselves.
    fn inflict(&mut self, fault: Fault, id: BrokerId, time: Time) -> bool {
        let runs = self.machines[&id].process.is_some();
        match fault {
            Fault::Kill => self.kill(id, time),
            Fault::KillWithin => self.doom(id),
            Fault::PowerCut => self.cut_power(id, time),
            Fault::PowerCutOfAll => return self.cut_all_power(time),
            Fault::Pause => self.pause(id, time),
            Fault::LongPause => {
                let time = self.faults.below(PAUSE_MAX);
                let end = self.schedule.now() + time;
                self.machines.get_mut(&id).expect("there").long_pause = end;
                self.pause(id, time);
            }
            Fault::Partition => self.isolate(id, time),
            Fault::ExpireSession => self.expire_session(id),
            Fault::ShutDown => self.shut_down(id, time),
            Fault::Wipe => self.wipe(id, time),
            Fault::FailSync | Fault::DropPages => {
                let after = self.faults.below(20);
                let machine = self.machines.get_mut(&id).expect("there");
                machine.suspect |= fault == Fault::DropPages;
                machine.disk.drop_unsynced_at_failure(fault == Fault::DropPages);
                machine.disk.fail_sync_after(after);
            }
            Fault::FullDisk => {
                let bytes = self.faults.below(2_000);
                self.machines[&id].disk.limit_space(Some(bytes));
                self.schedule.after(time, Event::FreeDisk(id));
            }
            Fault::ReadError => {
                self.spoil_reads(id);
                self.schedule.after(time, Event::FreeDisk(id));
            }
            Fault::StallDisk => self.stall_disk(id),
            Fault::FlipBit | Fault::LoseSector | Fault::LoseFile => self.rot(id, fault, time),
            Fault::OldDisk => self.restore(id, time),
            _ => self.cut_link(id, time / 2),
        }
        runs && !TOLD_LATER.contains(&fault)
    }

    fn stall_disk(&mut self, id: BrokerId) {
        let until = self.schedule.now() + self.faults.below(STALL_MAX);
        let machine = self.machines.get_mut(&id).expect("there");
        if let Some(process) = &mut machine.process {
            process.directory.stall(machine.clock.at(until));
            machine.stalled_until = until.max(machine.stalled_until);
        }
    }

    /// What happens next, and to whom.
    fn choose_fault(&mut self, id: BrokerId) -> (Fault, BrokerId) {
        let (power_cuts, wipes) = (self.settings.power_cuts, self.settings.wipes);
        let (disk_errors, rot) = (self.settings.disk_errors, self.settings.rot);
        let fault = match self.faults.below(24) {
            0 | 1 => Fault::Kill,
            6 | 23 => Fault::KillWithin,
            2 | 3 if power_cuts => Fault::PowerCut,
            4 if power_cuts => Fault::PowerCutOfAll,
            5 | 11 => Fault::Pause,
            7 => Fault::Partition,
            8 => Fault::ExpireSession,
            9 => Fault::ShutDown,
            10 if wipes => Fault::Wipe,
            12 if self.faults.chance(1, 8) => Fault::LongPause,
            13 if disk_errors => Fault::FailSync,
            14 if disk_errors => Fault::FullDisk,
            15 if disk_errors => Fault::ReadError,
            16 if disk_errors && self.faults.chance(1, 4) => Fault::StallDisk,
            17 | 18 if rot => Fault::FlipBit,
            19 if rot => Fault::LoseSector,
            20 if rot => Fault::LoseFile,
            21 if rot => Fault::OldDisk,
            22 if rot => Fault::DropPages,
            _ => Fault::ResetLine,
        };
        let loses = matches!(
            fault,
            Fault::Wipe
                | Fault::FlipBit
                | Fault::LoseSector
                | Fault::LoseFile
                | Fault::OldDisk
                | Fault::DropPages
        );
        (fault, if loses { self.lossy } else { id })
    }

    fn cut_all_power(&mut self, time: Time) -> bool {
        let any_runs = self.machines.values().any(|machine| machine.process.is_some());
        for id in 1..=self.settings.brokers {
            let wait = time / 4 + self.faults.below(SECOND);
            self.cut_power(BrokerId::new(id), wait);
        }
        any_runs
    }
}
