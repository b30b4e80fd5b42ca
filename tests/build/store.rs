//! The store as its user meets it: damaged, full, cleared, limited, pinned.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::{Home, image, text};

impl Home {
    fn store(&self) -> PathBuf {
        self.folder.path().join("store/v1")
    }

    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.store().join("objects")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() { open.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files.sort();
        files
    }

    /// The rows of a command's JSON.
    #[track_caller]
    fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.cas(&[arguments, &["--format", "json"]].concat());
        let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
        document["results"].as_array().unwrap_or_else(|| panic!("{document}")).clone()
    }

    #[track_caller]
    fn stat(&self, name: &str) -> u64 {
        let rows = self.rows(&["store", "stat"]);
        rows.iter().find(|row| row["name"] == name).unwrap()["value"].as_u64().unwrap()
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let old = fs::metadata(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    // The marks of objects are their times: damage does not move them.
    fs::File::options().write(true).open(path).unwrap().set_modified(old.modified().unwrap()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Something done to a store, in words and in deed.
type Harm<'a> = (&'a str, &'a dyn Fn(&Home));

/// Whatever is done to the store, the next build gives what the first one gave, and then the store is clean.
#[test]
fn a_harmed_store_builds_the_same_and_is_clean_afterwards() {
    let home = Home::new(&image());
    let first = home.cas(&["build"]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let harms: &[Harm] = &[
        ("no index", &|home| fs::remove_file(home.store().join("index.db")).unwrap()),
        ("an index of garbage", &|home| fs::write(home.store().join("index.db"), [7; 9000]).unwrap()),
        ("a cut index", &|home| {
            let file = fs::File::options().write(true).open(home.store().join("index.db")).unwrap();
            file.set_len(5000).unwrap();
        }),
        ("flipped bytes", &|home| home.objects().iter().take(10).for_each(|path| flip(path))),
        ("empty objects", &|home| {
            for path in home.objects().iter().skip(1).take(3) {
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
                fs::write(path, b"").unwrap();
            }
        }),
        ("no objects", &|home| fs::remove_dir_all(home.store().join("objects")).unwrap()),
        ("no epochs", &|home| fs::remove_dir_all(home.store().join("epoch")).unwrap()),
        ("torn epochs", &|home| {
            fs::write(home.store().join("epoch/boot"), b"torn").unwrap();
            fs::write(home.store().join("epoch/sealed"), b"torn").unwrap();
        }),
        ("a torn batch", &|home| fs::write(home.store().join("collect"), [9; 40]).unwrap()),
        ("folders, links and pipes in the place of objects", &|home| {
            for (number, path) in home.objects().iter().take(9).enumerate() {
                fs::remove_file(path).unwrap();
                match number % 3 {
                    0 => fs::create_dir(path).unwrap(),
                    1 => std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
                    _ => pipe(path),
                }
            }
        }),
        ("pipes in the place of what is remembered", &|home| {
            for folder in fs::read_dir(home.store().join("history")).unwrap() {
                for entry in fs::read_dir(folder.unwrap().path()).unwrap() {
                    let path = entry.unwrap().path();
                    fs::remove_file(&path).unwrap();
                    pipe(&path);
                }
            }
        }),
        ("strangers", &|home| {
            fs::create_dir_all(home.store().join("objects/blake3/00")).unwrap();
            fs::write(home.store().join("objects/blake3/00/stranger"), b"x").unwrap();
            fs::write(home.store().join("objects/blake3/stranger"), b"x").unwrap();
            fs::create_dir_all(home.store().join("objects/sha256/zz/deep")).unwrap();
        }),
        ("no reserve and no folders for work", &|home| {
            fs::remove_dir_all(home.store().join("reserve")).unwrap();
            fs::remove_dir_all(home.store().join("tmp")).unwrap();
        }),
    ];
    for (what, harm) in harms {
        harm(&home);
        let again = home.cas(&["build"]);
        assert_eq!(
            (again.status.code(), text(&again.stdout)),
            (Some(0), text(&first.stdout)),
            "{what}: {}",
            text(&again.stderr)
        );
        let found = home.cas(&["store", "fsck", "--full"]);
        assert!(matches!(found.status.code(), Some(0 | 3)), "{what}: {}", text(&found.stderr));
        let clean = home.cas(&["store", "fsck", "--full"]);
        assert_eq!(clean.status.code(), Some(0), "{what}: {}{}", text(&clean.stdout), text(&clean.stderr));
    }
}

#[test]
fn a_check_names_what_is_damaged_once() {
    let home = Home::new(&image());
    assert_eq!(home.cas(&["build"]).status.code(), Some(0));
    let objects = home.objects();
    flip(&objects[0]);
    let fast = home.cas(&["store", "fsck"]);
    assert_eq!(fast.status.code(), Some(0), "a fast check does not read what is trusted: {}", text(&fast.stdout));
    let full = home.cas(&["store", "fsck", "--full"]);
    assert_eq!(full.status.code(), Some(3));
    let name = objects[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(text(&full.stdout).contains(&name), "{}", text(&full.stdout));
    assert_eq!(home.cas(&["store", "fsck", "--full"]).status.code(), Some(0));
}

#[test]
fn a_collection_leaves_what_builds_need_and_takes_what_nobody_needs() {
    let home = Home::new(&image());
    let first = home.cas(&["build"]);
    let before = home.stat("objects");
    std::thread::sleep(Duration::from_millis(1100));
    let dry = home.rows(&["store", "gc", "--min-age", "0s", "--dry-run"]);
    let done = home.rows(&["store", "gc", "--min-age", "0s"]);
    assert_eq!(dry[0]["objects"], done[0]["objects"]);
    assert_eq!(home.stat("objects"), before - done[0]["objects"].as_u64().unwrap());
    // Nothing is fetched or made again.
    fs::rename(home.folder.path().join("data.txt"), home.folder.path().join("away")).unwrap();
    let again = home.cas(&["build", "--offline"]);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(0), text(&first.stdout)), "{}", text(&again.stderr));
    assert_eq!(home.rows(&["store", "gc", "--min-age", "0s"])[0]["objects"], 0);
    // Pins outlive all results, and the index.
    let pinned = home.cas(&["store", "pin", "add", "release/1.0", "//:web"]);
    assert_eq!(pinned.status.code(), Some(0), "{}", text(&pinned.stderr));
    std::thread::sleep(Duration::from_millis(2100));
    let all = home.rows(&["store", "gc", "--min-age", "0s", "--keep", "0s"]);
    assert!(all[0]["rows"].as_u64().unwrap() > 0, "{all:?}");
    fs::remove_file(home.store().join("index.db")).unwrap();
    assert_eq!(home.rows(&["store", "gc", "--min-age", "0s", "--keep", "0s"])[0]["objects"], 0);
    assert!(home.stat("objects") > 0);
    let clean = home.cas(&["store", "fsck", "--full"]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stdout));
    // A blob of the pin that is lost is named; then the pin ends and everything goes.
    fs::remove_file(&home.objects()[0]).unwrap();
    let lost = home.cas(&["store", "fsck"]);
    assert_eq!(lost.status.code(), Some(3));
    assert!(text(&lost.stdout).contains("release/1.0"), "{}", text(&lost.stdout));
    assert!(text(&home.cas(&["store", "pin", "ls"]).stdout).starts_with("release/1.0 keeps "));
    assert_eq!(home.cas(&["store", "pin", "rm", "release/1.0"]).status.code(), Some(0));
    assert_eq!(home.cas(&["store", "pin", "rm", "release/1.0"]).status.code(), Some(2));
    std::thread::sleep(Duration::from_millis(1100));
    home.rows(&["store", "gc", "--min-age", "0s", "--keep", "0s"]);
    assert_eq!(home.stat("objects"), 0);
}

/// A directory whose bytes are kept as a blob is still a tree for whoever keeps it as one.
#[test]
fn a_pin_of_a_tree_keeps_all_of_it_whoever_keeps_its_top() {
    let Some(home) = Home::with_busybox(
        "[workspace]\n[command.a]\ntoolchain = \":sh\"\nrun = \"echo 1 > a\"\noutputs = [\"a\"]\n",
        &[],
    ) else {
        return;
    };
    let rows = home.rows(&["build", ":sh"]);
    let digest = rows[0]["digest"].as_str().unwrap().to_owned();
    let hex = digest.split(':').nth(1).unwrap();
    let size = fs::metadata(home.store().join("objects/blake3").join(&hex[..2]).join(&hex[2..])).unwrap().len();
    let (blob, tree) = (format!("blob:{digest}/{size}"), format!("tree:{digest}/{size}"));
    for (name, keeps) in [("both", vec![&*blob, &*tree]), ("a-blob", vec![&*blob])] {
        let added = home.cas(&[&["store", "pin", "add", name], &keeps[..]].concat());
        assert_eq!(added.status.code(), Some(0), "{}", text(&added.stderr));
    }
    std::thread::sleep(Duration::from_millis(2100));
    home.rows(&["store", "gc", "--min-age", "0s", "--keep", "0s"]);
    let clean = home.cas(&["store", "fsck"]);
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stdout));
}

