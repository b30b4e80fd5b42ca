//! pnpm: `node_modules` from a lockfile, with a registry of files; pnpm itself is the judge where it is installed.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use crate::registry::{npm_package, publish, serve};
use crate::{Home, text};

/// Name, version, what the manifest has besides, and a program.
const PACKAGES: [(&str, &str, &str, &str); 8] = [
    ("left", "2.0.0", ", \"bin\": {\"left\": \"./cli.js\", \"@s/right\": \"cli.js\"}", "cli.js"),
    ("left", "1.0.0", "", "index.js"),
    ("@s/deep", "1.0.0", "", "index.js"),
    ("Upper", "1.0.0", "", "index.js"),
    ("tool", "3.0.0", ", \"bin\": \"tool.js\"", "tool.js"),
    ("plugin", "1.0.0", ", \"peerDependencies\": {\"left\": \"*\"}", "index.js"),
    ("unused", "1.0.0", "", "index.js"),
    ("unused", "1.0.1", "", "index.js"),
];

/// Tarballs by name and version, with their integrities.
fn tarballs() -> Vec<(&'static str, &'static str, Vec<u8>, String)> {
    PACKAGES
        .iter()
        .map(|(name, version, manifest, file)| {
            let (bytes, integrity) = npm_package((name, version, &[(file, "#!/bin/sh\n")]), manifest);
            (*name, *version, bytes, integrity)
        })
        .collect()
}

/// A lockfile of version 9: an application with a library of the workspace, aliases, peers, another system's package.
fn lockfile(integrity: &dyn Fn(&str, &str) -> String, unused: &str) -> String {
    let package = |name: &str, version: &str, rest: &str| {
        let key = if name.starts_with('@') { format!("'{name}@{version}'") } else { format!("{name}@{version}") };
        format!("  {key}:\n    resolution: {{integrity: {}}}\n{rest}\n", integrity(name, version))
    };
    let packages: String = [
        package("@s/deep", "1.0.0", ""),
        package("Upper", "1.0.0", ""),
        package("left", "1.0.0", ""),
        package("left", "2.0.0", "    hasBin: true\n"),
        package("plugin", "1.0.0", "    peerDependencies:\n      left: '*'\n"),
        package("tool", "3.0.0", "    hasBin: true\n"),
        package("unused", unused, ""),
        "  win@1.0.0:\n    resolution: {integrity: sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==}\n    os: [win32]\n".to_owned(),
    ]
    .concat();
    format!(
        "lockfileVersion: '9.0'\n\nsettings:\n  autoInstallPeers: true\n  excludeLinksFromLockfile: false\n\nimporters:\n\n  .: {{}}\n\n  apps/web:
    dependencies:
      '@s/ui':
        specifier: workspace:*
        version: link:../../libs/ui
      alias:
        specifier: npm:left@1.0.0
        version: left@1.0.0
    devDependencies:
      tool:
        specifier: ^3.0.0
        version: 3.0.0

  libs/other:
    dependencies:
      unused:
        specifier: ^1.0.0
        version: {unused}

  libs/ui:
    dependencies:
      left:
        specifier: 2.0.0
        version: 2.0.0
      plugin:
        specifier: 1.0.0
        version: 1.0.0(left@2.0.0)

packages:

{packages}
snapshots:

  '@s/deep@1.0.0':
    dependencies:
      Upper: 1.0.0

  Upper@1.0.0: {{}}

  left@1.0.0: {{}}

  left@2.0.0: {{}}

  plugin@1.0.0(left@2.0.0):
    dependencies:
      '@s/deep': 1.0.0
      left: 2.0.0

  tool@3.0.0:
    dependencies:
      left: 2.0.0
    optionalDependencies:
      win: 1.0.0

  unused@{unused}: {{}}

  win@1.0.0:
    optional: true
"
    )
}

const WEB: &str = "{\"name\": \"web\", \"dependencies\": {\"@s/ui\": \"workspace:*\", \"alias\": \"npm:left@1.0.0\"}, \"devDependencies\": {\"tool\": \"^3.0.0\"}}";
const UI: &str =
    "{\"name\": \"@s/ui\", \"bin\": \"ui.js\", \"dependencies\": {\"left\": \"2.0.0\", \"plugin\": \"1.0.0\"}}";
