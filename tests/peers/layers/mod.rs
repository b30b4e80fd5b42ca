//! Layers in each format, of hard trees, before the programs that read them.
//!
//! A corpus of tars ([`corpus`]) is made into images by `cas`, in each of [`judges::FORMATS`], and each image goes before
//! each of [`judges::JUDGES`]. What is refused fails the test, but for [`KNOWN`] limits of a judge, which fail it when they
//! are gone. The quick judges belong to the core tier; `cargo xtask test --peers images` asks all, and with `CAS_UPDATE=1`
//! writes docs/interop/images.md. `CAS_LARGE=1` asks about the large ones alone, which are large then, `CAS_SAMPLE=NAME,NAME` about these.

mod corpus;
mod judges;
mod listing;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::{Home, has, missing, run, toolchain};
use corpus::{Sample, Sizes};
use judges::{Case, FORMATS, JUDGES, Verdict};

/// How `cas` makes the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `cas image convert`: the tars stay as they are.
    Converted,
    /// `cas build`: the tars are made of what the given ones hold.
    Made,
}

/// What no table of contents can tell: sample, format, and a word of what `cas` says.
const REFUSED: [(&str, &str, &str); 5] = [
    ("bytes", "zstd:chunked", "its name is not UTF-8"),
    ("bytes", "estargz", "its name is not UTF-8"),
    ("sparse", "zstd:chunked", "it is sparse"),
    ("sparse", "estargz", "it is sparse"),
    ("order", "zstd:chunked", "another entry has its name"),
];
/// What a judge cannot take whoever wrote it: how it was made, judge, image, a word of the refusal, and why.
const KNOWN: [(Way, &str, &str, &str, &str); 8] = [
    (Way::Made, "GNU tar", "special", "fifo-again", FIFO),
    (Way::Made, "Python tarfile", "special", "fifo", FIFO),
    (Way::Made, "umoci", "special", "fifo-again", FIFO),
    (Way::Converted, "umoci", "sparse", "unknown typeflag", "it knows no sparse files of GNU tar's first format"),
    (
        Way::Converted,
        "podman load",
        "sparse",
        "unhandled tar header type 83",
        "it knows no sparse files of GNU tar's first format",
    ),
    (Way::Converted, "podman load", "order", "duplicates of file paths", "it takes no name twice"),
    (Way::Converted, "crane", "order", "duplicate file path", "it takes no name twice"),
    (Way::Converted, "containers/storage", "special", "openat2 /dev/fifo", "it opens what a hard link names"),
];
const FIFO: &str = "two names of one fifo are two fifos";
/// Samples that take minutes, and have two sizes.
const LARGE: [&str; 2] = ["many", "large"];
const PAGE: &str = "docs/interop/images.md";

/// Whether the large ones are large.
fn is_large() -> bool {
    std::env::var_os("CAS_LARGE").is_some()
}

/// A layout with the tag `t` over layers as they are.
fn write_layout(folder: &Path, layers: &[PathBuf]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let describe = |path: &Path, media_type: &str| {
        let (digest, size) = corpus::digest_of(path);
        fs::hard_link(path, blobs.join(digest.to_hex()))
            .unwrap_or_else(|_| drop(fs::copy(path, blobs.join(digest.to_hex()))));
        json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest.to_string(), "size": size })
    };
    let document = |value: &serde_json::Value, media_type: &str| {
        let path = folder.join("document");
        fs::write(&path, value.to_string()).unwrap();
        let described = describe(&path, media_type);
        fs::remove_file(&path).unwrap();
        described
    };
    let parts: Vec<serde_json::Value> = layers.iter().map(|path| describe(path, "layer.v1.tar")).collect();
    let diff_ids: Vec<&serde_json::Value> = parts.iter().map(|part| &part["digest"]).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({ "architecture": architecture, "os": "linux", "config": {},
                         "rootfs": { "type": "layers", "diff_ids": diff_ids } });
    let config = document(&config, "config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": config, "layers": parts });
    let mut item = document(&manifest, "manifest.v1+json");
    item["annotations"] = json!({ "org.opencontainers.image.ref.name": "t" });
    let index =
        json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [item] });
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The name of a target.
fn target(sample: &str, format: &str) -> String {
    format!("{sample}-{}", format.replace(':', "-"))
}

