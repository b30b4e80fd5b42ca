//! Debian's own programs: dpkg orders versions, dpkg and apt judge relations and closures, and mmdebstrap unpacks the same packages
//! and has the same files, before the merge of `/usr` and the fix-ups of docs/formats/debian.md.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cas_deb::{IndexBuilder, PackageIndex, Version};
use cas_digest::{Digest, DigestFunction};

use crate::{Home, has, missing, run};

/// What an entry is: all that a package says of it.
fn listing(root: &Path) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let rights = format!("{:o} {} {}", metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid());
            let what = if metadata.is_symlink() {
                format!("-> {}", std::fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                open.push(path.clone());
                format!("folder {rights}")
            } else if metadata.is_file() {
                format!("{rights} {}", Digest::of(DigestFunction::Blake3, &std::fs::read(&path).unwrap()))
            } else {
                "special".to_owned()
            };
            entries.insert(path.strip_prefix(root).unwrap().display().to_string(), what);
        }
    }
    entries
}

/// Folders that are links into `/usr` after the merge.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// What mmdebstrap and the apt that it runs add.
const THEIRS: [&str; 9] = [
    "dev/",
    "etc/apt/",
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log/apt",
];
/// What the fix-ups make of folders.
const FIXED: [&str; 2] = ["var/lock", "var/run"];
/// What the fix-ups add, and folders of `base-files` that its script makes.
const OURS: [&str; 22] = [
    "bin",
    "sbin",
    "lib",
    "lib64",
    "etc/group",
    "etc/hosts",
    "etc/nsswitch.conf",
    "etc/passwd",
    "etc/profile",
    "mnt",
    "opt",
    "srv",
    "src",
    "root/.bashrc",
    "root/.profile",
    "run/lock",
    "usr/local",
    "usr/bin/",
    "usr/sbin/rmt",
    "usr/local/",
    "usr/lib64",
    "var/lib/dpkg",
];

/// The layers of the image in a layout, the lowest first.
fn layers(layout: &Path) -> Vec<PathBuf> {
    let read = |path: PathBuf| serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()).unwrap();
    let blob =
        |named: &serde_json::Value| layout.join("blobs").join(named["digest"].as_str().unwrap().replace(':', "/"));
    let manifest = read(blob(&read(layout.join("index.json"))["manifests"][0]));
    manifest["layers"].as_array().unwrap().iter().map(blob).collect()
}

