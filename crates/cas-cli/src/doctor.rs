//! What this machine has for sandboxes, and the word of those who want less.

use cas_sandbox::{HostCannot, Landlock, Runner, Tier, probe};
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::{open_store, print, text};
use crate::exit::Exit;
use crate::render::{self, Failure};

/// Tells that steps will not have the whole sandbox.
pub(crate) fn note_tier(tier: Tier) {
    match tier {
        Tier::Namespaces => {}
        Tier::Landlock => {
            // Where there is none, the first step says so.
            let lacks = Landlock::of_kernel().map(lacking).unwrap_or_default();
            render::note(&format!(
                "warning: `--sandbox=landlock`: steps run beside all else on this machine, held by less than the sandbox{lacks}"
            ));
        }
        Tier::None => render::note(
            "warning: `--sandbox=none`: steps see and may change all that this user can, and nothing keeps them from the network",
        ),
    }
}

/// What a kernel's Landlock lacks, to be said after something else; empty if it is nothing.
fn lacking(landlock: Landlock) -> String {
    match landlock.not_held().join(", ") {
        all if all.is_empty() => all,
        lacks => format!("; Landlock of this kernel (version {}) does not hold {lacks}", landlock.version),
    }
}

/// Whether the tier that Landlock holds can be had.
fn landlock_row() -> (Value, String) {
    match Landlock::of_kernel() {
        Ok(landlock) => {
            let row = json!({ "check": "landlock", "version": landlock.version, "not_held": landlock.not_held() });
            (
                row,
                format!("`--sandbox=landlock` can be had: Landlock version {}{}", landlock.version, lacking(landlock)),
            )
        }
        Err(cannot) => {
            let row = json!({ "check": "landlock", "obstacle": cannot.to_string(), "hint": cannot.hint() });
            (row, format!("`--sandbox=landlock` cannot be had: {cannot}"))
        }
    }
}

pub(crate) fn doctor(global: &Global) -> Result<Exit, Failure> {
    let store = open_store(global)?;
    let (landlock, landlock_line) = landlock_row();
    match probe(&Runner::this_program(), store.scratch()) {
        Ok(report) => {
            let (held_by, hint) = (report.enforcement.to_string(), report.enforcement.hint());
            let cannot = report.no_many_users.as_ref();
            let (obstacle, way_out) = (cannot.map(ToString::to_string), cannot.and_then(HostCannot::hint));
            let rows = [
                json!({ "check": "sandbox", "kernel": report.kernel, "file_system": report.file_system }),
                json!({ "check": "limits", "held_by": held_by, "hint": hint }),
                json!({ "check": "users", "obstacle": obstacle, "hint": way_out }),
                landlock,
            ];
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            print(global, &rows, |row| match text(&row["check"]) {
                "landlock" => landlock_line.clone(),
                "limits" => format!("limits of memory and processes: {held_by}{hint}"),
                "users" => match (&obstacle, &way_out) {
                    (None, _) => "`configure = true` works: there are many user ids".to_owned(),
                    (Some(obstacle), way_out) => {
                        let way_out = way_out.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
                        format!("`configure = true` does not work: {obstacle}{way_out}")
                    }
                },
                _ => format!("sandbox works: kernel {}, store on {}", report.kernel, report.file_system),
            })?;
            Ok(Exit::Done)
        }
        Err(error) => {
            render::note(&landlock_line);
            Err(error.into())
        }
    }
}
