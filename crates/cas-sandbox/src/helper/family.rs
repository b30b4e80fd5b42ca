//! The descendants of this process, as the host's `/proc` tells them. Source: proc_pid_stat(5).
//!
//! Whoever forks while it is looked may be missed; those that end are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rustix::process::Pid;

/// A descendant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) process: Pid,
    /// Its process group.
    pub(super) group: Pid,
}

/// All descendants of this process, dead ones that nobody has waited for too.
pub(super) fn descendants() -> Vec<Member> {
    let entries = cas_fs::read_dir(Path::new("/proc")).unwrap_or_default();
    let stats = entries.iter().filter_map(|entry| {
        let process: i32 = entry.name.to_str()?.parse().ok()?;
        let text = cas_fs::read(&Path::new("/proc").join(&entry.name).join("stat")).ok()?;
        member(process, &String::from_utf8_lossy(&text))
    });
    below(rustix::process::getpid().as_raw_pid(), stats.collect())
}

/// A process and its parent, by its line.
fn member(process: i32, stat: &str) -> Option<(i32, Member)> {
    let (parent, group) = parent_and_group(stat)?;
    // Of one that somebody waits for at this moment, the kernel says that its parent is 0 and its group -1.
    let positive = |number: i32| if number > 0 { Pid::from_raw(number) } else { None };
    Some((parent, Member { process: positive(process)?, group: positive(group)? }))
}

/// Of processes with their parents, those below one.
fn below(top: i32, stats: Vec<(i32, Member)>) -> Vec<Member> {
    let mut children: BTreeMap<i32, Vec<Member>> = BTreeMap::new();
    for (parent, member) in stats {
        children.entry(parent).or_default().push(member);
    }
    let (mut found, mut next, mut seen) = (Vec::new(), vec![top], BTreeSet::from([top]));
    while let Some(parent) = next.pop() {
        for member in children.remove(&parent).unwrap_or_default() {
            // Numbers move on while it is looked, so that a circle can be read where none was.
            if seen.insert(member.process.as_raw_pid()) {
                next.push(member.process.as_raw_pid());
                found.push(member);
            }
        }
    }
    found
}

/// Fields 4 and 5. The second one, a name that the process chooses, may have spaces and parentheses.
fn parent_and_group(stat: &str) -> Option<(i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whatever_the_name_of_the_process() {
        assert_eq!(parent_and_group("12 (sh) S 7 9 9 0"), Some((7, 9)));
        assert_eq!(parent_and_group("12 (a) S 1 1 (b) R 7 9 9 0"), Some((7, 9)));
        assert_eq!(parent_and_group("12 (sh"), None);
        assert_eq!(parent_and_group(""), None);
    }

    /// A number that is none ended the helper once, and with it the run.
    #[test]
    fn a_process_that_is_about_to_be_gone_is_left_out() {
        let found = member(12, "12 (sh) S 7 9 9 0").map(|(parent, member)| (parent, member.group.as_raw_pid()));
        assert_eq!(found, Some((7, 9)));
        assert_eq!(member(12, "12 (sh) X 0 -1 -1 0"), None);
        assert_eq!(member(12, "12 (kthreadd) S 0 0 0 0"), None);
    }

    #[test]
    fn descendants_are_those_below_and_circles_end() {
        let member = |number| {
            let number = Pid::from_raw(number).expect("it is positive");
            Member { process: number, group: number }
        };
        let stats =
            vec![(1, member(5)), (5, member(6)), (2, member(7)), (6, member(8)), (8, member(5)), (0, member(1))];
        let mut found: Vec<i32> = below(1, stats).iter().map(|member| member.process.as_raw_pid()).collect();
        found.sort_unstable();
        assert_eq!(found, [5, 6, 8]);
    }
}
