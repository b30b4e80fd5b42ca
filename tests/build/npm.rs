//! npm: tarballs as npm makes them, and `node_modules` from a lockfile, with a registry of files.

use std::fs;

use crate::registry::{Made, serve};
use crate::{Home, text};

/// The value of a key in the JSON of one packed target.
#[track_caller]
fn packed(home: &Home, target: &str, key: &str) -> String {
    let output = home.cas(&["npm", "pack", target, "--format", "json", "--pack-destination", "packed"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    match &document["results"][0][key] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Names that need every form of header. The digest is that of the tar that npm 11.19.1 made of these files.
#[test]
fn a_tarball_is_that_of_npm() {
    let (a, b, d, e, g) = ("a".repeat(91), "b".repeat(150), "d".repeat(100), "e".repeat(100), "g".repeat(120));
    let files: Vec<(String, String)> = [
        ("package.json", "{\"name\":\"p\",\"version\":\"1.0.0\"}"),
        ("ä.js", "x"),
        (&a, "x"),
        (&format!("{a}a1"), "x"),
        (&format!("{a}{}", "a".repeat(8)), "x"),
        (&format!("{b}.js"), "x"),
        (&format!("{}/{}/f.js", "d".repeat(60), "e".repeat(60)), "x"),
        (&format!("{d}/{e}/{}.js", "f".repeat(40)), "x"),
        (&format!("{d}/{e}/{g}.js"), "x"),
        (&format!("{}/x.js", "ü".repeat(60)), "x"),
        (&format!("{}/{}.js", "😀".repeat(30), "é".repeat(50)), "x"),
        ("empty", ""),
        ("@x/y.js", "x"),
        ("x y/z (1).txt", "x"),
        (&format!("lib/{}.js", "k".repeat(88)), "x"),
        (&format!("lib/{}.js", "k".repeat(87)), "x"),
        (&format!("lib/{}.js", "k".repeat(86)), "x"),
    ]
    .into_iter()
    .map(|(path, content)| (path.to_owned(), content.to_owned()))
    .chain([("src/日本語/x.txt".to_owned(), "hello".repeat(300)), ("big".to_owned(), "0123456789".repeat(300_000))])
    .collect();
    let home = Home::new("[workspace]\n[npm.x]\n");
    for (path, content) in &files {
        home.write(path, content);
    }
    // Sources of a package are not more executable on one machine than on another.
    assert_eq!(packed(&home, ":x", "tar"), "sha256:dfb1d5ff99593af80453496ed4926bf465006d06c9befdd2a421e9f1e5dd48fc");
    let golden = "sha512-RvRC/ti6u6xG1dfSg8G5gN0Ep9GU/03sX1X7knHFmruRPTn1VGPdCn+xXLsuoVDL6L2aArAyqY+en0jjYFATpw==";
    assert_eq!(packed(&home, ":x", "integrity"), golden);
}

#[test]
fn the_list_of_files_follows_the_rules() {
    for (manifest, expected) in [
        ("", "bin/run .npmrc.js src/a.js index.js package.json src/a.map README.md"),
        (", \"files\": [\"src\", \"!**/*.map\"], \"main\": \"index.js\"", "src/a.js index.js package.json README.md"),
        (", \"bin\": \"./bin/run\", \"files\": []", "bin/run package.json README.md"),
    ] {
        let home = Home::new("[workspace]\n[npm.x]\n");
        home.write("package.json", &format!("{{\"name\": \"@s/p\", \"version\": \"1.0.0\"{manifest}}}"));
        for path in [
            "index.js",
            "README.md",
            "src/a.js",
            "src/a.map",
            "src/.DS_Store",
            "bin/run",
            ".npmrc",
            "x.orig",
            "yarn.lock",
            "tmp/x",
            ".npmrc.js",
        ] {
            home.write(path, "");
        }
        home.write(".npmignore", "# not these\ntmp/\n");
        let output = home.cas(&["npm", "pack", "--dry-run"]);
        assert_eq!(text(&output.stdout).lines().collect::<Vec<_>>().join(" "), expected, "{}", text(&output.stderr));
        assert!(!home.workspace().join("s-p-1.0.0.tgz").exists());
    }
}

#[test]
fn ranges_of_the_workspace_become_versions() {
    let home = Home::new("[workspace]\nmembers = [\"*\"]\n");
    home.write("one/cas.toml", "");
    home.write("one/package.json", "{\"name\": \"one\", \"version\": \"1.2.3\"}");
    home.write("two/cas.toml", "[npm.x]\n");
    let manifest = "{ \"name\":\"two\",\n  \"version\":\"2.0.0\", \"dependencies\": {\"one\" :\"workspace:^\"} }\n";
    home.write("two/package.json", manifest);
    packed(&home, "//two:x", "name");
    // The tarball says so when it is unpacked.
    let tarball = home.workspace().join("packed/two-2.0.0.tgz");
    let output =
        std::process::Command::new("tar").arg("-xzOf").arg(tarball).arg("package/package.json").output().unwrap();
    assert_eq!(text(&output.stdout), manifest.replace("workspace:^", "^1.2.3"));
    home.write("two/package.json", &manifest.replace("one", "three"));
    let output = home.cas(&["npm", "pack", "//two:x"]);
    assert_eq!(output.status.code(), Some(2));
    let message = "error: could not pack `//two:x`\n  cause: `workspace:^` of `three`: the workspace has no package `three` with a version\n";
    assert_eq!(text(&output.stderr), message);
}

/// A registry of files with packages made from `files`, given as name, version and further files; returns integrities.
fn registry(home: &Home, packages: &[Made<'_>]) -> Vec<String> {
    let folder = home.folder.path().join("registry");
    packages
        .iter()
        .map(|(name, version, files)| {
            let maker = Home::new("[workspace]\n[npm.x]\n");
            maker.write("package.json", &format!("{{\"name\": \"{name}\", \"version\": \"{version}\"}}"));
            for (path, content) in *files {
                maker.write(path, content);
            }
            let integrity = packed(&maker, ":x", "integrity");
            let base = name.rsplit('/').next().unwrap();
            fs::create_dir_all(folder.join(format!("{name}/-"))).unwrap();
            let made = maker
                .workspace()
                .join("packed")
                .join(format!("{}-{version}.tgz", name.replace(['@'], "").replace('/', "-")));
            fs::copy(made, folder.join(format!("{name}/-/{base}-{version}.tgz"))).unwrap();
            integrity
        })
        .collect()
}

/// A workspace with a lockfile: an application that uses a library, and third parties.
pub(crate) fn workspace() -> Option<(Home, String)> {
    let manifest = "[workspace]\nmembers = [\"apps/*\", \"libs/*\"]\n[fetch.npm]\nlockfile = \"package-lock.json\"\n";
    let look = "toolchain = \"//:sh\"\nrun = \"cd /src; find . -name node_modules -prune -o -print > /tmp/x; find . | sort > apps/web/list; ls -l node_modules/.bin/* | tr -s ' ' > apps/web/bins\"\noutputs = [\"list\", \"bins\"]\n";
    let home = Home::with_busybox(
        manifest,
        &[
            (
                "apps/web/cas.toml",
                &format!(
                    "[command.look]\n{look}deps = [\"//:npm\", \"//libs/ui:build\"]\n[image.image]\nlayers = [{{ from = \"//:npm\", for = \"production\", to = \"/app/node_modules\" }}]\n\
             [image.run]\nbase = \"//:sh\"\nlayers = [{{ from = \"//:npm\", for = \"production\", to = \"/app/node_modules\" }}]\n"
                ),
            ),
            (
                "apps/web/package.json",
                "{\"name\": \"web\", \"dependencies\": {\"ui\": \"*\"}, \"devDependencies\": {\"tool\": \"1.0.0\"}}",
            ),
            (
                "libs/ui/cas.toml",
                "[command.build]\ntoolchain = \"//:sh\"\nrun = \"touch main.js\"\noutputs = [\"main.js\"]\n",
            ),
            ("libs/ui/package.json", "{\"name\": \"ui\", \"dependencies\": {\"@s/left\": \"2.0.0\"}}"),
        ],
    )?;
    let integrities = registry(
        &home,
        &[
            ("@s/left", "2.0.0", &[("index.js", "left"), (".npmignore", "")]),
            ("tool", "1.0.0", &[("cli.js", "#!/bin/sh\necho tool >&2\n")]),
            ("unused", "1.0.0", &[]),
        ],
    );
    let lock = format!(
        r#"{{"lockfileVersion": 3, "packages": {{
        "": {{}},
        "apps/web": {{"name": "web", "dependencies": {{"ui": "*"}}, "devDependencies": {{"tool": "1.0.0"}}}},
        "libs/ui": {{"name": "ui", "dependencies": {{"@s/left": "2.0.0"}}}},
        "node_modules/web": {{"resolved": "apps/web", "link": true}},
        "node_modules/ui": {{"resolved": "libs/ui", "link": true}},
        "node_modules/@s/left": {{"version": "2.0.0", "integrity": "{}", "resolved": "https://registry.npmjs.org/@s/left/-/left-2.0.0.tgz"}},
        "node_modules/tool": {{"version": "1.0.0", "integrity": "{}", "bin": {{"tool": "./cli.js"}}, "dev": true}},
        "node_modules/unused": {{"version": "1.0.0", "integrity": "{}"}},
        "node_modules/win": {{"version": "1.0.0", "integrity": "{}", "os": ["win32"], "optional": true}}
        }}}}"#,
        integrities[0], integrities[1], integrities[2], integrities[2],
    );
    home.write("package-lock.json", &lock);
    Some((home, lock))
}