const OTHER: &str = "{\"name\": \"other\", \"dependencies\": {\"unused\": \"^1.0.0\"}}";

fn workspace() -> Option<Home> {
    let manifest = "[workspace]\nmembers = [\"apps/*\", \"libs/*\"]\n[fetch.npm]\nlockfile = \"pnpm-lock.yaml\"\n";
    let look = "toolchain = \"//:sh\"\nrun = \"cd /src; find . -type l -exec ls -l {} + > /tmp/x; cat /tmp/x > $OLDPWD/links; find . -name '*.js' -type f | sort > $OLDPWD/files; cat apps/web/node_modules/alias/package.json > /dev/null; test -x node_modules/.pnpm/tool@3.0.0/node_modules/tool/tool.js\"\noutputs = [\"links\", \"files\"]\ndeps = [\"//:npm\"]\n";
    let home = Home::with_busybox(
        manifest,
        &[
            (
                "apps/web/cas.toml",
                &format!(
                    "[command.look]\n{look}[image.run]\nbase = \"//:sh\"\nlayers = [{{ from = \"//:npm\", for = \"production\", to = \"/app/node_modules\" }}]\n"
                ),
            ),
            ("apps/web/package.json", WEB),
            ("libs/ui/cas.toml", ""),
            ("libs/ui/package.json", UI),
            (
                "libs/other/cas.toml",
                "[test.look]\ntoolchain = \"//:sh\"\nrun = \"cat node_modules/unused/index.js\"\ndeps = [\"//:npm\"]\n",
            ),
            ("libs/other/package.json", OTHER),
        ],
    )?;
    let tarballs = tarballs();
    for (name, version, bytes, _) in &tarballs {
        publish(&home.folder.path().join("registry"), name, version, bytes);
    }
    home.write("pnpm-lock.yaml", &locked(&tarballs, "1.0.0"));
    Some(home)
}

fn locked(tarballs: &[(&str, &str, Vec<u8>, String)], unused: &str) -> String {
    let integrity = |name: &str, version: &str| {
        tarballs.iter().find(|found| (found.0, found.1) == (name, version)).unwrap().3.clone()
    };
    lockfile(&integrity, unused)
}

fn build(home: &Home, arguments: &[&str]) -> Output {
    let registry = format!("file://{}/registry", home.folder.path().display());
    home.command(arguments).env("npm_config_registry", registry).output().unwrap()
}

/// Links of a listing by `ls -l`: place and text.
fn links(listing: &str) -> BTreeSet<(String, String)> {
    let link = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [.., place, "->", target] = words[..] else { panic!("{line}") };
        (place.trim_start_matches("./").to_owned(), target.to_owned())
    };
    listing.lines().map(link).collect()
}

