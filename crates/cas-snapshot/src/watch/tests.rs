//! Snapshots with a watcher beside those that know nothing: both must see the same.

#![expect(clippy::disallowed_methods, reason = "tests look at the disk as others do")]

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cas_digest::{Digest, DigestFunction};
use rustix::fs::inotify::ReadFlags;

use super::message::{Answer, Change, Request, Token, Wanted, receive, send};
use super::server::{Watcher, serve_here};
use super::{COOKIE, IDLE, PATIENCE, SOCKET, WatchError, folder_in, status, stop};
use crate::{Options, Selection, Snapshot, Trust};

/// A workspace, a store, and a watcher on a thread, which ends with them.
struct Home {
    root: tempfile::TempDir,
    store: tempfile::TempDir,
    watcher: Option<JoinHandle<Result<(), WatchError>>>,
}

impl Home {
    fn new(files: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("the temporary folder is writable");
        let store = tempfile::tempdir().expect("the temporary folder is writable");
        let home = Self { root, store, watcher: None };
        for file in files {
            home.write(file, file);
        }
        home
    }

    fn watched(files: &[&str]) -> Self {
        let mut home = Self::new(files);
        home.start();
        home
    }

    fn start(&mut self) {
        let (watchers, root) = (self.watchers(), self.root.path().to_owned());
        self.watcher = Some(std::thread::spawn(move || serve_here(&watchers, &root, IDLE)));
        wait_until(|| {
            if self.watcher.as_ref().is_some_and(JoinHandle::is_finished) {
                panic!("{:?}", self.watcher.take().map(JoinHandle::join));
            }
            status(&self.watchers(), self.root.path()).is_ok_and(|status| status.is_some())
        });
    }

    fn watchers(&self) -> PathBuf {
        self.store.path().join("watch")
    }

    fn folder(&self) -> PathBuf {
        folder_in(&self.watchers(), self.root.path())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        fs::create_dir_all(self.path(path).parent().expect("below the root")).expect("our folder");
        fs::write(self.path(path), content).expect("our folder");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("our folder");
    }

    fn take(&self, is_watched: bool) -> (Digest, usize) {
        let (caches, watchers) = (self.store.path().to_owned(), self.watchers());
        let options = Options {
            function: DigestFunction::Blake3,
            trust: Trust::Local,
            caches: is_watched.then_some(&caches),
            watchers: is_watched.then_some(&watchers),
        };
        let snapshot = Snapshot::take(self.root.path(), &options).expect("it can be read");
        let everything = snapshot.select(&Selection::default()).expect("no pattern is wrong");
        let fingerprint = snapshot.fingerprint(&everything).expect("it can be read");
        snapshot.save().expect("our folder");
        (fingerprint, snapshot.spared_count)
    }

    /// A build: its fingerprint must be that of one that knows nothing. Returns how many folders were spared.
    #[track_caller]
    fn build(&self, what: &str) -> usize {
        let fresh = self.take(false);
        let (fingerprint, spared_count) = self.take(true);
        assert_eq!(fingerprint, fresh.0, "{what}");
        let cookies = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let left = cookies.filter(|entry| entry.file_name().to_string_lossy().starts_with(COOKIE)).count();
        assert_eq!(left, 0, "{what}");
        spared_count
    }

    /// Builds until nothing more is learned; returns how many folders are spared then.
    #[track_caller]
    fn settle(&self) -> usize {
        // Where times are coarse, what was just written is looked at for two seconds.
        wait_until(|| {
            let folder_count = self.folder_count();
            self.build("settling") == folder_count
        });
        self.build("settled")
    }

    fn folder_count(&self) -> usize {
        let options = Options { function: DigestFunction::Blake3, trust: Trust::Local, caches: None, watchers: None };
        Snapshot::take(self.root.path(), &options).expect("it can be read").folders.len()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            let stopped = stop(&self.watchers(), self.root.path());
            if !std::thread::panicking() {
                assert!(stopped.is_ok(), "{stopped:?}");
                assert!(watcher.join().expect("it does not panic").is_ok());
            }
        }
    }
}