/// Claims of processes that were killed, or a count from a time without a limit, must not fill a store.
#[test]
fn a_wrong_count_of_what_is_used_is_made_right() {
    let home = Home::new(&image());
    assert_eq!(home.cas(&["store", "limit", "--max-size", "100M"]).status.code(), Some(0));
    assert_eq!(home.cas(&["build", ":data"]).status.code(), Some(0));
    let usage = home.store().join("usage");
    let right = fs::read_to_string(&usage).unwrap();
    let wrong = format!("{} {:020} {:020}\n", &right[..10], 104_857_000, 3);
    fs::write(&usage, wrong).unwrap();
    let built = home.cas(&["build"]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
}

#[test]
fn a_limit_is_never_passed_and_old_things_make_room() {
    let mut manifest = "[workspace]\n".to_owned();
    let home = Home::new("[workspace]\n");
    for number in 0..12u8 {
        let bytes: Vec<u8> = (0..300_000u32).map(|at| number.wrapping_mul(31).wrapping_add((at % 251) as u8)).collect();
        let path = home.folder.path().join(format!("file-{number}"));
        fs::write(&path, &bytes).unwrap();
        let digest = cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, &bytes).to_hex();
        manifest.push_str(&format!("[fetch.f{number}]\nurl = \"file://{}\"\nsha256 = \"{digest}\"\n", path.display()));
    }
    fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
    assert_eq!(home.cas(&["store", "limit", "--max-size", "1M"]).status.code(), Some(0));
    for number in 0..12 {
        let built = home.cas(&["build", &format!(":f{number}")]);
        assert_eq!(built.status.code(), Some(0), "{number}: {}", text(&built.stderr));
        let bytes = home.stat("object_bytes") + home.stat("root_bytes");
        assert!(bytes <= 1 << 20, "{number}: {bytes}");
    }
    assert!(home.stat("objects") >= 2, "not everything leaves for one that comes");
    // One build that needs more than the limit at once ends with a word on it.
    let all = home.cas(&["build"]);
    assert_eq!(all.status.code(), Some(5), "{}", text(&all.stderr));
    assert!(text(&all.stderr).starts_with("error: the store is full"), "{}", text(&all.stderr));
    assert!(home.stat("object_bytes") <= 1 << 20);
    assert_eq!(home.cas(&["store", "fsck", "--full"]).status.code(), Some(0));
    assert_eq!(home.cas(&["store", "limit", "--max-size", "none"]).status.code(), Some(0));
    assert_eq!(home.cas(&["build"]).status.code(), Some(0));
}

