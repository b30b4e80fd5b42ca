//! How much a step may use, and what is said of one that wanted more. Rules: docs/formats/step.md, "Limits".
//!
//! Those that nobody can say are so wide that only a step gone wrong meets them: they are there for the machine.

use cas_config::Command;
use cas_sandbox::{Limit, Limits, MAX_SCRATCH_DEPTH};

use crate::resources::Resources;

/// Processes and threads of a step: four times what container engines give, a quarter of Linux's smallest range of ids.
const PROCESS_COUNT: u64 = 8192;
/// What a step may write, on disk.
const SCRATCH_BYTES: u64 = 64 << 30;
/// How many files and folders it may make.
const SCRATCH_ENTRIES: u64 = 10_000_000;

/// The limits of a step: its memory is what it says, or all that the machine had left when the build began.
pub(crate) fn of(command: &Command, resources: &Resources) -> Limits {
    Limits {
        memory_bytes: command.memory_bytes.or_else(|| resources.memory_bytes()),
        process_count: Some(PROCESS_COUNT),
        scratch_bytes: Some(SCRATCH_BYTES),
        scratch_entries: Some(SCRATCH_ENTRIES),
        enforcement: None,
    }
}

/// What a step did that ran into a limit.
pub(crate) fn told(limit: Limit, limits: &Limits) -> String {
    // A limit that was met is there.
    let number = |value: Option<u64>| value.unwrap_or_default();
    match limit {
        Limit::Memory => {
            let size = size(number(limits.memory_bytes));
            format!("it wanted more than {size} of memory; `memory` of the step says how much it may have")
        }
        Limit::Processes => format!("it had more than {} processes and threads", number(limits.process_count)),
        Limit::ScratchBytes => format!("it wrote more than {}", size(number(limits.scratch_bytes))),
        Limit::ScratchEntries => format!("it made more than {} files and folders", number(limits.scratch_entries)),
        Limit::ScratchDepth => format!("it made more than {MAX_SCRATCH_DEPTH} folders inside of each other"),
    }
}

/// An amount in the unit in which `memory` is given.
fn size(bytes: u64) -> String {
    const UNIT: u64 = 1 << 20;
    if bytes.is_multiple_of(UNIT << 10) {
        format!("{} GiB", bytes / (UNIT << 10))
    } else {
        format!("{} MiB", bytes / UNIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_wanted_too_much_of_is_told_with_the_number() {
        let limits = Limits {
            memory_bytes: Some(512 << 20),
            process_count: Some(7),
            scratch_bytes: Some(2 << 30),
            scratch_entries: Some(9),
            enforcement: None,
        };
        for (limit, expected) in [
            (Limit::Memory, "it wanted more than 512 MiB of memory; `memory` of the step says how much it may have"),
            (Limit::Processes, "it had more than 7 processes and threads"),
            (Limit::ScratchBytes, "it wrote more than 2 GiB"),
            (Limit::ScratchEntries, "it made more than 9 files and folders"),
            (Limit::ScratchDepth, "it made more than 1024 folders inside of each other"),
        ] {
            assert_eq!(told(limit, &limits), expected);
        }
    }
}
