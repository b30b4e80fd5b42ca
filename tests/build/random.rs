//! Random graphs, random edits, kills and builds at once: what comes out is always what a build that knows nothing gives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::since::labels;
use crate::{Home, text};

/// Seeds of the tests that always run; `CAS_SOAK=N` runs N more.
const SEEDS: u64 = 4;
/// Changes of each workspace, with a build after each.
const ROUNDS: usize = 6;

const ROOT: &str = "\
[workspace]
members = [\"p/*\"]
inputs = [\"shared\"]
[defaults]
toolchain = \"//:sh\"
[defaults.command.build]
run = \"mkdir -p out; sort -u src/* $(find /src/p -name all -type f | sort) /src/shared > out/all; echo $MODE >> out/all\"
deps = [\"^build\"]
outputs = [\"out\"]
env = { MODE = \"m0\" }
";

/// Numbers that look random and are the same for each seed (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % limit.max(1) as u64).unwrap()
    }
}

/// A workspace that changes.
struct World {
    home: Home,
    random: Random,
    /// Dependencies of each package: earlier ones, so that there is no circle.
    deps: Vec<BTreeSet<usize>>,
    files: BTreeMap<String, String>,
}

impl World {
    fn new(seed: u64) -> Option<Self> {
        let home = Home::with_busybox(ROOT, &[("shared", "shared\n")])?;
        let mut random = Random(seed);
        let count = 3 + random.below(6);
        let mut deps = vec![BTreeSet::new()];
        for number in 1..count {
            deps.push((0..random.below(4)).map(|_| random.below(number)).collect());
        }
        let mut world = Self { home, random, deps, files: BTreeMap::new() };
        for number in 0..count {
            world.home.write(&format!("p/{number}/cas.toml"), "[command.build]\n");
            world.name(number);
            for file in 0..=world.random.below(3) {
                world.files.insert(format!("p/{number}/src/f{file}"), format!("{number} {file}\n"));
            }
        }
        for (path, content) in &world.files {
            world.home.write(path, content);
        }
        Some(world)
    }

    fn name(&self, number: usize) {
        let deps: Vec<String> = self.deps[number].iter().map(|dep| format!("\"p{dep}\":\"*\"")).collect();
        let text = format!("{{\"name\":\"p{number}\",\"dependencies\":{{{}}}}}", deps.join(","));
        self.home.write(&format!("p/{number}/package.json"), &text);
    }

    fn file(&mut self) -> String {
        let at = self.random.below(self.files.len());
        self.files.keys().nth(at).unwrap().clone()
    }

    fn change(&mut self) -> &'static str {
        match self.random.below(8) {
            0 | 1 => {
                let (path, word) = (self.file(), self.random.below(3));
                self.home.write(&path, &format!("word {word}\n"));
                self.files.insert(path, format!("word {word}\n"));
                "edit"
            }
            2 => {
                let package = self.random.below(self.deps.len());
                let path = format!("p/{package}/src/n{}", self.random.below(3));
                self.home.write(&path, "new\n");
                self.files.insert(path, "new\n".to_owned());
                "add"
            }
            3 => {
                let path = self.file();
                let folder = path.rsplit_once('/').unwrap().0.to_owned();
                // One file has to be left, for the command reads them all.
                if self.files.keys().filter(|other| other.starts_with(&folder)).count() > 1 {
                    fs::remove_file(self.home.workspace().join(&path)).unwrap();
                    self.files.remove(&path);
                }
                "remove"
            }
            4 => {
                let path = self.file();
                let other = format!("{path}x");
                fs::rename(self.home.workspace().join(&path), self.home.workspace().join(&other)).unwrap();
                let content = self.files.remove(&path).unwrap();
                self.files.insert(other, content);
                "rename"
            }
            5 => {
                let number = self.random.below(self.deps.len());
                let dep = self.random.below(number.max(1));
                if number > 0 && !self.deps[number].remove(&dep) {
                    self.deps[number].insert(dep);
                }
                self.name(number);
                "dependency"
            }
            6 => {
                let (number, mode) = (self.random.below(self.deps.len()), self.random.below(3));
                self.home.write(
                    &format!("p/{number}/cas.toml"),
                    &format!("[command.build]\nenv = {{ MODE = \"m{mode}\" }}\n"),
                );
                "variable"
            }
            _ => {
                let word = self.random.below(3);
                self.home.write("shared", &format!("shared {word}\n"));
                "shared"
            }
        }
    }

    fn build(&mut self) -> &'static str {
        let start =
            |home: &Home| home.command(&["build"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        match self.random.below(4) {
            0 => {
                let mut killed = start(&self.home);
                std::thread::sleep(Duration::from_millis(self.random.below(120) as u64));
                killed.kill().unwrap();
                killed.wait().unwrap();
                "killed"
            }
            1 => {
                let builds = [start(&self.home), start(&self.home)];
                for build in builds {
                    let output = build.wait_with_output().unwrap();
                    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
                }
                "two at once"
            }
            _ => {
                let output = self.home.cas(&["build"]);
                assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
                "alone"
            }
        }
    }

    fn outputs(&self) -> BTreeMap<String, String> {
        let out = self.home.workspace().join("cas-out");
        let read = |number: usize| {
            let path = out.join(format!("p/{number}/build/out/all"));
            (path.strip_prefix(&out).unwrap().display().to_string(), fs::read_to_string(path).unwrap())
        };
        (0..self.deps.len()).map(read).collect()
    }

    /// What a build with an empty store gives.
    fn clean(&self) -> BTreeMap<String, String> {
        let store = self.home.folder.path().join("clean");
        remove(&store);
        remove(&self.home.workspace().join("cas-out"));
        let output = self.home.cas(&["--store", &store.display().to_string(), "build"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        self.outputs()
    }
}

fn remove(path: &Path) {
    if path.exists() {
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn every_build_gives_what_a_clean_one_gives() {
    let more = std::env::var("CAS_SOAK").ok().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    for seed in 0..SEEDS + more {
        let Some(mut world) = World::new(seed) else { return };
        let mut done = Vec::new();
        for _ in 0..ROUNDS {
            done.push(world.change());
            done.push(world.build());
        }
        let output = world.home.cas(&["build"]);
        assert_eq!(output.status.code(), Some(0), "seed {seed}, {done:?}: {}", text(&output.stderr));
        let actual = world.outputs();
        assert_eq!(actual, world.clean(), "seed {seed}, {done:?}");
    }
}

impl World {
    /// Builds everything; the action of each step.
    fn actions(&self) -> BTreeMap<String, String> {
        let output = self.home.cas(&["build", "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = document["results"].as_array().unwrap().iter().filter(|row| row["action"].is_string());
        rows.map(|row| (row["target"].to_string().replace('"', ""), row["action"].to_string())).collect()
    }
}

/// The steps of which a build has another action are all told, and no others where both states were built.
#[test]
fn what_is_affected_is_what_a_build_does_otherwise() {
    let more = std::env::var("CAS_SOAK").ok().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    for seed in 100..100 + SEEDS + more {
        let Some(mut world) = World::new(seed) else { return };
        world.home.write(".gitignore", "/cas-out/\n");
        world.home.git(&["init", "--quiet"]);
        let (mut done, mut states) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            world.home.commit();
            states.push((world.home.git(&["rev-parse", "HEAD"]).trim().to_owned(), world.actions()));
            for _ in 0..=world.random.below(3) {
                done.push(world.change());
            }
            let (near, far) = (round, world.random.below(round + 1));
            let before = [near, far].map(|at| world.home.affected(&["--since", &states[at].0, "--kind", "command"]));
            let actions = world.actions();
            for (at, before) in [near, far].into_iter().zip(before) {
                let (revision, then) = &states[at];
                let differs = |label: &&String| actions.get(*label) != then.get(*label);
                let expected: BTreeSet<String> = actions.keys().filter(differs).cloned().collect();
                assert!(expected.is_subset(&labels(&before)), "seed {seed}, {done:?}: {expected:?}, told {before}");
                let after = world.home.affected(&["--since", revision, "--kind", "command"]);
                assert_eq!(labels(&after), expected, "seed {seed}, {done:?}: {after}");
            }
        }
    }
}