/// Links of a step in `apps/web`.
fn built_links(home: &Home) -> BTreeSet<(String, String)> {
    let output = build(home, &["build", "//apps/web:look"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    links(&home.read("cas-out/apps/web/look/links"))
}

#[test]
fn node_modules_are_as_pnpm_makes_them() {
    let Some(home) = workspace() else { return };
    let expected = [
        ("apps/web/node_modules/.bin/tool", "../tool/tool.js"),
        ("apps/web/node_modules/.bin/ui", "../@s/ui/ui.js"),
        ("apps/web/node_modules/@s/ui", "../../../../libs/ui"),
        ("apps/web/node_modules/alias", "../../../node_modules/.pnpm/left@1.0.0/node_modules/left"),
        ("apps/web/node_modules/tool", "../../../node_modules/.pnpm/tool@3.0.0/node_modules/tool"),
        ("libs/ui/node_modules/.bin/left", "../left/cli.js"),
        ("libs/ui/node_modules/.bin/right", "../left/cli.js"),
        ("libs/ui/node_modules/left", "../../../node_modules/.pnpm/left@2.0.0/node_modules/left"),
        ("libs/ui/node_modules/plugin", "../../../node_modules/.pnpm/plugin@1.0.0_left@2.0.0/node_modules/plugin"),
        (
            "node_modules/.pnpm/@s+deep@1.0.0/node_modules/Upper",
            "../../Upper@1.0.0_5c9e1b5ecfb94b3e2ad5a46cf3a24a8a/node_modules/Upper",
        ),
        (
            "node_modules/.pnpm/plugin@1.0.0_left@2.0.0/node_modules/@s/deep",
            "../../../@s+deep@1.0.0/node_modules/@s/deep",
        ),
        ("node_modules/.pnpm/plugin@1.0.0_left@2.0.0/node_modules/left", "../../left@2.0.0/node_modules/left"),
        ("node_modules/.pnpm/tool@3.0.0/node_modules/left", "../../left@2.0.0/node_modules/left"),
        ("node_modules/.pnpm/node_modules/left", "../left@2.0.0/node_modules/left"),
        ("node_modules/.pnpm/node_modules/alias", "../left@1.0.0/node_modules/left"),
    ];
    let links = built_links(&home);
    for (place, target) in expected.iter().filter(|(place, _)| !place.ends_with("Upper")) {
        assert!(
            links.contains(&((*place).to_owned(), (*target).to_owned())),
            "{place} -> {target} is not in {links:#?}"
        );
    }
    // Nothing of what only another package reaches, nor of another system.
    assert!(!links.iter().any(|(place, _)| place.contains("unused") || place.contains("win")), "{links:#?}");
    let files = home.read("cas-out/apps/web/look/files");
    assert_eq!(files.lines().filter(|line| line.contains("/node_modules/left/")).count(), 2, "{files}");
    // Taken elsewhere, the folder is whole: what the library needs is there, what developers need is not.
    let command = "cd /app/node_modules; ls -d */ .pnpm/* @s/*/node_modules/*; cat alias/package.json @s/ui/node_modules/left/package.json";
    let output = build(&home, &["run", "//apps/web:run", "--", "/bin/sh", "-c", command]);
    let listing = text(&output.stdout);
    assert!(
        listing.contains("@s/ui/node_modules/plugin\n") && !listing.contains("tool"),
        "{listing}{}",
        text(&output.stderr)
    );
    assert!(listing.contains("\"1.0.0\"") && listing.contains("\"2.0.0\""), "{listing}");
}

#[test]
fn a_bump_rebuilds_what_reaches_it() {
    let Some(home) = workspace() else { return };
    let steps = || {
        let output = build(&home, &["build", "//apps/web:look", "//libs/other:look"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stderr).lines().last().unwrap().to_owned()
    };
    assert_eq!(steps(), "2 steps ran, 0 were cached");
    home.write("pnpm-lock.yaml", &locked(&tarballs(), "1.0.1"));
    assert_eq!(steps(), "1 step ran, 1 was cached");
    fs::remove_dir_all(home.folder.path().join("registry")).unwrap();
    assert_eq!(steps(), "0 steps ran, 2 were cached");
}

#[test]
fn what_is_wrong_with_a_lockfile_is_told() {
    let rows: &[(&str, &str, i32, &str)] = &[
        (
            "'9.0'",
            "'5.4'",
            2,
            "cause: it has version `5.4`; known are 6 and 9, which pnpm 8 and later write\nhint: write it anew",
        ),
        (
            "specifier: ^3.0.0",
            "specifier: ^3.0.1",
            2,
            "cause: it is out of date: `devDependencies` of `apps/web/package.json` is another now\nhint: run `pnpm install --lockfile-only`",
        ),
        (
            "      Upper: 1.0.0",
            "      Upper: 1.0.1",
            2,
            "cause: it is out of date: `@s/deep@1.0.0` needs `Upper`, which it does not have",
        ),
        ("{integrity: sha512-", "{integrity: md5-", 2, "cause: `@s/deep@1.0.0` has a bad integrity"),
        (
            "{integrity: sha512-",
            "{tarball: https://host/x.tgz, other: sha512-",
            2,
            "cause: `@s/deep@1.0.0` has no integrity",
        ),
        (
            "{integrity: sha512-",
            "{type: git, repo: https://host/x, commit: sha512-",
            2,
            "cause: `@s/deep@1.0.0` comes from `git https://host/x`, which is not supported",
        ),
        ("link:../../libs/ui", "link:../../../ui", 2, "cause: it names the path `link:../../../ui`"),
        ("link:../../libs/ui", "link:../../libs/no", 2, "cause: `apps/web` links to `libs/no`, which it does not have"),
        ("tool@3.0.0:\n    res", "&a tool@3.0.0:\n    res", 2, "cause: it is not YAML as pnpm writes it: line "),
        (
            "  left@1.0.0: {}",
            "  left@1.0.0(patch_hash=x): {}",
            2,
            "cause: `left@1.0.0` is patched by `patchedDependencies`, which is not supported",
        ),
        (
            "tool@3.0.0:",
            "tool@3.0.2:",
            4,
            "error: the registry does not have `tool@3.0.2`, which `pnpm-lock.yaml` names\n  cause: could not read `file://",
        ),
    ];
    for (from, to, code, message) in rows {
        let Some(home) = workspace() else { return };
        let lock = home.read("pnpm-lock.yaml");
        let changed = if lock.matches(from).count() == 2 { lock.replace(from, to) } else { lock.replacen(from, to, 1) };
        assert_ne!(changed, lock, "{from}");
        home.write("pnpm-lock.yaml", &changed);
        let output = build(&home, &["build", "//apps/web:look"]);
        let stderr = text(&output.stderr);
        assert!(stderr.contains(message), "{to} gave {stderr}");
        assert_eq!(output.status.code(), Some(*code), "{stderr}");
    }
}

/// pnpm itself links the same things at the same places, from the same lockfile.
#[test]
fn pnpm_makes_the_same_links() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = Command::new("pnpm").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("SKIPPED: pnpm is not installed");
        return;
    }
    let Some(home) = workspace() else { return };
    let ours = built_links(&home);
    let address = serve(
        tarballs()
            .into_iter()
            .map(|(name, version, bytes, _)| {
                (format!("/{name}/-/{}-{version}.tgz", name.rsplit('/').next().unwrap()), bytes)
            })
            .collect(),
    );
    home.write("pnpm-workspace.yaml", "packages:\n  - apps/*\n  - libs/*\nminimumReleaseAge: 0\n");
    home.write("package.json", "{\"name\": \"root\", \"private\": true}");
    home.write("libs/ui/ui.js", "#!/bin/sh\n");
    let output = Command::new("pnpm")
        .args(["install", "--frozen-lockfile", "--ignore-scripts", "--store-dir"])
        .arg(home.folder.path().join("pnpm-store"))
        .args(["--registry", &address])
        .current_dir(home.workspace())
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let find = |arguments: &[&str]| {
        text(&Command::new("find").arg(".").args(arguments).current_dir(home.workspace()).output().unwrap().stdout)
    };
    let theirs: BTreeSet<(String, String)> = find(&["-type", "l", "-path", "*node_modules*", "-printf", "%p %l\n"])
        .lines()
        .map(|line| line.trim_start_matches("./").split_once(' ').unwrap())
        .map(|(place, target)| (place.to_owned(), target.to_owned()))
        // What only another package reaches; packages of the workspace that are hoisted.
        .filter(|(place, target)| {
            let is_hoisted_member = place.contains(".pnpm/node_modules") && target.starts_with("../../..");
            let is_elsewhere = place.contains("unused") || place.starts_with("cas-out");
            !is_hoisted_member && !is_elsewhere
        })
        .filter(|(place, _)| !place.contains("/.bin/"))
        .collect();
    let is_program = |place: &str| place.contains("/.bin/");
    // Whether a package finds its own programs is another thing in each major version of pnpm.
    let is_own = |place: &str| {
        ["left/node_modules/.bin/left", "left/node_modules/.bin/right", "tool/node_modules/.bin/tool"]
            .iter()
            .any(|own| place.contains(".pnpm/") && place.ends_with(&format!("/node_modules/{own}")))
    };
    assert_eq!(ours.iter().filter(|(place, _)| !is_program(place)).cloned().collect::<BTreeSet<_>>(), theirs);
    let programs: BTreeSet<String> = find(&["-path", "*/.bin/*"])
        .lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .filter(|place| !place.contains(".pnpm/node_modules") && !place.starts_with("cas-out") && !is_own(place))
        .collect();
    assert_eq!(
        ours.into_iter()
            .map(|(place, _)| place)
            .filter(|place| is_program(place) && !is_own(place))
            .collect::<BTreeSet<_>>(),
        programs
    );
}
