//! Secrets: a step can read them, and they stay nowhere. Folders that steps keep: outside of everything else.

use std::fs;
use std::path::Path;

use crate::{Home, text};

const TOKEN: &str = "t0k3n/with+odd = \"chars\"";
/// What [`TOKEN`] looks like in URLs and as base64.
const FORMS: [&str; 3] = [TOKEN, "t0k3n%2Fwith%2Bodd%20%3D%20%22chars%22", "dDBrM24vd2l0aCtvZGQgPSAiY2hhcnMi"];

/// Files below a folder that hold one of the forms of the token.
fn files_with_token(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_with_token(&path));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            let holds = |form: &str| bytes.windows(form.len()).any(|window| window == form.as_bytes());
            if FORMS.iter().any(|form| holds(form)) {
                found.push(path.display().to_string());
            }
        }
        if path.to_string_lossy().contains("t0k3n") {
            found.push(path.display().to_string());
        }
    }
    found
}

fn manifest(run: &str) -> String {
    format!(
        "[workspace]\n[command.use]\ntoolchain = \":sh\"\nsecrets = [\"TOKEN\"]\noutputs = [\"out\"]\nrun = '''\n{run}\n'''\n"
    )
}

/// Everything that a step can do to give it away, and a scan of all that is left.
#[test]
fn a_secret_is_read_by_its_step_and_stays_nowhere() {
    let run = "s=/run/secrets/TOKEN\n\
        cat $s\n\
        base64 $s\n\
        printf 'user:%s' \"$(cat $s)\" | base64\n\
        sed 's/\\//%2F/; s/+/%2B/; s/ /%20/g; s/=/%3D/; s/\"/%22/g' $s\n\
        dd if=$s bs=1 count=9 2>/dev/null; sleep 0.2; dd if=$s bs=1 skip=9 2>/dev/null; echo\n\
        sed 's/^/>/' $s >&2\n\
        wc -c < $s > out; stat -c '%a %U' $s >> out\n\
        (echo x > $s) 2>/dev/null && exit 7\n\
        cut -d/ -f3 $s > /tmp/dropped\n\
        env >> out";
    let Some(home) = Home::with_busybox(&manifest(run), &[]) else { return };
    let missing = home.cas(&["build", ":use"]);
    assert_eq!(missing.status.code(), Some(2));
    let stderr = text(&missing.stderr);
    assert!(stderr.contains("error: `//:use` needs the secret `TOKEN`, which is not there"), "{stderr}");
    assert!(stderr.contains("hint: set the variable `TOKEN`, or use `--secret TOKEN=FILE`"), "{stderr}");

    let built = home.command(&["build", ":use", "--format", "json"]).env("TOKEN", TOKEN).output().unwrap();
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let out = home.read("cas-out/use/out");
    assert!(out.starts_with(&format!("{}\n400 build\n", TOKEN.len())), "{out}");
    assert!(!out.contains("TOKEN"), "it is no variable: {out}");
    let logs: Vec<String> = fs::read_dir(home.folder.path().join("store/v1/logs"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let [log] = logs.as_slice() else { panic!("{logs:?}") };
    assert!(log.starts_with("***"), "{log}");
    assert!(log.contains(">***"), "{log}");
    assert!(log.matches("***").count() >= 4, "{log}");
    assert_eq!(files_with_token(home.folder.path()), Vec::<String>::new());
    for stream in [&built.stdout, &built.stderr] {
        assert!(!text(stream).contains("t0k3n"), "{}", text(stream));
    }

    // The value is in no key: whoever has another one, or none, gets the same.
    let again = home.cas(&["build", ":use"]);
    assert_eq!(text(&again.stderr).lines().last(), Some("0 steps ran, 1 was cached"));
    // Which secrets it has is.
    let text_of = fs::read_to_string(home.workspace().join("cas.toml")).unwrap();
    home.write("cas.toml", &text_of.replace("[\"TOKEN\"]", "[\"OTHER\", \"TOKEN\"]"));
    let why = home.cas(&["why", ":use"]);
    assert!(text(&why.stdout).contains("OTHER"), "{}", text(&why.stdout));
    let missing = home.command(&["build", ":use"]).env("TOKEN", TOKEN).output().unwrap();
    assert!(text(&missing.stderr).contains("needs the secret `OTHER`"), "{}", text(&missing.stderr));
}

#[test]
fn a_step_that_leaves_a_secret_fails_and_nothing_of_it_is_kept() {
    let Some(home) = Home::with_busybox(&manifest("true"), &[]) else { return };
    let file = home.folder.path().join("token-file");
    let option = format!("TOKEN={}", file.display());
    for (run, place) in [
        ("cp /run/secrets/TOKEN out", "into `out`"),
        ("mkdir out; (head -c 70000 /dev/zero; base64 /run/secrets/TOKEN) > out/b", "into `out/b`"),
        ("mkdir out; ln -s \"$(cat /run/secrets/TOKEN)\" out/l", "into the link `out/l`"),
        (
            "mkdir out; : > \"out/$(cut -d/ -f1 /run/secrets/TOKEN)-$(base64 /run/secrets/TOKEN)\"",
            "into the name of a file",
        ),
        ("echo x > out; : > \"$(base64 /run/secrets/TOKEN)\"", "into the name of a file"),
        ("echo made > out; cat /run/secrets/TOKEN; exit 3", ""),
    ] {
        home.write(
            "cas.toml",
            &fs::read_to_string(home.workspace().join("cas.toml")).unwrap().replace("\ntrue\n", "\nRUN\n"),
        );
        let whole = fs::read_to_string(home.workspace().join("cas.toml")).unwrap();
        let begin = whole.find("'''").unwrap();
        let end = whole.rfind("'''").unwrap();
        home.write("cas.toml", &format!("{}'''\n{run}\n{}", &whole[..begin], &whole[end..]));
        // From a file, whose end of line is no part of it.
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let output = home.cas(&["build", ":use", "--secret", &option]);
        fs::remove_file(&file).unwrap();
        assert_eq!(output.status.code(), Some(1), "{run}: {}", text(&output.stderr));
        let stderr = text(&output.stderr);
        if !place.is_empty() {
            assert!(stderr.contains(&format!("error: `//:use` wrote the secret `TOKEN` {place}")), "{run}: {stderr}");
        }
        assert!(!stderr.contains("t0k3n"), "{stderr}");
        assert_eq!(files_with_token(home.folder.path()), Vec::<String>::new(), "{run}");
    }
    let short = home.command(&["build", ":use"]).env("TOKEN", "abc").output().unwrap();
    assert_eq!(short.status.code(), Some(2));
    assert!(text(&short.stderr).contains("the secret `TOKEN` of `//:use` has fewer than 6"), "{}", text(&short.stderr));
}

const CACHED: &str = "[workspace]\n[command.build]\ntoolchain = \":sh\"\ncache = [\"target\"]\noutputs = [\"out\"]\n\
    run = '''\necho x >> target/runs; wc -l < target/runs; cp a out\n'''\n\
    [command.above]\ntoolchain = \":sh\"\ndeps = [\":build\"]\noutputs = [\"all\"]\ninputs = [\"a\"]\nrun = \"cat out > all; ls > /tmp/l; ! grep target /tmp/l\"\n";

/// The state is there in the next run, is in no key and no result, and what was made with it says so.
#[test]
fn a_private_folder_stays_and_is_part_of_nothing() {
    let Some(home) = Home::with_busybox(CACHED, &[("a", "1"), ("target/of-the-workspace", "hidden")]) else { return };
    let runs = || -> Vec<String> {
        let mut logs: Vec<String> = fs::read_dir(home.folder.path().join("store/v1/logs"))
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap().trim().to_owned())
            .filter(|log| !log.is_empty())
            .collect();
        logs.sort();
        logs
    };
    let built = home.cas(&["build"]);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    assert_eq!(text(&built.stdout).matches("(made with state of earlier runs)").count(), 2, "{}", text(&built.stdout));
    assert_eq!(runs(), ["1"]);
    home.write("target/of-the-workspace", "is no input");
    assert_eq!(text(&home.cas(&["build"]).stderr).lines().last(), Some("0 steps ran, 2 were cached"));
    home.write("a", "2");
    assert_eq!(home.cas(&["build"]).status.code(), Some(0));
    assert_eq!(runs(), ["1", "2"], "the second run found what the first one left");
    // What may be half done is not built on.
    let text_of = fs::read_to_string(home.workspace().join("cas.toml")).unwrap();
    home.write("cas.toml", &text_of.replace("cp a out", "cp a out; kill -9 $$"));
    assert_eq!(home.cas(&["build", ":build"]).status.code(), Some(1));
    home.write("cas.toml", &text_of);
    home.write("a", "3");
    let json = home.cas(&["build", ":above", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["results"][0]["incremental"], serde_json::json!(["//:build"]));
    assert_eq!(runs(), ["1", "1", "2", "3"], "the one that was killed printed `3`, and the one after it began anew");
    assert!(!home.workspace().join("cas-out/above/target").exists());
    // Another workspace has its own.
    let gone = home.cas(&["store", "gc", "--keep", "0s"]);
    assert!(text(&gone.stdout).contains("1 private folder"), "{}", text(&gone.stdout));
}

/// A step that is different because of what it kept is found.
#[test]
fn repeating_a_step_begins_with_nothing_kept() {
    let manifest = CACHED.replace("cp a out", "cp target/runs out");
    let Some(home) = Home::with_busybox(&manifest, &[("a", "1")]) else { return };
    assert_eq!(home.cas(&["build", ":build"]).status.code(), Some(0));
    home.write("a", "2");
    assert_eq!(home.cas(&["build", ":build"]).status.code(), Some(0));
    let repeated = home.cas(&["build", ":build", "--check-repeat"]);
    assert_eq!(repeated.status.code(), Some(1));
    assert!(text(&repeated.stderr).contains("`out`"), "{}", text(&repeated.stderr));
}

/// Files that are named on the command line can be files of the workspace, and then steps would find them.
#[test]
fn files_of_the_command_line_are_seen_against_the_workspace() {
    let Some(home) = Home::with_busybox(&manifest("echo x > out"), &[("token", TOKEN), (".gitignore", "ignored\n")])
    else {
        return;
    };
    home.write("ignored", TOKEN);
    let outside = home.folder.path().join("token");
    fs::write(&outside, TOKEN).unwrap();
    let outside = format!("TOKEN={}", outside.display());
    for (arguments, expected) in [
        (&["--secret", "TOKEN=token"][..], "is in `"),
        (&["--secret", "TOKEN=missing"], "missing"),
        (&["--secret", "OTHER=token"], "no step of the workspace has the secret `OTHER`"),
        (&["--secret", &outside, "--secret", &outside], "is there twice"),
        (&["--secret", "TOKEN"], "write `NAME=FILE`"),
    ] {
        let output = home.cas(&[&["build", ":use"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
    for fine in [&outside, "TOKEN=ignored"] {
        let output = home.cas(&["build", ":use", "--secret", fine]);
        assert_eq!(output.status.code(), Some(0), "{fine}: {}", text(&output.stderr));
    }
    for (trace, is_told) in [("trace.json", true), ("ignored", false), ("cas-out/trace.json", false)] {
        let output = home.cas(&["build", ":use", "--secret", &outside, "--trace", trace]);
        let told = text(&output.stderr).contains("is a file of the workspace");
        assert_eq!((output.status.code(), told), (Some(0), is_told), "{trace}: {}", text(&output.stderr));
    }
}
