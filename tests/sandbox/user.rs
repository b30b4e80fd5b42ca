//! Root and an ordinary user see the same sandboxes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::{Home, attacks};

/// An ordinary user that exists on every system and owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn everything_holds_for_an_ordinary_user_too() {
    again(&["--skip", "everything_holds_for_an_ordinary_user_too"], &[]);
}

/// `cargo test --test sandbox -- --ignored --nocapture soak`
#[test]
#[ignore = "takes long: races are tried 1,000 times"]
fn attacks_soak_as_an_ordinary_user() {
    if let Some(said) = again(&["attacks::", "--nocapture"], &[("CAS_SOAK", "1")]) {
        eprintln!("{said}");
    }
}

/// Runs tests of this program again as that user, and gives what they said; `None` where this is one already.
fn again(arguments: &[&str], variables: &[(&str, &str)]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("nothing to do: the tests run as an ordinary user already");
        return None;
    }
    let home = Home::new()?;
    // Copies, because the build folder may be out of that user's reach.
    let (program, tests) = (home.directory.join("cas"), home.directory.join("tests"));
    fs::copy(crate::program(), &program).unwrap();
    fs::copy(std::env::current_exe().unwrap(), &tests).unwrap();
    // Compiled by root, because the sources may be out of reach too.
    let attackers = attacks::programs().map(|programs| {
        let copy = home.directory.join("attackers");
        fs::create_dir(&copy).unwrap();
        for name in attacks::NAMES {
            fs::copy(programs.join(name), copy.join(name)).unwrap();
        }
        copy
    });
    let temporary = home.directory.join("temporary");
    fs::create_dir(&temporary).unwrap();
    chown(&temporary, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(&home.directory, fs::Permissions::from_mode(0o755)).unwrap();
    // With subordinate ids, in a mount namespace where the lists of them are these.
    let ranges = home.directory.join("ranges");
    fs::write(&ranges, format!("{NOBODY}:200000:65536\n")).unwrap();
    let lists =
        "for list in /etc/subuid /etc/subgid; do [ ! -e $list ] || mount --bind \"$0\" $list; done; exec \"$@\"";
    // With groups that the sandbox must hide. This one call of the standard library is not stable yet.
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-euc", lists])
        .arg(&ranges)
        .args(["setpriv", &format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--groups=4,24", "--"])
        .arg(&tests)
        .args(["--test-threads", "2"])
        .args(arguments)
        .envs(variables.iter().copied())
        .env("TMPDIR", &temporary)
        .env("CAS_TEST_PROGRAM", &program)
        .envs(attackers.map(|folder| (attacks::PROGRAMS, folder)))
        .current_dir("/")
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains(" passed; 0 failed"), "{stdout}");
    Some(format!("{stderr}\n{stdout}"))
}