#[track_caller]
fn wait_until(mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() {
        assert!(started.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_kind_of_change_is_seen() {
    let home = Home::watched(&["a", "p/b", "p/q/c", "p/q/r/d", "x/y/z/e", "x/f"]);
    let all = home.settle();
    assert_eq!(all, 7);
    let steps: &[(&str, &dyn Fn())] = &[
        ("an edit", &|| home.write("p/b", "B")),
        ("a new file", &|| home.write("p/q/new", "n")),
        ("a removed file", &|| fs::remove_file(home.path("p/q/c")).expect("it is there")),
        ("a renamed file", &|| home.rename("p/b", "x/b")),
        ("a right", &|| cas_fs::set_mode(&home.path("x/f"), 0o755).expect("it is there")),
        ("a link", &|| cas_fs::symlink(Path::new("x"), &home.path("p/link")).expect("our folder")),
        ("a renamed folder", &|| home.rename("p/q", "p/s")),
        ("an edit in it", &|| home.write("p/s/r/d", "D")),
        ("a folder that is moved elsewhere", &|| home.rename("p/s", "x/y/s")),
        ("and another in its place", &|| {
            home.rename("x/y/z", "p/s");
            home.write("p/s/r/d", "other");
        }),
        ("folders that change places", &|| {
            home.rename("x", "t");
            home.rename("p", "x");
            home.rename("t", "p");
        }),
        ("a removed folder", &|| fs::remove_dir_all(home.path("x")).expect("it is there")),
        ("and a file of that name", &|| home.write("x", "file")),
        ("new folders, deep, at once", &|| home.write("n/e/w/deep/file", "1")),
        ("an edit in them", &|| home.write("n/e/w/deep/file", "2")),
        ("what is ignored from now on", &|| home.write(".gitignore", "deep/\n*.log\n")),
        ("edits of that", &|| home.write("n/e/w/deep/file", "3")),
        ("what is not ignored any more", &|| home.write(".gitignore", "")),
        ("rules further down", &|| home.write("n/.gitignore", "e\n")),
        ("and none", &|| fs::remove_file(home.path("n/.gitignore")).expect("it is there")),
    ];
    for (what, step) in steps {
        step();
        home.build(what);
        home.build(&format!("{what}, once more"));
        step_back_in_time(&home);
        home.build(&format!("{what}, and an edit"));
    }
    assert!(home.settle() > 5);
}

/// An edit that keeps the size.
fn step_back_in_time(home: &Home) {
    home.write("a", "1");
    home.build("one");
    home.write("a", "2");
}

#[test]
fn folders_made_quickly_are_seen_whole() {
    let home = Home::watched(&["a"]);
    home.settle();
    for round in 0..30 {
        for depth in 0..round % 7 + 1 {
            let path: String = (0..=depth).map(|level| format!("d{round}-{level}/")).collect();
            home.write(&format!("{path}file"), "x");
            home.build("new");
            home.write(&format!("{path}file"), "y");
        }
        home.build("edited");
    }
}

#[test]
fn random_changes_are_seen() {
    let home = Home::watched(&["a/x", "b/y", "c/d/e/f"]);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |end: u64| -> usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % end).expect("it is small")
    };
    let names = ["a", "b", "c", "d", "e"];
    for round in 0..300 {
        for _ in 0..random(4) {
            let mut path = || {
                let parts: Vec<&str> = (0..=random(3)).map(|_| names[random(5)]).collect();
                home.path(&parts.join("/"))
            };
            let (one, other) = (path(), path());
            // Most of these fail now and then: a file is where a folder would have to be.
            let _ = match random(6) {
                0 => fs::create_dir_all(&one),
                1 => fs::remove_dir_all(&one),
                2 => fs::remove_file(&one),
                3 => fs::rename(&one, &other),
                4 => fs::write(one.join(".gitignore"), ["d\n", "e/\n", ""][random(3)]),
                _ => fs::write(&one, round.to_string()),
            };
        }
        home.build(&format!("round {round}"));
    }
}

#[test]
fn a_file_with_another_name_elsewhere_is_always_looked_at() {
    let home = Home::new(&["a/x", "b/y"]);
    let other = home.store.path().join("other");
    fs::hard_link(home.path("a/x"), &other).expect("one file system");
    let mut home = home;
    home.start();
    wait_until(|| dbg!(home.build("settling")) == 2);
    fs::write(&other, "through the other name").expect("our file");
    assert_eq!(home.build("changed"), 2);
}

/// Rules of a file that is left out itself hold all the same.
#[test]
fn a_gitignore_that_is_left_out_spares_its_folder_and_is_followed() {
    let home = Home::new(&["x.o", "d/a.o", "d/b.c", "d/e/c.o"]);
    home.write(".gitignore", ".*\n");
    home.write("d/.gitignore", "*.o\n");
    let mut home = home;
    home.start();
    assert_eq!(home.settle(), 3);
    for (round, text) in ["*.c\n", "*.o\n", "", "*.o\n*.c\n"].into_iter().enumerate() {
        home.write("d/.gitignore", text);
        assert!(home.build("other rules") < 3, "round {round}");
        assert_eq!(home.settle(), 3, "round {round}");
    }
    // Nobody tells of what is written through its other name, so it is looked at each time once that is known.
    let other = home.store.path().join("other");
    fs::hard_link(home.path("d/.gitignore"), &other).expect("one file system");
    home.write("d/b.c", "something to look at");
    wait_until(|| home.build("settling") == 2);
    fs::write(&other, "b*\n").expect("our file");
    assert_eq!(home.build("through the other name"), 1);
}

#[test]
fn without_times_to_believe_nothing_is_spared() {
    let home = Home::watched(&["a/x"]);
    home.settle();
    let (caches, watchers) = (home.store.path().to_owned(), home.watchers());
    for trust in [Trust::Nothing, Trust::Network] {
        let options =
            Options { function: DigestFunction::Blake3, trust, caches: Some(&caches), watchers: Some(&watchers) };
        assert_eq!(Snapshot::take(home.root.path(), &options).expect("it can be read").spared_count, 0, "{trust:?}");
    }
}

#[test]
fn another_build_in_between_does_not_mix_tokens() {
    let home = Home::watched(&["a/x", "b/y"]);
    home.settle();
    let (caches, watchers) = (home.store.path().to_owned(), home.watchers());
    let options = Options {
        function: DigestFunction::Blake3,
        trust: Trust::Local,
        caches: Some(&caches),
        watchers: Some(&watchers),
    };
    home.write("a/x", "1");
    let slow = Snapshot::take(home.root.path(), &options).expect("it can be read");
    home.write("b/y", "2");
    home.build("in between");
    home.write("a/x", "3");
    home.build("in between");
    // What it writes belongs to a state that is not the file's any more.
    let everything = slow.select(&Selection::default()).expect("no pattern is wrong");
    let _ = slow.fingerprint(&everything);
    slow.save().expect("our folder");
    assert_eq!(home.build("after it"), 0);
    home.settle();
}

#[test]
fn two_workspaces_have_two_watchers() {
    let (one, mut other) = (Home::watched(&["a/x"]), Home::new(&["a/x", "b"]));
    // Both in one store.
    other.store = tempfile::tempdir_in(one.store.path()).expect("our folder");
    other.start();
    let settled = (one.settle(), other.settle());
    assert_eq!(settled, (2, 2));
    one.write("a/x", "1");
    assert_eq!((one.build("changed"), other.build("unchanged")), (1, 2));
    let again = serve_here(&one.watchers(), one.root.path(), IDLE);
    assert!(matches!(again, Err(WatchError::Running { .. })), "{again:?}");
}

/// A watcher without a process or thread, which answers when the test says so.
struct Still {
    home: Home,
    watcher: Watcher,
}

impl Still {
    fn new(files: &[&str]) -> Self {
        let home = Home::new(files);
        fs::create_dir_all(home.folder()).expect("our folder");
        let watcher = Watcher::new(home.root.path(), &home.folder()).expect("inotify is there");
        Self { home, watcher }
    }

    /// What changed, with `/` for all that is below; and a new token.
    fn ask(&mut self, since: Option<Token>) -> (Token, Option<Vec<String>>) {
        let cookie = format!("{COOKIE}1");
        fs::write(self.home.folder().join(&cookie), "").expect("our folder");
        let answer = self.watcher.answer(Request::Changes { since, cookie: cookie.as_bytes().into() });
        fs::remove_file(self.home.folder().join(&cookie)).expect("our file");
        let Answer::Changes { now, changes, .. } = answer.expect("it answers") else { panic!("another answer") };
        let text = |Change { path, is_deep }: Change| {
            format!("{}{}", String::from_utf8_lossy(&path), if is_deep { "/" } else { "" })
        };
        (now, changes.map(|changes| changes.into_iter().map(text).collect()))
    }

    fn watch(&mut self, paths: &[&str]) -> (Token, u32) {
        let wanted = |path: &&str| Wanted { path: path.as_bytes().into(), identity: None };
        match self.watcher.answer(Request::Watch(paths.iter().map(wanted).collect())).expect("it answers") {
            Answer::Watching { now, refused_count } => (now, refused_count),
            other => panic!("{other:?}"),
        }
    }
}

/// What happened between a build's visit and the watch is not known.
#[test]
fn a_folder_is_dirty_when_its_watch_begins() {
    let mut still = Still::new(&["a/x", "b/y"]);
    let (token, _) = still.watch(&["", "a"]);
    assert_eq!(still.watch(&["", "a"]).1, 0);
    assert_eq!(still.ask(Some(token)).1, Some(vec![]), "what is watched already is not dirty for being asked for");
    still.watch(&["b"]);
    assert_eq!(still.ask(Some(token)).1, Some(vec!["b/".to_owned()]));
    still.home.rename("b", "a/b");
    let (token, changes) = still.ask(Some(token));
    assert_eq!(changes, Some(["", "a", "a/b/", "b/"].map(str::to_owned).to_vec()));
    still.home.write("a/b/y", "not seen: it is not watched at its new path");
    assert_eq!(still.ask(Some(token)).1, Some(vec![]));
    assert_eq!(still.watch(&["a/b", "b"]).1, 1);
    assert_eq!(still.ask(Some(token)).1, Some(vec!["a/b/".to_owned()]));
    still.home.write("a/.gitignore", "");
    assert!(still.ask(Some(token)).1.is_some_and(|changes| changes.contains(&"a/".to_owned())));
}

#[test]
fn lost_events_mean_that_nothing_is_known() {
    let mut still = Still::new(&["a/x", "b/y"]);
    let all = ["", "a", "b"];
    let (token, _) = still.watch(&all);
    assert_eq!(still.ask(Some(token)).1, Some(vec![]));
    still.home.write("a/x", "1");
    assert_eq!(still.ask(Some(token)).1, Some(vec!["a".to_owned()]));
    still.watcher.event(-1, ReadFlags::QUEUE_OVERFLOW, None).expect("it goes on");
    assert_eq!(still.ask(Some(token)).1, None);
    let (token, _) = still.watch(&all);
    // The kernel's own limit, whatever it is here.
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("Linux");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit < 100_000 {
        for index in 0..limit {
            fs::write(still.home.path(["a/x", "b/y"][index % 2]), "").expect("our file");
        }
        assert_eq!(still.ask(Some(token)).1, None);
    }
    assert_eq!(still.watch(&["a", "nowhere", "../.."]).1, 2);
}

#[test]
fn a_watcher_ends_when_it_is_of_no_use() {
    let home = Home::new(&["a"]);
    let watchers = home.watchers();
    serve_here(&watchers, home.root.path(), Duration::from_millis(50)).expect("it ends for nobody asks");
    assert_eq!(status(&watchers, home.root.path()).expect("there is none"), None);
    for remove in [home.root.path().to_owned(), home.folder()] {
        fs::create_dir_all(home.root.path()).expect("our folder");
        let mut running = Home::new(&[]);
        running.root = tempfile::tempdir().expect("the temporary folder is writable");
        let (watchers, root) = (watchers.clone(), home.root.path().to_owned());
        let thread = std::thread::spawn(move || serve_here(&watchers, &root, IDLE));
        wait_until(|| status(&home.watchers(), home.root.path()).is_ok_and(|status| status.is_some()));
        let options = Options {
            function: DigestFunction::Blake3,
            trust: Trust::Local,
            caches: Some(home.store.path()),
            watchers: Some(&home.watchers()),
        };
        Snapshot::take(home.root.path(), &options).expect("it can be read");
        fs::remove_dir_all(&remove).expect("our folder");
        wait_until(|| thread.is_finished());
        thread.join().expect("it does not panic").expect("it ends well");
    }
}

/// Whatever is behind the socket, a build gets on without it, in bounded time, and correctly.
#[test]
fn watchers_that_are_wrong_are_as_good_as_none() {
    let mut home = Home::watched(&["a/x", "b/y"]);
    home.settle();
    stop(&home.watchers(), home.root.path()).expect("it ends");
    home.watcher.take().expect("it was started").join().expect("it does not panic").expect("it ends well");
    home.write("a/x", "1");
    assert_eq!(home.build("it is gone"), 0);
    let socket = home.folder().join(SOCKET);
    drop(UnixListener::bind(&socket).expect("a short path"));
    home.write("a/x", "2");
    assert_eq!(home.build("its socket is stale"), 0);
    fs::remove_file(&socket).expect("it is there");
    let listener = UnixListener::bind(&socket).expect("a short path");
    home.write("a/x", "3");
    let started = Instant::now();
    assert_eq!(home.build("it says nothing"), 0);
    assert!(started.elapsed() < 2 * PATIENCE);
    drop(listener);
    fs::remove_file(&socket).expect("it is there");

    let listener = UnixListener::bind(&socket).expect("a short path");
    let answers = 40;
    let liar = std::thread::spawn(move || {
        for round in 0..answers {
            // Those from the silent time may have gone on.
            let Ok((mut stream, _)) = listener.accept() else { return };
            let _ = receive(&mut stream, || true);
            let identity = super::Identity { device: 1, inode: 2 };
            let now = Token { instance: [1; 16], sequence: 5 };
            let true_to_form = Answer::Changes { root: identity, now, changes: Some(Vec::new()) }.encode();
            let _ = match round % 4 {
                0 => send(&mut stream, &true_to_form),
                1 => send(&mut stream, &true_to_form[..round]),
                2 => send(&mut stream, &[u8::try_from(round).expect("it is small"); 40]),
                _ => stream.write_all(&[0xff; 100]),
            };
        }
    });
    for round in 0..answers {
        home.write("b/y", &round.to_string());
        assert_eq!(home.build("it lies"), 0, "round {round}");
    }
    liar.join().expect("it does not panic");
    fs::remove_file(&socket).expect("it is there");
    home.start();
    home.write("a/x", "4");
    assert_eq!(home.settle(), 3);
}

/// Records of folders that are gone stay in the cache for a while.
#[test]
fn a_new_watcher_copes_with_records_of_folders_that_are_gone() {
    let files: Vec<String> = (0..9).map(|index| format!("{index}/x")).collect();
    let mut home = Home::watched(&files.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(home.settle(), 10);
    fs::remove_dir_all(home.path("3")).expect("it is there");
    home.build("one is gone");
    stop(&home.watchers(), home.root.path()).expect("it ends");
    home.watcher.take().expect("it was started").join().expect("it does not panic").expect("it ends well");
    home.start();
    assert_eq!(home.settle(), 9);
    home.write("3/x", "another");
    home.build("there is one again");
    home.write("3/x", "changed");
    home.build("and it changes");
}

#[test]
fn a_damaged_or_removed_cache_has_no_token() {
    let home = Home::watched(&["a/x", "b/y"]);
    home.settle();
    let cache = home.store.path().join(format!("{}.idx", crate::cache::name_of(home.root.path())));
    let whole = fs::read(&cache).expect("it was written");
    for at in (0..whole.len()).step_by(37) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&cache, &damaged).expect("our file");
        home.write("a/x", &at.to_string());
        assert_eq!(home.build("damaged"), 0, "byte {at}");
    }
    fs::remove_file(&cache).expect("it is there");
    assert_eq!(home.build("removed"), 0);
    home.settle();
}

/// The index is no part of the watched workspace, and changes without any folder in it.
#[test]
fn what_git_begins_or_ceases_to_track_is_seen() {
    use crate::tests_git::git;
    let home = Home::new(&["a", "p/kept.log", "p/b", "out/x"]);
    git(home.root.path(), &["init", "-q"]);
    home.write(".gitignore", "*.log\nout/\n");
    git(home.root.path(), &["add", "."]);
    let mut home = home;
    home.start();
    let before = home.settle();
    git(home.root.path(), &["add", "-f", "p/kept.log"]);
    home.build("an ignored file is tracked");
    git(home.root.path(), &["add", "-f", "out/x"]);
    home.build("a file in an ignored folder is tracked");
    assert!(home.settle() > before, "the ignored folder belongs now");
    git(home.root.path(), &["rm", "-q", "--cached", "p/kept.log", "out/x"]);
    home.build("neither is tracked any more");
}
