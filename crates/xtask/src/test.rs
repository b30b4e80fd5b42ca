//! `cargo xtask test`: every test of the workspace, and one line that sums up.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::run::{Failure, cargo};

/// Marks a line by which a test says that it could not run here.
const SKIPPED: &str = "SKIPPED: ";

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    /// What the harness itself left out.
    skipped: u64,
    /// What said so of itself; the harness counts it as passed.
    skipped_by_word: u64,
}

impl Counts {
    /// Takes in a line of the test harness.
    fn read(&mut self, line: &str) {
        if line.starts_with(SKIPPED) {
            self.skipped_by_word += 1;
            return;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(word)) = (words.next(), words.next()) else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// Runs the tests whose names contain `filter`, or all; whether none failed.
pub(crate) fn run(filter: Option<&str>) -> Result<bool, Failure> {
    let mut arguments = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    arguments.extend(filter);
    // Captured output would hide what a test says about being skipped.
    arguments.extend(["--", "--nocapture"]);
    let (success, passed) = run_with(&arguments, &[])?;
    if passed == 0 && filter.is_none() { Err("no test ran".into()) } else { Ok(success) }
}

/// Runs cargo with these arguments and variables and sums up; whether nothing failed, and how many tests passed.
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &OsStr)]) -> Result<(bool, u64), Failure> {
    run_command(cargo(arguments).envs(variables.iter().copied()))
}

/// The same of a command that is cargo.
pub(crate) fn run_command(command: &mut Command) -> Result<(bool, u64), Failure> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let errors = child.stderr.take().expect("it is piped");
    // A test's word of being skipped may come on either stream.
    let errors = std::thread::spawn(move || {
        let mut counts = Counts::default();
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if line.starts_with(SKIPPED) {
                counts.read(&line);
            }
        }
        counts.skipped_by_word
    });
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line?;
        println!("{line}");
        counts.read(&line);
    }
    let skipped_aside = errors.join().map_err(|_| "reading the output of cargo failed")?;
    let success = child.wait()?.success();
    // The harness counted them as passed.
    counts.passed = counts.passed.saturating_sub(counts.skipped_by_word + skipped_aside);
    counts.skipped += counts.skipped_by_word + skipped_aside;
    if !success && counts.failed == 0 {
        return Err("the tests could not be built or ended early".into());
    }
    let skipped = if counts.skipped > 0 { format!(", {} skipped", counts.skipped) } else { String::new() };
    println!("{} passed, {} failed{skipped}", counts.passed, counts.failed);
    Ok((success, counts.passed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_binaries_are_added() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a ... ok",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.25s",
        ] {
            counts.read(line);
        }
        assert_eq!(counts, Counts { passed: 4, failed: 2, skipped: 1, skipped_by_word: 0 });
    }
}