pub(crate) fn build(home: &Home, arguments: &[&str]) -> std::process::Output {
    let registry = format!("file://{}/registry", home.folder.path().display());
    home.command(arguments).env("npm_config_registry", registry).output().unwrap()
}

#[test]
fn node_modules_hold_what_a_package_reaches() {
    let Some((home, _)) = workspace() else { return };
    let output = build(&home, &["build", "//apps/web/..."]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let list = home.read("cas-out/apps/web/look/list");
    let modules: Vec<&str> =
        list.lines().filter(|line| line.contains("node_modules/") || line.contains("libs/")).collect();
    assert_eq!(
        modules,
        [
            "./libs/ui",
            "./libs/ui/main.js",
            "./libs/ui/package.json",
            "./node_modules/.bin",
            "./node_modules/.bin/tool",
            "./node_modules/@s",
            "./node_modules/@s/left",
            "./node_modules/@s/left/index.js",
            "./node_modules/@s/left/package.json",
            "./node_modules/tool",
            "./node_modules/tool/cli.js",
            "./node_modules/tool/package.json",
            "./node_modules/ui"
        ]
    );
    assert!(home.read("cas-out/apps/web/look/bins").contains("-> ../tool/cli.js"));
    // Offline, everything is there; and a package that is not reached does not matter.
    fs::remove_dir_all(home.folder.path().join("registry")).unwrap();
    let output = build(&home, &["build", "--offline", "//apps/web/..."]);
    assert!(text(&output.stderr).ends_with("0 steps ran, 2 were cached\n"), "{}", text(&output.stderr));
    let output = build(&home, &["run", "//apps/web:run", "--", "/bin/sh", "-c", "cd /app/node_modules; find . | sort"]);
    assert_eq!(text(&output.stdout), ".\n./@s\n./@s/left\n./@s/left/index.js\n./@s/left/package.json\n");
}

/// Those of all packages, at their places; and steps go on as if nothing was there.
#[test]
fn node_modules_are_checked_out_and_are_no_inputs() {
    let Some((home, _)) = workspace() else { return };
    home.write(
        "apps/web/cas.toml",
        &(home.read("apps/web/cas.toml") + "[run.dev]\nrun = \"tool\"\ndeps = [\"//:npm\"]\n"),
    );
    // All files of the root are inputs of this one.
    home.write(
        "cas.toml",
        &(home.read("cas.toml") + "[test.all]\ntoolchain = \":sh\"\nrun = \"! test -e node_modules\"\n"),
    );
    assert_eq!(build(&home, &["test"]).status.code(), Some(0));
    assert_eq!(build(&home, &["build", "//apps/web/..."]).status.code(), Some(0));
    for has_rules in [true, false] {
        if has_rules {
            home.write(".gitignore", "node_modules\n");
            assert_eq!(build(&home, &["test"]).status.code(), Some(0));
        }
        let output = build(&home, &["checkout", "//:npm"]);
        let shown = text(&output.stdout);
        assert_eq!(shown, "node_modules //:npm, 6 written\n", "{}", text(&output.stderr));
        assert_eq!(home.read("node_modules/@s/left/index.js"), "left");
        assert_eq!(
            home.read("node_modules/ui/package.json"),
            home.read("libs/ui/package.json"),
            "a link to the sources"
        );
        assert_eq!(
            fs::read_link(home.workspace().join("node_modules/.bin/tool")).unwrap().to_str(),
            Some("../tool/cli.js")
        );
        let output = build(&home, &["build", "//apps/web/...", "--tests", "//:all"]);
        assert!(text(&output.stderr).ends_with("0 steps ran, 3 were cached\n"), "{}", text(&output.stderr));
        // It is found by programs that run beside it.
        let cli = home.workspace().join("node_modules/tool/cli.js");
        let before = fs::read(&cli).unwrap();
        let output = build(&home, &["run", "//apps/web:dev"]);
        assert!(text(&output.stderr).contains("tool"), "{}", text(&output.stderr));
        assert_eq!(fs::read(&cli).unwrap(), before);
        let output = build(&home, &["checkout", "--clean"]);
        assert_eq!(text(&output.stdout), "node_modules //:npm, 6 removed\n");
        assert!(!home.workspace().join("node_modules").exists());
        let _ = fs::remove_file(home.workspace().join(".gitignore"));
    }
}

/// What a package does not reach is no part of its key, though it is in the same lockfile.
#[test]
fn a_bump_rebuilds_what_reaches_it() {
    let Some((home, lock)) = workspace() else { return };
    let steps = |lock: &str| {
        home.write("package-lock.json", lock);
        let output = build(&home, &["build", "//apps/web:look", "//libs/ui:build"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr).lines().last().unwrap().to_owned()
    };
    assert_eq!(steps(&lock), "2 steps ran, 0 were cached");
    let bumped = |lock: &str, place: &str, name: &str, version: &str, to: &str| {
        let integrity = registry(&home, &[(name, to, &[("index.js", to)])]).remove(0);
        let start = lock.find(&format!("\"{place}\"")).unwrap();
        let end = start + lock[start..].find('}').unwrap();
        let entry = lock[start..end].replace(version, to);
        let old = entry.split('"').find(|word| word.starts_with("sha512-")).unwrap();
        format!("{}{}{}", &lock[..start], entry.replace(old, &integrity), &lock[end..])
    };
    let other = bumped(&lock, "node_modules/unused", "unused", "1.0.0", "1.0.1");
    assert_eq!(steps(&other), "0 steps ran, 2 were cached");
    // Only the application has `node_modules`; it reaches this one by way of the library.
    let left = bumped(&other, "node_modules/@s/left", "@s/left", "2.0.0", "2.0.1");
    assert_eq!(steps(&left), "1 step ran, 1 was cached");
    assert_eq!(steps(&lock), "0 steps ran, 2 were cached");
}

#[test]
fn what_is_wrong_with_a_lockfile_is_told() {
    for (from, to, code, message) in [
        (
            "\"node_modules/unused\"",
            "\"../unused\"",
            2,
            "error: `package-lock.json` cannot be used\n  cause: it names the path `../unused`\n",
        ),
        (
            ": 3,",
            ": 1,",
            2,
            "error: `package-lock.json` cannot be used\n  cause: it has version 1; known are 2 and 3, which npm 7 and later write\n",
        ),
        (
            "\"tool\": \"1.0.0\"}}",
            "\"tool\": \"1.0.1\"}}",
            2,
            "error: `package-lock.json` cannot be used\n  cause: it is out of date: `devDependencies` of `apps/web/package.json` is another now\nhint: run `npm install --package-lock-only`",
        ),
        (
            "{\"@s/left\": \"2.0.0\"}",
            "{\"@s/left\": \"2.0.0\", \"x\": \"1\"}",
            2,
            "error: `package-lock.json` cannot be used\n  cause: it is out of date: `libs/ui` needs `x`, which it does not have\n",
        ),
        (
            "\"version\": \"2.0.0\", \"integrity\": \"sha512-",
            "\"version\": \"2.0.0\", \"integrity\": \"sha512-AAAA",
            2,
            "error: `package-lock.json` cannot be used\n  cause: `node_modules/@s/left` has a bad integrity\n",
        ),
    ] {
        let Some((home, lock)) = workspace() else { return };
        let changed = lock.replacen(from, to, 1);
        assert_ne!(changed, lock);
        home.write("package-lock.json", &changed);
        let output = build(&home, &["build", "//apps/web:look"]);
        let stderr = text(&output.stderr);
        let shown: String =
            stderr.lines().filter(|line| !line.starts_with("ran ")).map(|line| format!("{line}\n")).collect();
        assert!(shown.starts_with(message), "{shown}");
        assert_eq!(output.status.code(), Some(code), "{shown}");
    }
}

#[test]
fn a_tarball_that_is_another_is_refused() {
    let Some((home, _)) = workspace() else { return };
    let tarball = home.folder.path().join("registry/tool/-/tool-1.0.0.tgz");
    let mut bytes = fs::read(&tarball).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tarball, bytes).unwrap();
    let output = build(&home, &["build", "//:npm"]);
    assert_eq!(output.status.code(), Some(3));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("tool-1.0.0.tgz` is not what is pinned") && stderr.contains("nothing was kept"),
        "{stderr}"
    );
}

