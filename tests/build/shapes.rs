//! Large shapes: many packages, packages with many files, one deep chain. Each is built, built again, changed and asked why.

use std::fmt::Write as _;
use std::fs;

use crate::{Home, text};

const ROOT: &str = "\
[workspace]
members = [\"p/*\"]
[defaults]
toolchain = \"//:sh\"
[defaults.command.build]
run = \"cat src/* /src/p/*/out 2>/dev/null | busybox md5sum > out\"
deps = [\"^build\"]
outputs = [\"out\"]
";

/// Which packages there are, how many files each has, and on which others it depends.
struct Shape {
    packages: usize,
    files: usize,
    depends: fn(usize) -> Vec<usize>,
}

/// Up to three of the earlier ones, spread without any regularity that caches could be lucky with.
fn spread(package: usize) -> Vec<usize> {
    let mut found: Vec<usize> = (1..=3).map(|step| (package * 7919 + step * 104_729) % package.max(1)).collect();
    found.retain(|other| *other < package);
    found.sort_unstable();
    found.dedup();
    found
}

fn chain(package: usize) -> Vec<usize> {
    package.checked_sub(1).into_iter().collect()
}

impl Shape {
    fn home(&self) -> Option<Home> {
        let home = Home::with_busybox(ROOT, &[])?;
        for package in 0..self.packages {
            let folder = home.workspace().join(format!("p/{package}"));
            fs::create_dir_all(folder.join("src")).unwrap();
            fs::write(folder.join("cas.toml"), "[command.build]\n").unwrap();
            let mut depends = String::new();
            for other in (self.depends)(package) {
                let comma = if depends.is_empty() { "" } else { "," };
                write!(depends, "{comma}\"p{other}\":\"*\"").unwrap();
            }
            let manifest = format!("{{\"name\":\"p{package}\",\"dependencies\":{{{depends}}}}}");
            fs::write(folder.join("package.json"), manifest).unwrap();
            for file in 0..self.files {
                fs::write(folder.join(format!("src/{file}")), format!("{package} {file}\n")).unwrap();
            }
        }
        Some(home)
    }

    /// All that a change of a package reaches, itself too.
    fn reached(&self, changed: usize) -> usize {
        let mut is_reached = vec![false; self.packages];
        is_reached[changed] = true;
        for package in changed + 1..self.packages {
            is_reached[package] = (self.depends)(package).iter().any(|other| is_reached[*other]);
        }
        is_reached.into_iter().filter(|reached| *reached).count()
    }
}

/// How many steps ran and were cached, of the last line.
#[track_caller]
fn counts(home: &Home, arguments: &[&str]) -> (usize, usize) {
    let output = home.cas(&[&["build", "--format", "json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let count = |key: &str| usize::try_from(json["steps"][key].as_u64().unwrap()).unwrap();
    (count("ran"), count("cached"))
}

/// `nearest` is what `cas why` says of the last package.
fn check(shape: &Shape, changed: usize, nearest: &str) {
    let Some(home) = shape.home() else { return };
    let all = shape.packages;
    assert_eq!(counts(&home, &[]), (all, 0));
    assert_eq!(counts(&home, &[]), (0, all), "nothing changed");
    let path = format!("p/{changed}/src/0");
    home.write(&path, "another\n");
    let label = format!("//p/{changed}:build");
    let why = home.cas(&["why", &label]);
    assert!(text(&why.stdout).contains(&path), "{}", text(&why.stdout));
    let last = format!("//p/{}:build", all - 1);
    let reached = shape.reached(changed);
    assert_eq!(counts(&home, &[]), (reached, all - reached), "what it reaches, and nothing else");
    let why = home.cas(&["why", &last]);
    assert!(text(&why.stdout).contains(nearest), "{}", text(&why.stdout));
    // Its output is what it was, so nothing behind it runs.
    home.write(&path, &format!("{changed} 0\n"));
    assert_eq!(counts(&home, &[]), (0, all), "what was built before is known");
}

/// The sizes are for `CAS_SOAK`: every step of a build of these tests is proven to have the right name, which takes long.
fn sized(whole: usize, part: usize) -> usize {
    if std::env::var_os("CAS_SOAK").is_some() { whole } else { part }
}

#[test]
fn many_small_packages() {
    let packages = sized(1_000, 100);
    let last = format!("//p/{}:build is up to date", packages - 1);
    check(&Shape { packages, files: 2, depends: spread }, packages / 2, &last);
}

#[test]
fn packages_with_many_files() {
    let (packages, files) = (sized(50, 20), 80);
    let last = format!("//p/{}:build is up to date", packages - 1);
    check(&Shape { packages, files, depends: spread }, packages / 2, &last);
}

/// No recursion, no square of its depth.
#[test]
fn one_deep_chain() {
    let packages = sized(500, 100);
    check(&Shape { packages, files: 1, depends: chain }, packages * 4 / 5, &format!("//p/{}:build", packages - 2));
}
