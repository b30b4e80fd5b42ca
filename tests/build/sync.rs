//! `cas sync`: tags that are brought again and again, with registries of tests that count what they are asked.

use std::fs;

use cas_testing::registry::{FakeRegistry, Fault, Gate};
use serde_json::Value;

use crate::Home;
use crate::push::{ends, home, json};

/// A registry with `src/web` in versions, `src/web:edge` and `src/docs`, and a workspace to change them from.
fn source() -> (Home, FakeRegistry) {
    let (home, source) = (home(), FakeRegistry::start(Gate::Open));
    let to = |rest: &str| format!("{}/src/{rest}", source.address());
    for (version, also) in [("1.0.0", "1.0"), ("1.1.0", "edge"), ("2.0.0", "latest")] {
        home.write("site/index.html", &format!("<p>{version}</p>\n"));
        ends(&home, &["push", ":one", &to(&format!("web:{version}")), &to(&format!("web:{also}"))], 0, &[]);
    }
    ends(&home, &["push", ":docs", &to("docs:1.0.0")], 0, &[]);
    let tags = br#"{"name": "src/web", "tags": ["1.0", "1.0.0", "1.1.0", "2.0.0", "edge", "latest"]}"#;
    source.put("src/web/tags/list", "application/json", tags);
    (home, source)
}

fn file(home: &Home, source: &FakeRegistry, target: &FakeRegistry) {
    let (from, to) = (source.address(), target.address());
    home.write(
        "mirror.toml",
        &format!(
            "[[image]]\nfrom = \"{from}/src/web\"\nto = [\"{to}/web\", \"{to}/again/web\"]\nsemver = \"^1\"\ntags = [\"edge\", \"latest\"]\n\
             [[image]]\nfrom = \"{from}/src/docs\"\nto = [\"{to}/docs\"]\ntags = [\"1.0.0\"]\n[host.\"{to}\"]\nat_once = 2\n"
        ),
    );
}

/// Rows as `tag destination`, without the host.
fn rows(found: &Value, host: &str) -> Vec<String> {
    let row = |row: &Value| {
        let place = row["destination"].as_str().unwrap().strip_prefix(host).unwrap();
        format!("{} {place}", row["tag"].as_str().unwrap())
    };
    found["results"].as_array().unwrap_or_else(|| panic!("{found}")).iter().map(row).collect()
}

#[test]
fn tags_are_pinned_brought_and_looked_for_with_one_request_each() {
    let ((home, source), target) = (source(), FakeRegistry::start(Gate::Open));
    file(&home, &source, &target);
    ends(&home, &["sync", "apply", "mirror.toml"], 2, &["nothing is pinned", "`cas sync plan FILE` pins it"]);
    let planned = json(&home, &["sync", "plan", "mirror.toml"]);
    let expected = ["1.0.0", "1.1.0", "edge", "latest"].map(|tag| format!("new /web:{tag}"));
    assert_eq!(rows(&planned, target.address())[..4], expected);
    assert_eq!(planned["results"].as_array().map(Vec::len), Some(9));
    assert!(target.requests().iter().all(|request| request.line.starts_with("HEAD ")), "a plan sends nothing");
    let lock = home.read("mirror.lock");
    assert_eq!(json(&home, &["sync", "apply", "mirror.toml"])["exit"], "done");
    for tag in ["1.0.0", "1.1.0", "edge", "latest"] {
        let document = |fake: &FakeRegistry, path: &str| fake.get(&format!("{path}/manifests/{tag}"));
        assert_eq!(document(&target, "web"), document(&source, "src/web"), "{tag}");
        assert_eq!(document(&target, "again/web"), document(&source, "src/web"), "{tag}");
    }
    assert_eq!(target.get("docs/manifests/1.0.0"), source.get("src/docs/manifests/1.0.0"));
    assert!(target.get("web/manifests/2.0.0").is_none() && target.get("web/manifests/1.0").is_none());
    assert!(!home.workspace().join("mirror.journal").exists());

    // Again: a request a tag, and none of the source.
    let (asked, asked_of_source) = (target.requests().len(), source.requests().len());
    let again = json(&home, &["sync", "apply", "mirror.toml"]);
    assert!(rows(&again, target.address()).iter().all(|row| row.starts_with("same ")), "{again}");
    assert_eq!((target.requests().len() - asked, source.requests().len() - asked_of_source), (9, 0));
    ends(&home, &["sync", "verify", "mirror.toml"], 0, &["9 tags, 9 of them as pinned"]);

    // What moves at the source moves when it is pinned anew, and not before.
    home.write("site/index.html", "<p>new</p>\n");
    let edge = format!("{}/src/web:edge", source.address());
    ends(&home, &["push", ":one", &edge, "--move-tag", "edge"], 0, &[]);
    json(&home, &["sync", "plan", "mirror.toml"]);
    assert_eq!(home.read("mirror.lock"), lock);
    let updated = json(&home, &["sync", "plan", "mirror.toml", "--update"]);
    assert_eq!(rows(&updated, target.address()).iter().filter(|row| row.starts_with("moved ")).count(), 2, "{updated}");
    ends(&home, &["sync", "verify", "mirror.toml"], 3, &["9 tags, 7 of them as pinned"]);
    ends(&home, &["sync", "apply", "mirror.toml"], 0, &["2 tags brought"]);
    assert_eq!(target.get("web/manifests/edge"), source.get("src/web/manifests/edge"));
}