/// A workspace with an image for each sample and format, and the samples; the last one has no tars, `cas` made its files.
///
/// What `cas` refuses, as it must, comes with it, by target.
fn images(home: &Home, way: Way, with_large: bool) -> (Vec<Sample>, BTreeMap<String, &'static str>) {
    let (tars, layouts) = (home.path("tars"), home.path("layouts"));
    fs::create_dir(&tars).unwrap();
    let mut samples = corpus::write(&tars, Sizes::of_environment());
    let only = std::env::var("CAS_SAMPLE").ok();
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|part| part == name));
    // The slow tier has the large ones, and nothing else where they are large.
    let is_asked = |name: &str| if LARGE.contains(&name) { with_large } else { !is_large() };
    samples.retain(|sample| is_wanted(sample.name) && is_asked(sample.name));
    let mut manifest = "[workspace]\n".to_owned();
    let mut image = |name: &str, base: &str, rest: &str| {
        for format in &FORMATS {
            let (target, compression) = (target(name, format.name), format.name);
            manifest
                .push_str(&format!("[image.{target}]\nbase = \":{base}\"\ncompression = \"{compression}\"\n{rest}"));
        }
    };
    for sample in &samples {
        image(sample.name, sample.name, "");
    }
    if let Some(package) = (is_wanted("built") && !is_large()).then(toolchain::package).flatten() {
        image("built", "sh", "layers = [{ from = \":made\", path = \"made\", to = \"/srv\" }]\n");
        fs::write(home.path("busybox.deb"), &package).unwrap();
        fs::write(home.workspace().join("cas.lock"), toolchain::lock(&package)).unwrap();
        let mirror = home.folder.path().display();
        manifest.push_str(&format!(
            "[toolchain.sh]\ndebian = {{ suite = \"test\", packages = [\"busybox\"], mirror = \"file://{mirror}\" }}\n\
             [command.made]\ntoolchain = \":sh\"\noutputs = [\"made\"]\nrun = \"\"\"{MADE}\"\"\"\n"
        ));
        samples.push(Sample { name: "built", layers: Vec::new() });
    }
    for sample in samples.iter().filter(|sample| !sample.layers.is_empty()) {
        let layout = layouts.join(sample.name);
        write_layout(&layout, &sample.layers);
        // Without the link the layers would be passed on as they are.
        manifest.push_str(&format!(
            "[toolchain.{}]\nimage = \"oci:{}:t\"\nadd = [{{ link = \"/added\", target = \"x\" }}]\n",
            sample.name,
            layout.display()
        ));
    }
    fs::write(home.workspace().join("cas.toml"), manifest).unwrap();
    let mut refused = BTreeMap::new();
    for sample in &samples {
        for format in &FORMATS {
            let target = target(sample.name, format.name);
            let from = format!("oci:{}:t", layouts.join(sample.name).display());
            let to = format!("oci:{}:{target}", home.workspace().join("cas-out").join(&target).display());
            let made = if way == Way::Made || sample.layers.is_empty() {
                home.cas(&["build", &format!(":{target}")]).output().unwrap()
            } else {
                let arguments = ["image", "convert", &from, "--compression", format.name, "--to", &to];
                home.cas(&arguments).output().unwrap()
            };
            if made.status.success() {
                continue;
            }
            let said = String::from_utf8_lossy(&made.stderr).into_owned();
            let known = REFUSED.iter().find(|(what, how, _)| *what == sample.name && *how == format.name);
            match known {
                Some((_, _, word)) if said.contains(word) => drop(refused.insert(target, *word)),
                _ => panic!("{target}: {said}"),
            }
        }
    }
    let is_here = |what: &str| samples.iter().any(|sample| sample.name == what);
    for (what, how, _) in REFUSED.iter().filter(|(what, _, _)| way == Way::Converted && is_here(what)) {
        assert!(refused.contains_key(&target(what, how)), "{what} is taken as {how}");
    }
    (samples, refused)
}

const MADE: &str = "
mkdir -p 'made/a b' made/deep/deep/deep/deep made/empty
echo 'it runs' > made/told
echo content > 'made/a b/ä'
ln -s '../told' 'made/a b/link'
cp made/told made/deep/deep/deep/deep/copy
chmod 755 made/deep/deep/deep/deep/copy
touch made/nothing
i=0; while [ $i -lt 300 ]; do echo $i > made/deep/$i; i=$((i+1)); done
";