#[test]
fn the_path_of_a_blob_is_that_of_its_bytes() {
    let home = Home::new(&image());
    assert_eq!(home.cas(&["build"]).status.code(), Some(0));
    let digest = cas_digest::Digest::of(cas_digest::DigestFunction::Blake3, b"data\n");
    let blob = format!("{digest}/5");
    let output = home.cas(&["store", "path", &blob]);
    assert_eq!(fs::read(text(&output.stdout).trim_end()).unwrap(), b"data\n");
    flip(Path::new(text(&output.stdout).trim_end()));
    for (blob, code, word) in [
        ("blake3:00/5", 2, "is not `FUNCTION:HEX/SIZE`"),
        (&format!("sha256:{}/7", "0".repeat(64)), 5, "is not in the store"),
    ] {
        let output = home.cas(&["store", "path", blob]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
}

#[test]
fn a_store_of_a_newer_program_is_left_alone() {
    let home = Home::new(&image());
    assert_eq!(home.cas(&["build"]).status.code(), Some(0));
    let path = home.store().join("store.json");
    let right = fs::read_to_string(&path).unwrap();
    for (wrong, code, word) in [
        (right.replace("\"epochs\"", "\"epochs\", \"packs\""), 5, "needs a newer program: it uses packs"),
        (right.replace("\"version\": 1", "\"version\": 2"), 5, "needs a newer program"),
        ("{".to_owned(), 5, "does not describe a store"),
    ] {
        fs::write(&path, wrong).unwrap();
        let output = home.cas(&["build"]);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(word), "{}", text(&output.stderr));
    }
    // Compatible words of others are kept.
    fs::write(&path, right.replace("\"compatible\": []", "\"compatible\": [\"hints\"]")).unwrap();
    assert_eq!(home.cas(&["store", "limit", "--min-free", "1M"]).status.code(), Some(0));
    assert!(fs::read_to_string(&path).unwrap().contains("hints"));
}

/// In namespaces of its own, where everybody may mount: every command writes there, so there is no store to only look at.
#[test]
fn a_store_that_is_read_only_is_told() {
    let home = Home::new("[workspace]\n");
    assert_eq!(home.cas(&["store", "stat"]).status.code(), Some(0));
    let store = home.folder.path().join("store");
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 99; exec \"$0\" --store \"$1\" store stat";
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_cas")]).arg(&store);
    let Ok(output) = command.current_dir(home.workspace()).output() else {
        eprintln!("SKIPPED: unshare of util-linux is missing");
        return;
    };
    let stderr = text(&output.stderr);
    if output.status.code() != Some(5) && !stderr.starts_with("error: ") {
        eprintln!("SKIPPED: nothing can be mounted here: {stderr}");
        return;
    }
    assert_eq!(output.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("hint: every command writes to the store"), "{stderr}");
}
