//! What is looked at in a virtual machine: rows, each with what has to come out.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Longest that the tests of a row may take, in seconds.
const TESTS_SECONDS: u32 = 1800;

/// A row of each kernel that it is for.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// `root` or `someone`, with `-with-group` where a control group was handed over, with `-in-container` where it is the uppermost
    /// one of a namespace.
    who: &'static str,
    /// A file without which a kernel cannot do this.
    needs: Option<&'static str>,
    check: Check,
}

enum Check {
    /// The test binary `sandbox`, with these arguments; with control groups of version 2 if the program has one.
    Tests(&'static str),
    /// `cas doctor` and a build.
    Cas(Host),
}

/// How `cas` takes a host.
struct Host {
    /// Shell, as root.
    before: &'static str,
    /// Exit code of `cas doctor` and of the build.
    code: i32,
    /// What `cas doctor` prints.
    says: &'static [&'static str],
    mend: Mend,
    /// Shell, as root, in the end.
    after: &'static str,
}

/// What makes the host good, so that both succeed.
enum Mend {
    /// There is nothing to mend, or nothing that mends it.
    Nothing,
    /// The command that `cas` says. `cas doctor` prints this after it.
    Hint(&'static str),
    /// Shell; what `cas` says cannot be done here.
    By(&'static str, &'static str),
}

const GOOD: &str = "sandbox works: kernel";
const MANY: &str = "`configure = true` works";

const fn tests(name: &'static str, who: &'static str, arguments: &'static str) -> Row {
    Row { name, who, needs: None, check: Check::Tests(arguments) }
}

const fn good(name: &'static str, who: &'static str, says: &'static [&'static str]) -> Row {
    let host = Host { before: "", code: 0, says, mend: Mend::Nothing, after: "" };
    Row { name, who, needs: None, check: Check::Cas(host) }
}

/// A host whose limit on the number of user namespaces is reached.
const fn none_left(name: &'static str, who: &'static str) -> Row {
    let host = Host {
        before: "sysctl -q -w user.max_user_namespaces=0",
        code: 6,
        says: &["user namespaces cannot be used: the limit on their number is reached"],
        mend: Mend::Hint(GOOD),
        after: "sysctl -q -w user.max_user_namespaces=63000",
    };
    Row { name, who, needs: None, check: Check::Cas(host) }
}

/// Rows of a kernel that has what a sandbox needs.
pub(super) const ROWS: [Row; 16] = [
    good("host-root", "root", &[GOOD, "cgroup v2", MANY]),
    good("host-root-with-group", "root-with-group", &[GOOD, "cgroup v2", MANY]),
    good("host-root-in-container", "root-in-container", &[GOOD, "cgroup v2", MANY]),
    good(
        "host-someone",
        "someone",
        &[GOOD, "soft, watched; start it with `systemd-run --user --scope -p Delegate=yes", MANY],
    ),
    good("host-someone-with-group", "someone-with-group", &[GOOD, "cgroup v2", MANY]),
    // Ordinary users have rows of their own.
    tests("tests-root", "root", "--skip everything_holds_for_an_ordinary_user_too"),
    tests("tests-someone-with-group", "someone-with-group", ""),
    tests("limits-root-with-group", "root-with-group", "limits::"),
    tests("limits-someone", "someone", "limits::"),
    none_left("no-namespaces-left", "someone"),
    none_left("no-namespaces-left-for-root", "root"),
    Row {
        name: "namespaces-switched-off",
        who: "someone",
        needs: Some("/proc/sys/kernel/unprivileged_userns_clone"),
        check: Check::Cas(Host {
            before: "sysctl -q -w kernel.unprivileged_userns_clone=0",
            code: 6,
            says: &["user namespaces cannot be used: they are switched off for ordinary users"],
            mend: Mend::Hint(GOOD),
            after: "sysctl -q -w kernel.unprivileged_userns_clone=1",
        }),
    },
    Row {
        name: "namespaces-restricted-by-apparmor",
        who: "someone",
        needs: Some("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        check: Check::Cas(Host {
            before: "sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=1",
            code: 6,
            says: &["user namespaces cannot be used: AppArmor restricts them for ordinary users"],
            mend: Mend::Hint(GOOD),
            after: "sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0",
        }),
    },
    Row {
        name: "no-subordinate-ids",
        who: "someone",
        needs: None,
        check: Check::Cas(Host {
            before: "sed -i /^someone:/d /etc/subuid /etc/subgid",
            // Steps need none.
            code: 0,
            says: &[GOOD, "many user ids cannot be had: `/etc/subuid` has no range of 65535 ids for `someone`"],
            mend: Mend::Hint(MANY),
            after: "",
        }),
    },
    Row {
        name: "no-newuidmap",
        who: "someone",
        needs: None,
        check: Check::Cas(Host {
            before: "mv /usr/bin/newuidmap /usr/bin/newuidmap.away",
            code: 0,
            says: &[GOOD, "`newuidmap` and `newgidmap` are missing", "`sudo apt-get install uidmap`"],
            mend: Mend::By("mv /usr/bin/newuidmap.away /usr/bin/newuidmap", MANY),
            after: "",
        }),
    },
    Row {
        name: "store-on-an-overlay",
        who: "root",
        needs: None,
        check: Check::Cas(Host {
            before: "store=/store-on-overlay",
            code: 6,
            says: &["file system `overlay` of `/store-on-overlay", "put the store on ext4, xfs or btrfs"],
            mend: Mend::By("unset store", GOOD),
            after: "unset store",
        }),
    },
];

