//! `cas registry probe`: against registries of tests that behave as rows say, and against `cas serve`.

use cas_testing::registry::{FakeRegistry, Gate, Manner};
use serde_json::Value;

use crate::push::{ends, home, json};
use crate::serve::Served;
use crate::{Home, text};

/// The digest of `{}`.
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// A line of what was found.
#[track_caller]
fn line<'a>(found: &'a Value, name: &str) -> &'a str {
    let rows = found["results"].as_array().unwrap();
    rows.iter().find(|row| row["line"] == name).and_then(|row| row["found"].as_str()).unwrap_or("no line")
}

#[test]
fn a_registry_is_asked_and_compared_with_what_is_known() {
    let home = home();
    for (manner, hosted, expected, differs) in [
        (Manner::default(), "ghcr", vec![("referrers", "404"), ("subject", "no"), ("upload-pieces", "202")], vec![]),
        (
            Manner { lists_referrers: true, mounts: true, ..Manner::default() },
            "ghcr",
            vec![("referrers", "200"), ("subject", "yes"), ("mount", "yes")],
            vec!["referrers", "subject"],
        ),
        (
            Manner { says_created: true, ..Manner::default() },
            "ecr",
            vec![("upload-pieces", "201"), ("mount", "no"), ("upload-whole", "yes")],
            vec![],
        ),
        (Manner { hides_digest: true, ..Manner::default() }, "harbor", vec![("digest-header", "no")], vec![]),
        (Manner { no_pieces: true, ..Manner::default() }, "harbor", vec![("upload-pieces", "no (404)")], vec![]),
        (Manner { tags_page: Some(1), ..Manner::default() }, "quay", vec![("pages", "by Link")], vec![]),
        (
            Manner { no_repositories: true, ..Manner::default() },
            "harbor",
            vec![("upload-whole", "no (404)"), ("upload-pieces", "no upload"), ("delete", "yes")],
            vec![],
        ),
    ] {
        let fake = FakeRegistry::start(Gate::Open);
        ends(&home, &["push", ":one", &format!("{}/a:1.0.0", fake.address())], 0, &[]);
        ends(&home, &["push", ":one", &format!("{}/a:2.0.0", fake.address())], 0, &[]);
        fake.manner(Manner { tags_page: Some(manner.tags_page.unwrap_or(100)), ..manner.clone() });
        let place = format!("{}/a", fake.address());
        let before = fake.paths();
        let found = json(&home, &["registry", "probe", &place, "--write", "--as", hosted]);
        // What was made is gone, but for the two bytes that every artifact may have.
        let left: Vec<String> = fake.paths().into_iter().filter(|path| !before.contains(path)).collect();
        assert!(left.iter().all(|path| path.ends_with(EMPTY)), "{manner:?}: {left:?}");
        for (name, value) in expected {
            assert_eq!(line(&found, name), value, "{manner:?}: {found}");
        }
        let rows = found["results"].as_array().unwrap();
        let found_differs: Vec<&str> =
            rows.iter().filter(|row| row["differs"] == true).filter_map(|row| row["line"].as_str()).collect();
        assert_eq!(found_differs, differs, "{manner:?}: {found}");
        assert_eq!(found["exit"], if differs.is_empty() { "done" } else { "failed" }, "{manner:?}");
    }
}

#[test]
fn nothing_is_written_without_leave_and_no_answer_is_told() {
    let (home, fake) = (home(), FakeRegistry::start(Gate::Open));
    ends(&home, &["push", ":one", &format!("{}/a:1.0.0", fake.address())], 0, &[]);
    let before = fake.requests().len();
    let place = format!("{}/a", fake.address());
    ends(&home, &["registry", "probe", &place], 0, &["nothing is known of this host"]);
    let requests = fake.requests();
    assert!(requests[before..].iter().all(|request| matches!(&request.line[..4], "GET " | "HEAD")), "{requests:?}");
    ends(&home, &["registry", "probe", fake.address(), "--write"], 2, &["`--write` needs a repository"]);
    ends(&home, &["registry", "probe", &place, "--as", "nobody"], 2, &["nothing is known of it"]);
    ends(&home, &["registry", "probe", "ghcr"], 2, &["is no registry or repository"]);
    let nobody = home.cas(&["registry", "probe", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stdout).contains("no answer"), "{}", text(&nobody.stdout));
}

#[test]
fn a_probe_tells_who_is_let_in_and_no_secrets() {
    let home = home();
    let basic = "Basic bWU6czNjcmV0".to_owned();
    let auth = home.folder.path().join("auth.json");
    for (gate, login, kind, service) in [
        (Gate::Open, "not asked for", "none", "no line"),
        (Gate::Basic(basic.clone()), "let in", "Basic", "no line"),
        (Gate::Token(basic), "let in", "Bearer", "fake"),
        (Gate::Anonymous, "refused (401)", "Bearer", "fake"),
    ] {
        let fake = FakeRegistry::start(gate.clone());
        fake.put("", "application/json", b"{}");
        let entry = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6czNjcmV0"}}}}}}"#, fake.address());
        std::fs::write(&auth, entry).unwrap();
        let mut command = home.command(&["--format", "json", "registry", "probe", fake.address()]);
        let output = command.env("REGISTRY_AUTH_FILE", &auth).output().unwrap();
        let all = text(&output.stdout) + &text(&output.stderr);
        assert!(!all.contains("s3cret") && !all.contains("czNjcmV0") && !all.contains("let-me-in"), "{all}");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (line(&found, "login"), line(&found, "authentication"), line(&found, "token-service")),
            (login, kind, service),
            "{gate:?}: {all}"
        );
    }
}

/// Our own registry does all of it, and has nothing of a probe afterwards.
#[test]
fn our_own_registry_is_as_the_specification_has_it() {
    let home = home();
    let served = Served::start(&home, &["--allow-deletes"]);
    ends(&home, &["push", ":one", &served.to("a:1.0.0")], 0, &[]);
    let found = json(&home, &["registry", "probe", &served.to("a"), "--write"]);
    for (name, value) in [
        ("api", "200"),
        ("authentication", "none"),
        ("login", "not asked for"),
        ("tags", "200"),
        ("sha512", "yes"),
        ("head", "200"),
        ("digest-header", "yes"),
        ("referrers", "200"),
        ("range", "206"),
        ("upload-whole", "yes"),
        ("upload-pieces", "202"),
        ("mount", "yes"),
        ("subject", "yes"),
        ("delete", "yes"),
    ] {
        assert_eq!(line(&found, name), value, "{name}: {found}");
    }
    assert_eq!((line(&found, "left-behind"), &found["exit"]), ("no line", &"done".into()), "{found}");
    drop(served);
    let other = Home::new("[workspace]\n");
    let served = Served::start(&other, &[]);
    ends(&home, &["push", ":one", &served.to("a:1.0.0")], 0, &[]);
    let found = json(&home, &["registry", "probe", &served.to("a"), "--write"]);
    assert!(line(&found, "delete").starts_with("no ("), "{found}");
    assert!(line(&found, "left-behind").contains("sha256:"), "{found}");
}