#[test]
fn failures_are_of_their_tags_alone_and_a_run_goes_on_where_it_broke_off() {
    let ((home, source), target) = (source(), FakeRegistry::start(Gate::Open));
    file(&home, &source, &target);
    json(&home, &["sync", "plan", "mirror.toml"]);
    // A version that is another one there, and a registry that fails for one repository.
    ends(&home, &["push", ":docs", &format!("{}/web:1.0.0", target.address())], 0, &[]);
    target.fail("/v2/docs/blobs/uploads/", Fault::Status(400, Vec::new()), 1);
    let first = json(&home, &["sync", "apply", "mirror.toml"]);
    let failed = |found: &Value| {
        let rows = found["results"].as_array().unwrap_or_else(|| panic!("{found}")).iter();
        rows.filter(|row| row["tag"] == "failed")
            .map(|row| row["error"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(failed(&first).len(), 2, "{first}");
    assert!(target.get("again/web/manifests/1.0.0").is_some() && target.get("docs/manifests/1.0.0").is_none());
    let journal = home.read("mirror.journal");
    assert_eq!(journal.lines().filter(|line| line.starts_with("done ")).count(), 7, "{journal}");
    let second = json(&home, &["sync", "apply", "mirror.toml"]);
    assert_eq!(second["exit"], "policy", "{second}");
    assert!(failed(&second).len() == 1 && failed(&second)[0].contains("versions do not move"), "{second}");
    assert!(target.get("docs/manifests/1.0.0").is_some());
    ends(&home, &["sync", "apply", "mirror.toml"], 7, &["note: the last run broke off when it had brought 8 tags"]);
    // Who does not answer is told with the tags that are asked for there.
    target.fail("HEAD /v2/docs/", Fault::Status(400, Vec::new()), 1);
    ends(&home, &["sync", "verify", "mirror.toml"], 4, &["9 tags, 7 of them as pinned"]);

    // What was pinned and is gone, or is not there at all.
    let gone = FakeRegistry::start(Gate::Open);
    file(&home, &gone, &target);
    ends(&home, &["sync", "plan", "mirror.toml"], 4, &["has no tag `edge`, `latest`"]);
    for (text, said) in [
        ("[[image]]\nfrom = \"a\"\nto = []\n", "`mirror.toml`, line 2: `a` is no repository"),
        ("[[images]]\n", "`mirror.toml`, line 1: unknown field `images`"),
    ] {
        home.write("mirror.toml", text);
        ends(&home, &["sync", "plan", "mirror.toml"], 2, &[said]);
    }
    ends(&home, &["sync", "plan", "mirror.lock"], 2, &["ends with `.toml`"]);
    fs::remove_file(home.workspace().join("mirror.toml")).unwrap();
    ends(&home, &["sync", "plan", "mirror.toml"], 1, &["mirror.toml"]);
}
