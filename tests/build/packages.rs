//! Generic packages of GitLab: what is sent, found again, refused and read back, against a GitLab of tests.

use cas_testing::gitlab::{FakeGitLab, GitLabManner};

use crate::push::json;
use crate::{Home, text};

const MANIFEST: &str = "[workspace]\n\
    [artifact.docs]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"site\" }, { path = \"read.me\", title = \"README.md\" }]\n\
    [artifact.deep]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"read.me\", title = \"docs/README.md\" }]\n\
    [artifact.sums]\ntype = \"application/vnd.example.docs\"\nfiles = [{ path = \"read.me\", title = \"SHA256SUMS\" }]\n\
    [image.web]\nlayers = [{ files = [\"site/**\"], path = \"site\", to = \"/srv\" }]\n";

fn home() -> Home {
    let home = Home::new(MANIFEST);
    home.write("site/index.html", "<p>one</p>\n");
    home.write("read.me", "hello\n");
    home
}

/// A file of logins for the fake, which the command then reads.
fn login(home: &Home, fake: &FakeGitLab, user: &str) {
    // Base64 of `USER:s3cret`.
    let auth = match user {
        "octocat" => "b2N0b2NhdDpzM2NyZXQ=",
        "gitlab-ci-token" => "Z2l0bGFiLWNpLXRva2VuOnMzY3JldA==",
        _ => "Z2l0bGFiK2RlcGxveS10b2tlbi0zOnMzY3JldA==",
    };
    let text = format!(r#"{{"auths": {{"{}/acme": {{"auth": "{auth}"}}}}}}"#, fake.address());
    std::fs::write(home.folder.path().join("auth.json"), text).unwrap();
}

#[track_caller]
fn push(home: &Home, arguments: &[&str], code: i32, said: &[&str]) {
    let mut command = home.command(&[&["push"], arguments].concat());
    let output = command.env("REGISTRY_AUTH_FILE", home.folder.path().join("auth.json")).output().unwrap();
    let all = text(&output.stderr) + &text(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
    assert!(!all.contains("s3cret"), "{all}");
    for said in said {
        assert!(all.contains(said), "{arguments:?}: {said}: {all}");
    }
}

fn names(fake: &FakeGitLab, version: &str) -> Vec<String> {
    fake.files("tool", version).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn files_go_once_and_are_found_again() {
    for manner in [
        GitLabManner::default(),
        GitLabManner { page: Some(1), ..GitLabManner::default() },
        GitLabManner { redirects: true, ..GitLabManner::default() },
        GitLabManner { hides_digests: true, ..GitLabManner::default() },
        GitLabManner { refuses_duplicates: true, loses_answers: 2, ..GitLabManner::default() },
    ] {
        let home = home();
        let fake = FakeGitLab::start("PRIVATE-TOKEN", "s3cret", manner.clone());
        login(&home, &fake, "octocat");
        // Another version and another package of nearly that name.
        fake.put("tool", "0.9.0", "README.md", b"older");
        fake.put("tool-x", "1.0.0", "README.md", b"other");
        let place = format!("gitlab-generic://{}/acme/tools/tool/1.0.0", fake.address());
        push(&home, &[":docs", &place, "--dry-run"], 0, &["3 files would be sent"]);
        assert_eq!(names(&fake, "1.0.0").len(), 0, "{manner:?}");
        push(&home, &[":docs", &place], 0, &["3 files sent and read back", "0 files were there"]);
        assert_eq!(names(&fake, "1.0.0"), ["README.md", "site.tar.gz", "SHA256SUMS"], "{manner:?}");
        let files = fake.files("tool", "1.0.0");
        let sums: String = files[..2]
            .iter()
            .map(|(name, bytes)| {
                format!("{}  {name}\n", cas_digest::Digest::of(cas_digest::DigestFunction::Sha256, bytes).to_hex())
            })
            .collect();
        assert_eq!(files[2].1, sums.as_bytes(), "{manner:?}");
        push(&home, &[":docs", &place], 0, &["0 files sent and read back", "3 files were there"]);
        assert_eq!(fake.files("tool", "1.0.0"), files, "{manner:?}");
        // Where files are kept nobody is told the token.
        let requests = fake.requests();
        let elsewhere = requests.iter().filter(|request| request.line.contains("/storage/"));
        assert!(elsewhere.clone().all(|request| request.header("private-token").is_none()), "{manner:?}");
        assert_eq!(elsewhere.count() > 0, manner.redirects, "{manner:?}");
    }
}

#[test]
fn a_version_never_gets_other_bytes() {
    for manner in [GitLabManner::default(), GitLabManner { hides_digests: true, ..GitLabManner::default() }] {
        let home = home();
        let fake = FakeGitLab::start("PRIVATE-TOKEN", "s3cret", manner);
        login(&home, &fake, "octocat");
        let place = |version: &str| format!("gitlab-generic://{}/acme/tools/tool/{version}", fake.address());
        push(&home, &[":docs", &place("1.0.0")], 0, &[]);
        let before = fake.files("tool", "1.0.0");
        home.write("read.me", "hello again\n");
        push(&home, &[":docs", &place("1.0.0")], 7, &["has another `README.md`", "give it another version"]);
        push(&home, &[":docs", &place("1.0.0"), "--dry-run"], 7, &["has another `README.md`"]);
        assert_eq!(fake.files("tool", "1.0.0"), before);
        push(&home, &[":docs", &place("1.0.1")], 0, &[]);
        // What broke off before its checksums goes on.
        fake.put("tool", "1.0.2", "README.md", b"hello again\n");
        push(&home, &[":docs", &place("1.0.2")], 0, &["2 files sent", "1 file were there"]);
        assert_eq!(names(&fake, "1.0.2"), ["README.md", "site.tar.gz", "SHA256SUMS"]);
    }
    // What is kept is compared with what was sent.
    let home = home();
    let fake = FakeGitLab::start("PRIVATE-TOKEN", "s3cret", GitLabManner { damages: true, ..GitLabManner::default() });
    login(&home, &fake, "octocat");
    let place = format!("gitlab-generic://{}/acme/tools/tool/1.0.0", fake.address());
    push(&home, &[":docs", &place], 7, &["has another `README.md`"]);
    assert_eq!(names(&fake, "1.0.0"), ["README.md"]);
}

#[test]
fn tokens_are_those_of_the_login_or_of_the_job() {
    let home = home();
    for (user, header) in
        [("octocat", "PRIVATE-TOKEN"), ("gitlab-ci-token", "JOB-TOKEN"), ("gitlab+deploy-token-3", "DEPLOY-TOKEN")]
    {
        let fake = FakeGitLab::start(header, "s3cret", GitLabManner::default());
        login(&home, &fake, user);
        push(&home, &[":docs", &format!("gitlab-generic://{}/acme/tools/tool/1.0.0", fake.address())], 0, &[]);
    }
    let fake = FakeGitLab::start("JOB-TOKEN", "s3cret", GitLabManner::default());
    let place = format!("gitlab-generic://{}/17/tool/1.0.0", fake.address());
    for (server, code) in [(fake.address(), 0), ("gitlab.example", 4)] {
        let mut command = home.command(&["push", ":docs", &place]);
        command.env("CI_JOB_TOKEN", "s3cret").env("CI_SERVER_FQDN", server);
        let output = command.output().unwrap();
        let all = text(&output.stderr) + &text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{server}: {all}");
        assert!(!all.contains("s3cret"), "{all}");
    }
    // Another server's token stays here.
    assert!(fake.requests().last().is_some_and(|request| request.header("job-token").is_none()));
    let place = format!("gitlab-generic://{}/other/project/tool/1.0.0", fake.address());
    let output = home.command(&["push", ":docs", &place]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("hint: put a token into a file of logins"), "{}", text(&output.stderr));
}

#[test]
fn what_is_no_package_is_refused_before_anything_is_sent() {
    let home = home();
    let fake = FakeGitLab::start("PRIVATE-TOKEN", "s3cret", GitLabManner::default());
    login(&home, &fake, "octocat");
    let place = format!("gitlab-generic://{}/acme/tools/tool/1.0.0", fake.address());
    for (arguments, said) in [
        (&[":web", &*place][..], "is an image"),
        (&[":deep", &place], "`docs/README.md` cannot be a file of a package"),
        (&[":sums", &place], "`SHA256SUMS` cannot be a file of a package"),
        (&[":docs", &place, "r.example/a:1"], "is no package, and others are"),
        (&[":docs", &place, "--move-tag", "1"], "packages have no tags"),
        (&[":docs", "gitlab-generic://gitlab.com/tool/1.0.0"], "names no version of a package"),
        (&[":docs", &place, "--offline"], "a push needs the network"),
    ] {
        push(&home, arguments, 2, &[said]);
    }
    assert!(fake.requests().is_empty());
    let found = {
        let mut command = home.command(&["--format", "json", "push", ":docs", &place]);
        let output = command.env("REGISTRY_AUTH_FILE", home.folder.path().join("auth.json")).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let row = &found["results"][0];
    assert_eq!((&row["destination"], &row["files"][0]["state"]), (&place.into(), &"sent".into()), "{found}");
    assert_eq!(json(&home, &["image", "ls"])["exit"], "done");
}
