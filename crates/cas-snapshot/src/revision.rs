//! The files of the workspace as a revision of git has them: which, with what content, and which of them git takes to be
//! what the working tree has.
//!
//! This is the one place that runs `git`: objects can be packed, borrowed and replaced in ways that only it knows. It is asked
//! for listings and contents alone, and told to run nothing, to lock nothing and to fetch nothing. What it prints is bounded
//! and checked. Rules: docs/formats/affected.md.
//!
//! Not here: a snapshot of a revision (`revised`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Snapshot;
use crate::git::Repository;
use crate::walk::{NEVER, join};

/// Longest listing that is read: that of a million files takes 120 MiB.
const MAX_LISTING_BYTES: u64 = 1 << 30;
/// How much of a complaint is shown.
const MAX_COMPLAINT_BYTES: u64 = 4 << 10;
/// Longest line before an object: its name, kind and size.
const MAX_HEAD_BYTES: u64 = 256;
/// Variables that `git` gets: where programs are, and whose configuration it reads.
const VARIABLES: [&str; 4] = ["PATH", "HOME", "XDG_CONFIG_HOME", "TMPDIR"];
/// Settings that make `git` run something, or take something for unchanged that it did not look at.
const SETTINGS: [&str; 8] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.untrackedCache=false",
    "core.fileMode=true",
    "core.trustctime=true",
    "core.checkStat=default",
    "core.ignoreStat=false",
    "diff.autoRefreshIndex=true",
];

/// Why a revision could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RevisionError {
    /// The workspace is in no repository.
    #[error("`{}` is in no git repository", root.display())]
    NoRepository {
        /// The workspace.
        root: PathBuf,
    },
    /// `git` could not be started.
    #[error("could not run `git`")]
    Program(#[source] io::Error),
    /// The repository has no such revision.
    #[error("`{revision}` is no revision of this repository")]
    Unknown {
        /// What was asked for.
        revision: String,
        /// Whether the repository has a part of the history only.
        is_shallow: bool,
    },
    /// `git` said no.
    #[error("`git {command}` failed in `{}`: {complaint}", folder.display())]
    Failed {
        /// What it was to do.
        command: &'static str,
        /// Where.
        folder: PathBuf,
        /// What it said.
        complaint: String,
    },
    /// `git` printed something else than its manual says, or more than is read.
    #[error("`git {command}` printed what makes no sense here: {problem}")]
    Output {
        /// What it was to do.
        command: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `git` means another working tree than the folder that holds the workspace.
    #[error("git takes `{}` for the top of the working tree, not `{}`", theirs.display(), ours.display())]
    OtherTop {
        /// What it says.
        theirs: PathBuf,
        /// Where `.git` is.
        ours: PathBuf,
    },
}

impl RevisionError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRepository { .. } => "revisions are those of git: `git init`, and commit what there is".to_owned(),
            Self::Program(_) => "install git: revisions are read with it".to_owned(),
            Self::Unknown { is_shallow: true, revision } => format!(
                "the clone is shallow: `git fetch --unshallow`, or `git fetch --depth=1 origin {revision}` for this one alone"
            ),
            Self::Unknown { is_shallow: false, .. } => {
                "name a commit, a branch or a tag; `git fetch` brings those of others".to_owned()
            }
            Self::OtherTop { .. } => "unset `core.worktree`".to_owned(),
            Self::Failed { .. } | Self::Output { .. } => return None,
        })
    }
}

/// What a path of a revision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    File { is_executable: bool },
    Symlink,
    Folder,
    Submodule,
}

/// A path of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mode: Mode,
    /// Name of the object, in hexadecimal.
    pub(crate) id: String,
    /// Which repository has it.
    repository: usize,
}

/// What git says of a path that is not the same in the working tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// It is another one.
    Changed,
    /// It may be another one: the contents tell.
    Open,
}

/// The files of the workspace as a revision of git has them. Paths are from the workspace's root on.
#[derive(Debug)]
pub struct Revision {
    name: String,
    commit: String,
    /// Folders of the working trees with repositories of their own, the workspace's root first.
    repositories: Vec<PathBuf>,
    variables: BTreeMap<String, String>,
    pub(crate) entries: BTreeMap<Vec<u8>, Entry>,
    /// Paths that may differ from the working tree.
    pub(crate) doubts: BTreeMap<Vec<u8>, Doubt>,
    /// Paths that the working tree may lack because its checkout is sparse.
    sparse: BTreeSet<Vec<u8>>,
    root: PathBuf,
    /// Submodules of the revision whose files at that revision nobody here has, with the commit's name.
    pub(crate) lost: Vec<(Vec<u8>, String)>,
}

