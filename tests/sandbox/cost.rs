//! What a sandbox costs, beside bubblewrap on the same root; not a check.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas_sandbox::{Cancel, Enforcement, Limits, Overlay, Spec, Streams};

use crate::{Home, null, runner};

/// Enough for a stable median.
const ROUNDS: usize = 300;

fn timed(once: impl FnOnce()) -> Duration {
    let started = Instant::now();
    once();
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// `cargo test --test sandbox -- --ignored --nocapture start_up`
#[test]
#[ignore = "a measurement, for docs/adr/0004-sandbox.md"]
fn start_up_of_a_sandbox() {
    let Some(home) = Home::new() else { return };
    let (root, inputs) = (home.root(), home.directory.join("inputs"));
    std::fs::create_dir(&inputs).unwrap();
    let overlay = |lower: &Path, name: &str, round: usize| Overlay {
        lowers: vec![lower.to_owned()],
        scratch: home.directory.join(format!("{name}-{round}")),
    };
    for directory in ["dev", "proc", "src", "tmp"] {
        std::fs::create_dir(root.join(directory)).unwrap();
    }
    let cancel = Cancel::new().unwrap();
    let bwrap = || {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--uid", "1000", "--gid", "1000", "--hostname", "cas", "--die-with-parent"]);
        command.arg("--clearenv").arg("--ro-bind").args([&root, Path::new("/")]);
        command.arg("--bind").args([&inputs, Path::new("/src")]);
        command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/src", "/bin/true"]);
        command.stdin(Stdio::null()).stdout(null()).stderr(null()).status().is_ok_and(|status| status.success())
    };
    let has_peer = bwrap();
    // In turns, so that what else the machine does meets both.
    let wide = Limits {
        memory_bytes: Some(1 << 40),
        process_count: Some(1 << 20),
        scratch_bytes: Some(1 << 40),
        scratch_entries: Some(1 << 30),
        enforcement: None,
    };
    let watched = Limits { enforcement: Some(Enforcement::Watched), ..wide };
    let all = [Limits::default(), wide, watched];
    let (mut cas, mut removal, mut peer) = ([const { Vec::new() }; 3], Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        for (limits, times) in all.iter().zip(&mut cas) {
            times.push(timed(|| {
                let mut spec = Spec::new(overlay(&root, "root", round), ["/bin/true"]);
                spec.source = Some(overlay(&inputs, "source", round));
                spec.limits = *limits;
                runner().run(&spec, Streams::new(null(), null()), &cancel).unwrap();
            }));
            removal.push(timed(|| {
                for name in ["root", "source"] {
                    cas_fs::remove_tree(&home.directory.join(format!("{name}-{round}"))).unwrap();
                }
            }));
        }
        if has_peer {
            peer.push(timed(|| assert!(bwrap())));
        }
    }
    let [plain, held, looked_at] = cas.map(median);
    eprintln!(
        "cas {plain:?}, with limits held by {} {held:?}, watched {looked_at:?}; removal of its scratch folders {:?}; bwrap {}",
        Enforcement::best(),
        median(removal),
        if has_peer { format!("{:?}", median(peer)) } else { "is missing or fails".to_owned() }
    );
}