#[test]
fn a_toolchain_has_the_files_of_mmdebstrap() {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if !is_root {
        eprintln!("SKIPPED: only root can unpack owners as they are");
        return;
    }
    if !has("mmdebstrap") {
        return missing("mmdebstrap");
    }
    let home = Home::new(
        "[workspace]\n[toolchain.node]\ndebian = { suite = \"bookworm\", packages = [\"nodejs\"], mirror = \"http://deb.debian.org/debian\" }\n[image.i]\nbase = \":node\"\n",
    );
    if !home.cas(&["lock"]).output().unwrap().status.success() {
        eprintln!("SKIPPED: Debian's archive cannot be reached");
        return;
    }
    run(&mut home.cas(&["build", ":i"]));
    let layers = layers(&home.workspace().join("cas-out/i"));
    let (ours, theirs) = (home.path("ours"), home.path("theirs"));
    std::fs::create_dir(&ours).unwrap();
    for layer in layers {
        run(Command::new("tar").arg("-xzpf").arg(layer).args(["--numeric-owner", "-C"]).arg(&ours));
    }
    run(Command::new("mmdebstrap")
        .args(["--variant=extract", "--mode=root", "--include=nodejs,?essential", "bookworm"])
        .arg(&theirs)
        .arg("deb http://deb.debian.org/debian bookworm main"));
    let (ours, theirs) = (listing(&ours), listing(&theirs));
    assert!(theirs.len() > 6000, "{}", theirs.len());
    let starts = |path: &str, list: &[&str]| {
        list.iter().any(|start| path == *start || path.starts_with(&format!("{}/", start.trim_end_matches('/'))))
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, what) in &theirs {
        let first = path.split('/').next().unwrap();
        let at = if MERGED.contains(&first) { format!("usr/{path}") } else { path.clone() };
        if MERGED.contains(&path.as_str()) || starts(path, &THEIRS) || starts(path, &FIXED) {
            continue;
        }
        if ours.get(&at) != Some(what) {
            wrong.push(format!("{path}: {what}, here {:?}", ours.get(&at)));
        }
        seen.insert(at);
    }
    for (path, what) in &ours {
        if !seen.contains(path) && !starts(path, &OURS) && !starts(path, &FIXED) && !starts(path, &THEIRS) {
            wrong.push(format!("{path}: {what}, there nothing"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), theirs.len(), wrong.join("\n"));
}

/// Runs a shell with lines on its standard input; returns the lines that it prints.
fn answers(script: &str, lines: &str) -> Vec<String> {
    let mut child =
        Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = lines.to_owned();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// xorshift64
fn random(state: &mut u64, end: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % end as u64).unwrap()
}

/// Texts of few different characters, so that many are equal, or differ late.
fn version_texts(state: &mut u64, count: usize) -> Vec<String> {
    const PARTS: [&str; 22] = [
        "0", "1", "2", "9", "10", "00", "01", ".", "+", "~", "~~", "-", "a", "b", "Z", "rc", "1.0", "-1", "1:", "0:",
        "dfsg", "~deb12u1",
    ];
    let part = |state: &mut u64| PARTS[random(state, PARTS.len())];
    (0..count)
        .map(|_| {
            let start = ["1", "2.0", "1:1", "0"][random(state, 4)];
            let rest: String = (0..random(state, 5)).map(|_| part(state)).collect();
            format!("{start}{rest}")
        })
        .collect()
}

#[test]
fn versions_are_those_of_dpkg_and_in_its_order() {
    if !has("dpkg") {
        return missing("dpkg");
    }
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let mut texts = version_texts(&mut state, 1500);
    texts.extend(
        ["", "a", "1_0", "1 0", "1:", ":1", "x:1", "-1", "1-", "1.ö", "2147483647:1", "2147483648:1"]
            .map(str::to_owned),
    );
    let lines: String = texts.iter().map(|text| format!("{text}\n")).collect();
    let said = answers(
        "while IFS= read -r v; do dpkg --validate-version -- \"$v\" 2>/dev/null && echo y || echo n; done",
        &lines,
    );
    assert_eq!(said.len(), texts.len());
    let mut versions = Vec::new();
    for (text, said) in texts.iter().zip(said) {
        let version = Version::parse(text);
        let upstream = text.split_once(':').map_or(text.as_str(), |(_, upstream)| upstream);
        // dpkg wants a digit first, and takes what does not begin with one when it only reads.
        let is_odd = version.is_ok() && !upstream.starts_with(|character: char| character.is_ascii_digit());
        assert!(is_odd || version.is_ok() == (said == "y"), "{text:?}: dpkg says {said}, here {version:?}");
        versions.extend(version);
    }
    let pairs: Vec<(&Version, &Version)> = (0..1500)
        .map(|_| (&versions[random(&mut state, versions.len())], &versions[random(&mut state, versions.len())]))
        .collect();
    let lines: String = pairs.iter().map(|(left, right)| format!("{left} {right}\n")).collect();
    let said = answers(
        "exec 2>/dev/null; while read -r a b; do if dpkg --compare-versions \"$a\" lt \"$b\"; then echo Less; \
         elif dpkg --compare-versions \"$a\" eq \"$b\"; then echo Equal; else echo Greater; fi; done",
        &lines,
    );
    assert_eq!(said.len(), pairs.len());
    let mut equal = 0;
    for ((left, right), said) in pairs.into_iter().zip(said) {
        assert_eq!(format!("{:?}", left.cmp(right)), said, "{left} {right}");
        equal += usize::from(said == "Equal");
    }
    assert!(equal > 5, "{equal}");
}

/// A system whose list of installed packages is made by the test.
struct Installed {
    folder: tempfile::TempDir,
}

/// What dpkg and apt say of such a system; apt also of conflicts, dpkg not.
#[derive(Debug, PartialEq)]
struct Verdict {
    dpkg: bool,
    apt: bool,
}

impl Installed {
    /// `None` after saying what is missing.
    fn new() -> Option<Self> {
        for program in ["apt-get", "dpkg"] {
            if !has(program) {
                missing(program);
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["admin/updates", "admin/info", "admin/triggers", "etc", "lists/partial", "cache/archives/partial"]
        {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let place = folder.path().display();
        let options = format!(
            "Dir::State \"{place}\";\nDir::State::status \"{place}/status\";\nDir::State::lists \"{place}/lists\";\n\
             Dir::Cache \"{place}/cache\";\nDir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\nDir::Etc \"{place}/etc\";\nDir::Log \"{place}\";\nDebug::NoLocking \"1\";\n\
             APT::Architecture \"amd64\";\nAPT::Architectures {{ \"amd64\"; }};\n"
        );
        std::fs::write(folder.path().join("apt.conf"), options).unwrap();
        Some(Self { folder })
    }

    /// `packages` are paragraphs. Nothing is cached: apt goes by the time and length of the list, which may stay.
    fn verdict(&self, packages: &[String]) -> Verdict {
        let place = self.folder.path();
        let status = |word: &str| -> String {
            packages
                .iter()
                .map(|package| format!("Status: install ok {word}\nMaintainer: x\nDescription: x\n{package}\n"))
                .collect()
        };
        std::fs::write(place.join("status"), status("installed")).unwrap();
        std::fs::write(place.join("admin/status"), status("unpacked")).unwrap();
        let apt = Command::new("apt-get").arg("check").env("APT_CONFIG", place.join("apt.conf")).output().unwrap();
        let dpkg = Command::new("dpkg")
            .arg(format!("--admindir={}", place.join("admin").display()))
            .args(["--no-act", "--configure", "--pending"])
            .output()
            .unwrap();
        Verdict { dpkg: dpkg.status.success(), apt: apt.status.success() }
    }
}

/// A paragraph of a package for `amd64`; fields are separated by `;`.
fn paragraph(package: &str) -> String {
    let mut fields = package.split(';');
    let (name, version) = fields.next().unwrap().split_once(' ').unwrap();
    let mut text = format!("Package: {name}\nVersion: {version}\n");
    if !package.contains("Architecture:") {
        text.push_str("Architecture: amd64\n");
    }
    fields.for_each(|field| text.push_str(&format!("{field}\n")));
    text
}

/// The index of packages given by paragraphs.
fn index_of(packages: &[String]) -> PackageIndex {
    let mut builder = IndexBuilder::new("amd64");
    for package in packages {
        let place = format!("Filename: x.deb\nSize: 1\nSHA256: {}\n\n", "0".repeat(64));
        builder.add(0, format!("{package}{place}").as_bytes()).unwrap();
    }
    builder.build()
}

/// What two packages say of each other, by each sort of relation: fulfilled where both say so, excluded where one does.
#[test]
fn relations_hold_as_dpkg_and_apt_have_them() {
    const PROVIDERS: [&str; 15] = [
        "x 1",
        "x 1;Multi-Arch: allowed",
        "x 1;Multi-Arch: foreign",
        "x 1;Multi-Arch: same",
        "x 1;Architecture: all",
        "p 1;Provides: x",
        "p 1;Provides: x (= 1)",
        "p 1;Provides: x (= 1), x (= 2)",
        "p 1;Provides: x (>= 1)",
        "p 1;Provides: x;Multi-Arch: allowed",
        "p 1;Provides: x;Multi-Arch: foreign",
        "p 1;Provides: x;Architecture: all",
        "p 1;Provides: x:any",
        "p 1;Provides: x:amd64 (= 1)",
        "p 1;Provides: x:i386",
    ];
    const RELATIONS: [&str; 13] = [
        "x",
        "x:any",
        "x:amd64",
        "x:i386",
        "x:native",
        "x (= 1)",
        "x (>= 1)",
        "x (<< 1)",
        "x (>> 1)",
        "x (<< 2)",
        "x:any (>= 1)",
        "x:amd64 (>= 2)",
        "y | x",
    ];
    let Some(system) = Installed::new() else { return };
    let mut wrong = Vec::new();
    let mut count = 0;
    for provider in PROVIDERS {
        for relation in RELATIONS {
            for field in ["Depends", "Breaks", "Conflicts"] {
                // No choice can be excluded, and apt finds something in a provide that it says to ignore.
                if field != "Depends" && (relation.contains('|') || provider.contains(">=")) {
                    continue;
                }
                let packages = [format!("a 1;{field}: {relation}"), provider.to_owned()].map(|text| paragraph(&text));
                let said = system.verdict(&packages);
                let names = ["a", if provider.starts_with('x') { "x" } else { "p" }];
                let ours = cas_deb::closure(&index_of(&packages), &names).is_ok();
                // dpkg looks at conflicts only when it unpacks: what it has of breaks is the same.
                let breaks = paragraph(&format!("a 1;Breaks: {relation}"));
                let dpkg = match field {
                    "Conflicts" => system.verdict(&[breaks, packages[1].clone()]).dpkg,
                    _ => said.dpkg,
                };
                if ours != (dpkg && said.apt) {
                    wrong.push(format!(
                        "`{field}: {relation}` and `{provider}`: here {ours}, dpkg {dpkg}, apt {}",
                        said.apt
                    ));
                }
                count += usize::from(ours);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count}");
}

/// What is chosen out of random indexes would be a whole system.
#[test]
fn closures_are_whole_for_apt() {
    const ROUNDS: usize = 150;
    let Some(system) = Installed::new() else { return };
    let mut state = 0x2545_F491_4F6C_DD1D;
    let relation = |state: &mut u64, sign: &str| {
        let name = char::from(b'a' + u8::try_from(random(state, 12)).unwrap());
        let qualifier = ["", "", "", "", ":any", ":amd64"][random(state, 6)];
        let qualifier = if sign == "=" { "" } else { qualifier };
        match random(state, 3) {
            0 => format!("{name}{qualifier} ({sign} {})", 1 + random(state, 3)),
            _ => format!("{name}{qualifier}"),
        }
    };
    let mut found = 0;
    for _ in 0..ROUNDS {
        let packages: Vec<String> = ('a'..='j')
            .map(|name| {
                let list = |state: &mut u64, sign: &str, most: usize| {
                    (0..random(state, most)).map(|_| relation(state, sign)).collect::<Vec<_>>().join(", ")
                };
                let mut text = format!("{name} {}", 1 + random(&mut state, 3));
                let groups: Vec<String> = (0..random(&mut state, 3))
                    .map(|_| {
                        (0..=random(&mut state, 3)).map(|_| relation(&mut state, ">=")).collect::<Vec<_>>().join(" | ")
                    })
                    .collect();
                for (field, value) in [
                    ("Depends", groups.join(", ")),
                    ("Provides", list(&mut state, "=", 3)),
                    ("Conflicts", list(&mut state, "<<", 2)),
                    ("Breaks", if random(&mut state, 4) == 0 { list(&mut state, ">=", 2) } else { String::new() }),
                    ("Multi-Arch", ["no", "allowed", "foreign", "same"][random(&mut state, 4)].to_owned()),
                ] {
                    if !value.is_empty() {
                        text.push_str(&format!(";{field}: {value}"));
                    }
                }
                paragraph(&text)
            })
            .collect();
        let index = index_of(&packages);
        let requested = char::from(b'a' + u8::try_from(random(&mut state, 10)).unwrap()).to_string();
        let Ok(closure) = cas_deb::closure(&index, &[&requested]) else { continue };
        let taken: Vec<String> = closure
            .iter()
            .map(|package| packages[usize::from(package.control.name.as_bytes()[0] - b'a')].clone())
            .collect();
        assert_eq!(system.verdict(&taken), Verdict { dpkg: true, apt: true }, "{requested}: {}", taken.join("\n"));
        found += 1;
    }
    assert!(found > ROUNDS / 4, "{found}");
}