impl Revision {
    /// Reads what a revision has of the workspace of a snapshot, and compares it with the working tree.
    ///
    /// `variables` are those of whoever asks; `git` gets a few of them.
    ///
    /// # Errors
    ///
    /// [`RevisionError`]
    pub fn open(snapshot: &Snapshot, name: &str, variables: &BTreeMap<String, String>) -> Result<Self, RevisionError> {
        let root = &snapshot.root.path;
        let top = snapshot.tracked.top_folder().ok_or_else(|| RevisionError::NoRepository { root: root.clone() })?;
        let git = Git { folder: root, variables };
        let commit = git.resolve(name, Some(top))?;
        let mut revision = Self {
            name: name.to_owned(),
            commit: commit.clone(),
            repositories: Vec::new(),
            variables: variables.clone(),
            entries: BTreeMap::new(),
            doubts: BTreeMap::new(),
            sparse: BTreeSet::new(),
            root: root.clone(),
            lost: Vec::new(),
        };
        let mut open = vec![(Vec::new(), commit)];
        while let Some((folder, commit)) = open.pop() {
            open.extend(revision.add(snapshot, folder, &commit)?);
        }
        for (path, is_skipped) in snapshot.tracked.repositories().flat_map(Repository::flagged) {
            if is_skipped {
                revision.sparse.insert(path.clone());
            }
            revision.doubts.entry(path).or_insert(Doubt::Open);
        }
        Ok(revision)
    }