const fn old(name: &'static str, who: &'static str) -> Row {
    let host = Host {
        before: "",
        code: 6,
        says: &["is too old: sandboxes need Linux 5.12", "use a kernel of Linux 5.12 or later"],
        mend: Mend::Nothing,
        after: "",
    };
    Row { name, who, needs: None, check: Check::Cas(host) }
}

/// Rows of one that has not.
pub(super) const OLD_ROWS: [Row; 2] = [old("host-root", "root"), old("host-someone", "someone")];

/// How a row ended.
pub(super) enum End {
    Passed(String),
    Skipped(String),
    Failed(String),
}

impl Row {
    /// The lines of the guest's script that run it.
    pub(super) fn script(&self) -> String {
        let Self { name, who, .. } = self;
        let mut script = String::new();
        if let Some(file) = self.needs {
            let _ = writeln!(script, "[ -e {file} ] || echo 'the kernel has no {file}' >/out/{name}.skipped");
            let _ = write!(script, "[ ! -e {file} ] || ");
        }
        let _ = match &self.check {
            Check::Tests(arguments) => writeln!(script, "tests {who} {name} {TESTS_SECONDS} {arguments}"),
            Check::Cas(Host { before, mend, after, .. }) => {
                let mend = match mend {
                    Mend::Nothing => "",
                    Mend::Hint(_) => "hint",
                    Mend::By(mend, _) => mend,
                };
                writeln!(
                    script,
                    "{{ cas {who} {name} '{before}' '{mend}'; {}; }}",
                    if after.is_empty() { ":" } else { after }
                )
            }
        };
        script
    }

    /// Compares what the guest left.
    pub(super) fn end(&self, out: &Path) -> End {
        if let Ok(why) = fs::read_to_string(out.join(format!("{}.skipped", self.name))) {
            return End::Skipped(why.trim().to_owned());
        }
        let result = match &self.check {
            Check::Tests(_) => self.tests_end(out),
            Check::Cas(host) => self.host_end(host, out),
        };
        result.map_or_else(End::Failed, End::Passed)
    }

    fn tests_end(&self, out: &Path) -> Result<String, String> {
        let (code, text) = read(out, self.name)?;
        let result = text.lines().find_map(|line| line.strip_prefix("test result: "));
        let result = result.ok_or_else(|| format!("the tests did not come to their end, exit code {code}"))?;
        if code != 0 {
            return Err(result.to_owned());
        }
        // A hierarchy of the other version is never there.
        let skipped: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("SKIPPED: ")).map(|(_, why)| why).collect();
        if self.who.ends_with("-with-group")
            && let Some(why) = skipped.iter().find(|why| why.starts_with("cgroup v2"))
        {
            return Err(format!("a group was handed over, and yet: {why}"));
        }
        let counts = result.trim_start_matches("ok. ").split("; ").take(2).collect::<Vec<_>>().join(", ");
        Ok(format!("{counts}, {} said to be skipped in part", skipped.len()))
    }

    fn host_end(&self, host: &Host, out: &Path) -> Result<String, String> {
        let name = self.name;
        let expect = |row: &str, expected: i32, says: &[&str]| -> Result<String, String> {
            let (code, text) = read(out, row)?;
            if code != expected {
                return Err(format!("{row}: exit code {code}, not {expected}: {text}"));
            }
            match says.iter().find(|say| !text.contains(**say)) {
                Some(say) => Err(format!("{row} does not say \"{say}\": {text}")),
                None => Ok(text),
            }
        };
        let doctor = format!("{name}.doctor");
        let text = expect(&doctor, host.code, host.says)?;
        // A build says the same as the check.
        let says: &[&str] = if host.code == 0 { &[] } else { host.says };
        expect(&format!("{name}.build"), host.code, says)?;
        let says = match host.mend {
            Mend::Nothing if host.code == 0 => return Ok("as expected".to_owned()),
            Mend::Nothing => {
                let cause = text.lines().find_map(|line| line.trim().strip_prefix("cause: "));
                return Ok(format!("told: {}", cause.unwrap_or_default()));
            }
            Mend::Hint(says) => {
                expect(&format!("{name}.mend"), 0, &[])?;
                says
            }
            Mend::By(_, says) => says,
        };
        expect(&format!("{name}.after.doctor"), 0, &[says])?;
        expect(&format!("{name}.after.build"), 0, &[])?;
        Ok("told, and mended".to_owned())
    }
}