/// Asks each judge about each image.
fn asked(home: &Home, way: Way, go: Option<&Path>) -> BTreeMap<(usize, usize), BTreeMap<&'static str, Verdict>> {
    let mut outcomes: BTreeMap<(usize, usize), BTreeMap<&'static str, Verdict>> = BTreeMap::new();
    let absent: Vec<&str> = ["python3", "tar", "umoci", "skopeo", "podman", "zstd", "gzip"]
        .into_iter()
        .filter(|program| !has(program))
        .inspect(|program| missing(program))
        .collect();
    let (samples, refused) = images(home, way, go.is_some());
    for sample in &samples {
        for (row, format) in FORMATS.iter().enumerate() {
            let tag = target(sample.name, format.name);
            if let Some(why) = refused.get(&tag) {
                for column in 0..JUDGES.len() {
                    outcomes.entry((row, column)).or_default().insert(sample.name, Verdict::Unmade(why));
                }
                continue;
            }
            let place = home.path(&format!("judged-{tag}"));
            let given = home.path("layouts").join(sample.name);
            let mut case = Case {
                sample,
                format,
                layout: home.workspace().join("cas-out").join(&tag),
                tag,
                given: given.exists().then_some(given),
                place: place.clone(),
                tars: place.join("tars"),
                go: go.map(Path::to_path_buf),
            };
            fs::create_dir_all(&case.tars).unwrap();
            for (column, (_, program, judge)) in JUDGES.iter().enumerate() {
                let verdict = if *program == "go" && go.is_none() {
                    Verdict::NotFor("`cargo xtask test --peers images` asks it")
                } else if absent.contains(program) {
                    Verdict::Missing(program)
                } else {
                    case.place = place.join(column.to_string());
                    fs::create_dir(&case.place).unwrap();
                    let verdict = judge(&case).unwrap_or_else(Verdict::Refused);
                    run(Command::new("rm").arg("-rf").arg(&case.place));
                    verdict
                };
                outcomes.entry((row, column)).or_default().insert(sample.name, verdict);
            }
            run(Command::new("rm").arg("-rf").arg(&place));
        }
    }
    outcomes
}

/// Why a judge refuses an image, where that is known.
fn known(way: Way, judge: &str, sample: &str, refusal: &str) -> Option<&'static str> {
    let found = KNOWN.iter().find(|(how, who, what, word, _)| {
        way == *how && judge.contains(who) && sample == *what && refusal.contains(word)
    });
    found.map(|(_, _, _, _, why)| *why)
}

/// A sign of the table, with the reason for it where there is one.
type Mark = (char, Option<String>);

/// The table of outcomes, a row for each format and judge and a column for each sample, with what is behind its marks; and what
/// nobody knew of.
fn table(way: Way, outcomes: &BTreeMap<(usize, usize), BTreeMap<&'static str, Verdict>>) -> (String, Vec<String>) {
    let mut faults = Vec::new();
    let mut cells: BTreeMap<(usize, usize), Vec<Mark>> = BTreeMap::new();
    for ((row, column), verdicts) in outcomes {
        let (format, judge) = (FORMATS[*row].name, JUDGES[*column].0);
        let cell = |(sample, verdict): (&&str, &Verdict)| match verdict {
            Verdict::Taken => ('+', None),
            Verdict::NotFor(why) => ('–', Some((*why).to_owned())),
            Verdict::Unmade(why) => ('!', Some(format!("`cas` refuses: {why}"))),
            Verdict::Missing(program) => ('–', Some(format!("{program} is missing"))),
            Verdict::Refused(refusal) => match known(way, judge, sample, refusal) {
                Some(why) => ('×', Some(why.to_owned())),
                None => {
                    faults.push(format!("{format}, {judge}, {sample}: {refusal}"));
                    ('×', Some(refusal.clone()))
                }
            },
        };
        cells.insert((*row, *column), verdicts.iter().map(cell).collect());
    }
    let notes: BTreeSet<&String> = cells.values().flatten().filter_map(|(_, note)| note.as_ref()).collect();
    let number = |note: &String| notes.iter().position(|known| *known == note).map_or(0, |index| index + 1);
    let samples: Vec<&str> =
        outcomes.values().next().map(|verdicts| verdicts.keys().copied().collect()).unwrap_or_default();
    let mut text = format!("| format | judge | {} |\n|---|---|{}\n", samples.join(" | "), "---|".repeat(samples.len()));
    for ((row, column), cells) in &cells {
        let shown = cells.iter().map(|(mark, note)| match note {
            None => mark.to_string(),
            Some(note) => format!("{mark} {}", number(note)),
        });
        let shown = shown.collect::<Vec<_>>().join(" | ");
        text.push_str(&format!("| `{}` | {} | {shown} |\n", FORMATS[*row].name, JUDGES[*column].0));
    }
    text.push('\n');
    for note in &notes {
        text.push_str(&format!("{}. {note}\n", number(note)));
    }
    (text, faults)
}