    /// What was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the commit.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Takes up the files of a repository whose working tree has its top, or the workspace, in `folder`. Returns the
    /// submodules that are to be looked at.
    fn add(
        &mut self,
        snapshot: &Snapshot,
        folder: Vec<u8>,
        commit: &str,
    ) -> Result<Vec<(Vec<u8>, String)>, RevisionError> {
        let at = snapshot.root.at(&folder);
        let git = Git { folder: &at, variables: &self.variables };
        // The top's commit was looked for already.
        if !folder.is_empty() && git.resolve(commit, None).is_err() {
            self.lost.push((folder, commit.to_owned()));
            return Ok(Vec::new());
        }
        let (listing, changes) = std::thread::scope(|scope| {
            let changes = scope.spawn(|| {
                git.print(
                    "diff",
                    &[
                        "--name-status",
                        "-z",
                        "--no-renames",
                        "-O/dev/null",
                        "--no-ext-diff",
                        "--no-textconv",
                        "--no-color",
                        "--ignore-submodules=all",
                        "--relative",
                        commit,
                        "--",
                    ],
                )
            });
            let listing = git.print("ls-tree", &["-r", "-t", "-z", commit]);
            (listing, changes.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let repository = self.repositories.len();
        let mut submodules = Vec::new();
        for (path, entry) in parse_listing(&listing?, repository)? {
            let path = join(&folder, &path);
            if entry.mode == Mode::Submodule {
                match snapshot.tracked.is_submodule(&path) {
                    true => submodules.push((path.clone(), entry.id.clone())),
                    false if snapshot.is_gap(&path) => {}
                    false => self.lost.push((path.clone(), entry.id.clone())),
                }
            }
            self.entries.insert(path, entry);
        }
        for (path, doubt) in parse_changes(&changes?)? {
            self.doubts.insert(join(&folder, &path), doubt);
        }
        self.repositories.push(at);
        Ok(submodules)
    }

    /// Whether a path is a file or link that can belong to a package, or describes the build.
    pub(crate) fn is_file(&self, path: &[u8]) -> bool {
        self.entries.get(path).is_some_and(|entry| matches!(entry.mode, Mode::File { .. } | Mode::Symlink))
    }

    /// The folders that have a file of this name, in order; the workspace's root is empty.
    pub fn folders_with<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.entries.iter().filter(|(_, entry)| matches!(entry.mode, Mode::File { .. })).filter_map(move |(path, _)| {
            let rest = path.strip_suffix(name.as_bytes())?;
            let folder = if rest.is_empty() { rest } else { rest.strip_suffix(b"/")? };
            (!self.is_left_out(path)).then_some(folder)
        })
    }

    /// Whether the revision has a file at a path, and whether that may be another one than in the working tree. `None` for
    /// what is no file, and for what a sparse checkout leaves out: the working tree has nothing to compare it with.
    #[must_use]
    pub fn differs(&self, path: &[u8]) -> Option<bool> {
        let entry = self.entries.get(path)?;
        let is_file = matches!(entry.mode, Mode::File { .. }) && !self.is_left_out(path);
        is_file.then(|| self.doubts.contains_key(path))
    }

    fn is_left_out(&self, path: &[u8]) -> bool {
        let is_sparse = !self.sparse.is_empty() && ancestors(path).any(|above| self.sparse.contains(above));
        // It may be there in spite of the flag.
        is_sparse && cas_fs::symlink_metadata(&self.root.join(OsStr::from_bytes(path))).is_err()
    }

    /// The contents of files of the revision, each in the place of its path; `None` for one that nobody here has.
    ///
    /// # Errors
    ///
    /// [`RevisionError`], for a file longer than `limit_bytes`, too.
    pub fn contents(&self, paths: &[Vec<u8>], limit_bytes: u64) -> Result<Vec<Option<Vec<u8>>>, RevisionError> {
        let mut contents = vec![None; paths.len()];
        self.each(paths, &mut |index, size, content| {
            if size > limit_bytes {
                return Err(RevisionError::Output { command: "cat-file", problem: "a file is too long" });
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(RevisionError::Program)?;
            contents[index] = Some(bytes);
            Ok(())
        })?;
        Ok(contents)
    }

    /// Calls `with` for each path whose content is here: its number, its size, and the content.
    pub(crate) fn each<E: From<RevisionError>>(&self, paths: &[Vec<u8>], with: &mut WithBlob<'_, E>) -> Result<(), E> {
        for (number, folder) in self.repositories.iter().enumerate() {
            let of = |(index, path): (usize, &Vec<u8>)| {
                let entry = self.entries.get(path).filter(|entry| entry.repository == number)?;
                Some((index, entry.id.as_str()))
            };
            let wanted: Vec<(usize, &str)> = paths.iter().enumerate().filter_map(of).collect();
            if !wanted.is_empty() {
                Git { folder, variables: &self.variables }.blobs(&wanted, with)?;
            }
        }
        Ok(())
    }
}

/// What is done with a blob: the number of its path, its size, and its content.
type WithBlob<'a, E> = dyn FnMut(usize, u64, &mut dyn Read) -> Result<(), E> + 'a;

/// `git` in a folder.
pub(crate) struct Git<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) variables: &'a BTreeMap<String, String>,
}

impl Git<'_> {
    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        command.envs(VARIABLES.iter().filter_map(|name| Some((*name, self.variables.get(*name)?))));
        command.envs([
            ("LC_ALL", "C"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // Newer versions fetch nothing then that a partial clone lacks.
            ("GIT_NO_LAZY_FETCH", "1"),
        ]);
        command.arg("--no-pager").arg("--no-optional-locks");
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        command.arg("-C").arg(self.folder).arg(name).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What `git` prints.
    pub(crate) fn print(&self, name: &'static str, arguments: &[&str]) -> Result<Vec<u8>, RevisionError> {
        let (output, complaint) = self.run(name, arguments)?;
        match complaint {
            None => Ok(output),
            Some(complaint) => Err(self.failed(name, &complaint)),
        }
    }

    fn failed(&self, command: &'static str, complaint: &[u8]) -> RevisionError {
        // It is shown on a terminal.
        let text = String::from_utf8_lossy(complaint);
        let shown: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        RevisionError::Failed { command, folder: self.folder.to_owned(), complaint: shown }
    }

    /// What `git` prints, and what it complains of when it fails.
    pub(crate) fn run(
        &self,
        name: &'static str,
        arguments: &[&str],
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), RevisionError> {
        let mut child = self.command(name, arguments).spawn().map_err(RevisionError::Program)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (output, complaint) = std::thread::scope(|scope| {
            let complaint = scope.spawn(|| bounded(stderr, MAX_COMPLAINT_BYTES));
            let output = bounded(stdout, MAX_LISTING_BYTES);
            (output, complaint.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let status = child.wait().map_err(RevisionError::Program)?;
        let output = output.map_err(RevisionError::Program)?;
        if output.len() as u64 > MAX_LISTING_BYTES {
            return Err(RevisionError::Output { command: name, problem: "it is too long" });
        }
        let complaint = complaint.unwrap_or_default();
        Ok((output, (!status.success()).then_some(complaint)))
    }

    /// The name of a revision's commit; `top` is where the working tree has to have its top.
    pub(crate) fn resolve(&self, revision: &str, top: Option<&Path>) -> Result<String, RevisionError> {
        let about = self.print("rev-parse", &["--is-shallow-repository", "--show-toplevel"])?;
        let about = about.strip_suffix(b"\n").unwrap_or(&about);
        let (is_shallow, theirs) = about.split_at(about.iter().position(|byte| *byte == b'\n').unwrap_or(0));
        let theirs = Path::new(OsStr::from_bytes(theirs.get(1..).unwrap_or_default()));
        if let Some(ours) = top.filter(|ours| *ours != theirs) {
            return Err(RevisionError::OtherTop { theirs: theirs.to_owned(), ours: ours.to_owned() });
        }
        let unknown = || RevisionError::Unknown { revision: revision.to_owned(), is_shallow: is_shallow == b"true" };
        if revision.is_empty() || revision.starts_with('-') || revision.contains(['\0', '\n']) {
            return Err(unknown());
        }
        let commit = format!("{revision}^{{commit}}");
        let (output, complaint) = self.run("rev-parse", &["--verify", "--quiet", "--end-of-options", &commit])?;
        if complaint.is_some() {
            return Err(unknown());
        }
        let text = String::from_utf8(output).unwrap_or_default();
        let id = text.trim_end();
        if is_id(id) { Ok(id.to_owned()) } else { Err(unknown()) }
    }

    /// Calls `with` for each of these blobs that is here: the number beside its name, its size, and its content.
    fn blobs<E: From<RevisionError>>(&self, wanted: &[(usize, &str)], with: &mut WithBlob<'_, E>) -> Result<(), E> {
        let mut command = self.command("cat-file", &["--batch", "--buffer"]);
        // Nobody reads what it complains of; an answer that is not there is noticed.
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(RevisionError::Program)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let result = std::thread::scope(|scope| {
            // It answers before it has read all questions, so both have to go on at once.
            let asked = scope.spawn(move || {
                let Some(stdin) = stdin else { return };
                let mut stdin = io::BufWriter::new(stdin);
                for (_, id) in wanted {
                    // One that ended early gives no answer, which is noticed there.
                    if writeln!(stdin, "{id}").is_err() {
                        return;
                    }
                }
                let _ = stdin.flush();
            });
            let mut answers = BufReader::with_capacity(256 << 10, stdout.expect("it was piped"));
            let result = wanted.iter().try_for_each(|(index, id)| answer(&mut answers, *index, id, with));
            // So that whoever asks is not waited for when something went wrong.
            drop(answers);
            let _ = asked.join();
            result
        });
        end(&mut child);
        result
    }
}

/// Ends a process that has nothing more to do.
fn end(child: &mut Child) {
    // One that ended by itself cannot be ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// One answer of `git cat-file --batch`.
fn answer<E: From<RevisionError>>(
    answers: &mut impl BufRead,
    index: usize,
    id: &str,
    with: &mut WithBlob<'_, E>,
) -> Result<(), E> {
    let wrong = |problem| RevisionError::Output { command: "cat-file", problem };
    let mut head = Vec::new();
    answers.by_ref().take(MAX_HEAD_BYTES).read_until(b'\n', &mut head).map_err(RevisionError::Program)?;
    let head = std::str::from_utf8(&head).ok().and_then(|head| head.strip_suffix('\n'));
    let head = head.ok_or_else(|| wrong("an answer is missing"))?;
    let rest = head.strip_prefix(id).ok_or_else(|| wrong("an answer is to another question"))?;
    if rest == " missing" {
        return Ok(());
    }
    let size = rest.strip_prefix(" blob ").and_then(|size| size.parse::<u64>().ok());
    let size = size.ok_or_else(|| wrong("an object is no file"))?;
    let mut content = answers.by_ref().take(size);
    with(index, size, &mut content)?;
    io::copy(&mut content, &mut io::sink()).map_err(RevisionError::Program)?;
    let is_whole = content.limit() == 0;
    let mut end = [0];
    answers.read_exact(&mut end).map_err(RevisionError::Program)?;
    if is_whole && end == *b"\n" { Ok(()) } else { Err(wrong("an object is cut").into()) }
}

/// All of a stream, but for what is behind the limit: then it is one byte longer.
fn bounded(stream: Option<impl Read>, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What `git ls-tree -r -t -z` prints.
fn parse_listing(text: &[u8], repository: usize) -> Result<Vec<(Vec<u8>, Entry)>, RevisionError> {
    let wrong = |problem| RevisionError::Output { command: "ls-tree", problem };
    let mut found = Vec::new();
    for line in text.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
        // The folder that it is asked in, when that is not the top.
        if line.ends_with(b"\t./") {
            continue;
        }
        let at = line.iter().position(|byte| *byte == b'\t').ok_or_else(|| wrong("a line has no path"))?;
        let (head, path) = (std::str::from_utf8(&line[..at]).unwrap_or_default(), &line[at + 1..]);
        let parts: Vec<&str> = head.split(' ').collect();
        let &[mode, _, id] = parts.as_slice() else { return Err(wrong("a line has no mode, kind and name")) };
        let mode = match mode {
            "100644" | "100664" => Mode::File { is_executable: false },
            "100755" => Mode::File { is_executable: true },
            "120000" => Mode::Symlink,
            "040000" => Mode::Folder,
            "160000" => Mode::Submodule,
            _ => return Err(wrong("a mode is not known")),
        };
        if !is_id(id) {
            return Err(wrong("a name is none"));
        }
        found.push((
            checked(path).ok_or_else(|| wrong("a path leaves its folder"))?,
            Entry { mode, id: id.to_owned(), repository },
        ));
    }
    Ok(found)
}

/// What `git diff --name-status -z` prints.
fn parse_changes(text: &[u8]) -> Result<Vec<(Vec<u8>, Doubt)>, RevisionError> {
    let wrong = |problem| RevisionError::Output { command: "diff", problem };
    let mut parts = text.split(|byte| *byte == 0);
    let mut found = Vec::new();
    while let Some(status) = parts.next().filter(|status| !status.is_empty()) {
        let path = parts.next().and_then(checked).ok_or_else(|| wrong("a path leaves its folder"))?;
        // A file that is merged has two lines: what is sure goes before what is not.
        let doubt = if status == b"M" { Doubt::Changed } else { Doubt::Open };
        found.push((path, doubt));
    }
    Ok(found)
}

/// A path that stays in its folder.
fn checked(path: &[u8]) -> Option<Vec<u8>> {
    let is_name = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    path.split(|byte| *byte == b'/').all(is_name).then(|| path.to_vec())
}

/// Whether a path never belongs to a package.
pub(crate) fn is_never(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| NEVER.contains(&part))
}

/// A path and the folders above it.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let folders = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    folders.chain([path])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "fefbbe3057efa564e0fd007837f8e29c54fe582a";

    #[test]
    fn listings_are_read_and_nonsense_is_refused() {
        let line = |mode: &str, id: &str, path: &str| format!("{mode} blob {id}\t{path}\0");
        let text = [line("100755", ID, "a b/c\td"), line("120000", ID, "l"), line("160000", ID, "s")].concat();
        let found = parse_listing(text.as_bytes(), 3).expect("it is a listing");
        let modes: Vec<_> = found.iter().map(|(path, entry)| (path.as_slice(), entry.mode)).collect();
        assert_eq!(
            modes,
            [(&b"a b/c\td"[..], Mode::File { is_executable: true }), (b"l", Mode::Symlink), (b"s", Mode::Submodule)]
        );
        for wrong in [
            line("100644", ID, "../a"),
            line("100644", ID, "a//b"),
            line("100644", ID, "/a"),
            line("100644", "x", "a"),
            line("100000", ID, "a"),
            format!("100644 {ID}\ta\0"),
            "nonsense\0".to_owned(),
        ] {
            assert!(parse_listing(wrong.as_bytes(), 0).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn changes_are_read_and_nonsense_is_refused() {
        let found = parse_changes(b"M\0a/b\0D\0c\0A\0d e\0T\0f\0U\0g\0").expect("these are changes");
        assert_eq!(found.iter().filter(|(_, doubt)| *doubt == Doubt::Changed).count(), 1);
        assert_eq!(found.len(), 5);
        for wrong in [&b"M\0"[..], b"M\0../a\0", b"M"] {
            assert!(parse_changes(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn answers_are_read_and_nonsense_is_refused() {
        let ask = |text: &str| {
            let mut found = None;
            let mut answers = text.as_bytes();
            answer::<RevisionError>(&mut answers, 7, ID, &mut |index, size, content| {
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes).map_err(RevisionError::Program)?;
                found = Some((index, size, bytes));
                Ok(())
            })
            .map(|()| found)
        };
        assert_eq!(ask(&format!("{ID} blob 3\nabc\n")).expect("it is one"), Some((7, 3, b"abc".to_vec())));
        assert_eq!(ask(&format!("{ID} missing\n")).expect("it is one"), None);
        for wrong in [
            "",
            "x blob 3\nabc\n",
            &format!("{ID} tree 3\nabc\n"),
            &format!("{ID} blob 4\nabc"),
            &format!("{ID} blob 2\nabc\n"),
        ] {
            assert!(ask(wrong).is_err(), "{wrong:?}");
        }
    }
}