/// Exit code and output of a part of a row.
fn read(out: &Path, row: &str) -> Result<(i32, String), String> {
    let code = fs::read_to_string(out.join(format!("{row}.code"))).ok().and_then(|code| code.trim().parse().ok());
    let code = code.ok_or_else(|| format!("{row} did not come to its end"))?;
    let text = fs::read(out.join(format!("{row}.log"))).unwrap_or_default();
    Ok((code, String::from_utf8_lossy(&text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LACK: Row = Row {
        name: "lack",
        who: "someone",
        needs: None,
        check: Check::Cas(Host {
            before: "sysctl -q -w a.b=0",
            code: 6,
            says: &["the limit is reached"],
            mend: Mend::Hint(GOOD),
            after: "",
        }),
    };

    fn end_of(row: &Row, left: &[(&str, i32, &str)]) -> End {
        let out = std::env::temp_dir().join(format!("cas-xtask-vm-{}-{:p}", std::process::id(), left));
        fs::create_dir_all(&out).expect("the temporary folder is writable");
        for (name, code, text) in left {
            fs::write(out.join(format!("{name}.code")), code.to_string()).expect("it is writable");
            fs::write(out.join(format!("{name}.log")), text).expect("it is writable");
        }
        let end = row.end(&out);
        fs::remove_dir_all(&out).expect("it is ours");
        end
    }

    #[test]
    fn a_host_is_judged_by_each_part_of_its_row() {
        let refused = "cause: the limit is reached";
        let whole = [
            ("lack.doctor", 6, refused),
            ("lack.build", 6, refused),
            ("lack.mend", 0, ""),
            ("lack.after.doctor", 0, GOOD),
            ("lack.after.build", 0, ""),
        ];
        assert!(matches!(end_of(&LACK, &whole), End::Passed(_)));
        for (index, worse) in [(0, (1, refused)), (0, (6, "")), (1, (0, "")), (1, (6, "")), (2, (1, "")), (4, (6, ""))]
        {
            let mut left = whole;
            (left[index].1, left[index].2) = worse;
            assert!(matches!(end_of(&LACK, &left), End::Failed(_)), "{left:?}");
        }
        assert!(matches!(end_of(&LACK, &whole[..4]), End::Failed(_)));
    }

    #[test]
    fn tests_in_a_group_may_not_skip_what_the_group_is_for() {
        let skipped = "SKIPPED: cgroup v2 is not there\ntest result: ok. 3 passed; 0 failed; 0 ignored\n";
        let other = skipped.replace("v2", "v1");
        for (who, code, text, passes) in [
            ("someone-with-group", 0, skipped, false),
            ("someone-with-group", 0, other.as_str(), true),
            ("someone", 0, skipped, true),
            ("someone", 101, "test result: FAILED. 3 passed; 1 failed; 0 ignored\n", false),
            ("someone", 124, "running 3 tests\n", false),
        ] {
            let row = tests("tests", who, "");
            assert_eq!(matches!(end_of(&row, &[("tests", code, text)]), End::Passed(_)), passes, "{who} {text}");
        }
    }

    #[test]
    fn the_script_of_the_guest_is_shell() {
        let script = ROWS.iter().chain(&OLD_ROWS).map(Row::script).collect::<String>();
        let whole = format!("{}{script}", include_str!("guest.sh"));
        let parsed = std::process::Command::new("sh").args(["-n", "-c", &whole]).status();
        assert!(parsed.expect("every system has it").success(), "{script}");
    }
}