/// A package of the registry by name: what it says is pinned once, and then it is that.
#[test]
fn a_package_is_pinned_when_it_is_first_used() {
    let manifest = "[workspace]\n[fetch.left]\nnpm = \"left@2.0.0\"\n[command.x]\ntoolchain = \":sh\"\nrun = \"cat left/index.js > out\"\ndeps = [\":left\"]\noutputs = [\"out\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let integrity = registry(&home, &[("left", "2.0.0", &[("index.js", "left\n")])]).remove(0);
    let tarball = fs::read(home.folder.path().join("registry/left/-/left-2.0.0.tgz")).unwrap();
    let document = format!("{{\"versions\": {{\"2.0.0\": {{\"dist\": {{\"integrity\": \"{integrity}\"}}}}}}}}");
    let address = serve(vec![
        ("/npm/left".to_owned(), document.into_bytes()),
        ("/npm/left/-/left-2.0.0.tgz".to_owned(), tarball),
    ]);
    let cas = |arguments: &[&str]| {
        home.command(arguments).env("npm_config_registry", format!("{address}/npm/")).output().unwrap()
    };
    let output = cas(&["build", ":x", "--locked"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = cas(&["build", ":x"]);
    assert!(text(&output.stderr).contains("note: `cas.lock` has new entries; commit it"), "{}", text(&output.stderr));
    let entry = format!(
        "[[npm]]\ntarget = \"//:left\"\nrequest = \"left@2.0.0\"\npath = \"left/-/left-2.0.0.tgz\"\nintegrity = \"{integrity}\"\n"
    );
    assert!(home.read("cas.lock").ends_with(&entry), "{}", home.read("cas.lock"));
    assert_eq!(cas(&["build", ":x", "--locked"]).status.code(), Some(0));
    assert_eq!(home.read("cas-out/x/out"), "left\n");
}