fn judge(way: Way, go: Option<&Path>) -> String {
    let home = Home::new("");
    let outcomes = asked(&home, way, go);
    let (rows, faults) = table(way, &outcomes);
    eprintln!("{way:?}\n{rows}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let gone: Vec<_> = KNOWN
        .iter()
        .filter(|(how, who, what, _, _)| {
            let mut asked = outcomes.iter().filter(|((_, column), _)| JUDGES[*column].0.contains(who));
            let refused = |verdicts: &BTreeMap<_, _>| matches!(verdicts.get(what), Some(Verdict::Refused(_)));
            // Where nobody was asked nothing is known.
            let is_asked = way == *how && go.is_some() && std::env::var_os("CAS_SAMPLE").is_none();
            !is_large() && is_asked && !asked.any(|(_, verdicts)| refused(verdicts))
        })
        .collect();
    assert!(gone.is_empty(), "these are taken now, and need no excuse: {gone:?}");
    rows
}

const HEAD: &str = "
# Layers before their readers

What programs and libraries of others say about images of `cas`, in each format. `CAS_UPDATE=1 cargo xtask test --peers images` writes this
page, and `CAS_LARGE=1` beside it the two tables of large ones. The images are a corpus of hard trees (`tests/peers/layers/corpus.rs`): long names and links in GNU's and POSIX's headers, names that are
no text, extended attributes, owners and modes, hard and symbolic links, sparse files, devices, folders behind what they hold, empty layers,
whiteouts over three layers, 20,000 small files, one of 64 MiB, a program, and a tree that a step made. How long blobs are: ../benchmarks/formats.md.

`+` is taken; `–` is not asked, `!` is not made and `×` is refused, each for the reason with the number behind it.

";
/// Tables of the page, in its order: how the images are made, whether the large ones are large, and the title.
const TABLES: [(Way, bool, &str); 4] = [
    (Way::Converted, false, "`cas image convert`: the given tars, compressed anew"),
    (Way::Made, false, "`cas build`: tars made of what these hold"),
    (Way::Converted, true, "`cas image convert`: 100,000 files, and one of 4 GiB"),
    (Way::Made, true, "`cas build`: 100,000 files, and one of 4 GiB"),
];

/// The page with new tables; those that were not made stay.
fn page(before: &str, made: &BTreeMap<&str, String>) -> String {
    let mut page = format!("{}\n", HEAD.trim());
    for (_, _, title) in TABLES {
        let old =
            || before.split("\n## ").find_map(|part| part.strip_prefix(title)).map(|table| table.trim().to_owned());
        if let Some(table) = made.get(title).map(|table| table.trim().to_owned()).or_else(old) {
            page.push_str(&format!("\n## {title}\n\n{table}\n"));
        }
    }
    page
}

#[test]
fn a_table_that_was_not_made_stays_on_the_page() {
    let [first, second, ..] = TABLES.map(|(_, _, title)| title);
    let both = page("", &BTreeMap::from([(first, "a".to_owned()), (second, "b".to_owned())]));
    assert!(both.ends_with(&format!("\n## {first}\n\na\n\n## {second}\n\nb\n")), "{both}");
    let changed = page(&both, &BTreeMap::from([(first, "c".to_owned())]));
    assert_eq!(changed, both.replace("\n\na\n", "\n\nc\n"));
}

#[test]
fn layers_are_taken_by_the_quick_judges() {
    judge(Way::Converted, None);
}

#[test]
#[ignore = "cargo xtask test --peers images"]
fn layers_are_taken_by_the_libraries_of_clients() {
    let go = std::env::var_os("CAS_JUDGE").expect("CAS_JUDGE tells where the program of tests/judges is");
    let tables: BTreeMap<&str, String> = TABLES
        .into_iter()
        .filter(|(_, large, _)| *large == is_large())
        .map(|(way, _, title)| (title, judge(way, Some(Path::new(&go)))))
        .collect();
    if std::env::var_os("CAS_UPDATE").is_some() {
        let is_whole = !tables.values().any(|table| table.contains("is missing"));
        assert!(is_whole, "the page is written where all judges are: run `cargo xtask peers`");
        assert!(std::env::var_os("CAS_SAMPLE").is_none(), "the page is about all of them");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, page(&before, &tables)).unwrap();
    }
}
