//! `cas import turbo` and `cas import nx`.

use super::{assert_text, notes, of, shown};
use crate::{InitError, NoteKind, Source};

#[test]
fn turbo_tasks_become_targets() {
    let proposal = of(
        &[
            ("package.json", r#"{"name": "root", "workspaces": ["apps/*", "libs/*"], "scripts": {"format": "prettier --check ."}}"#),
            ("package-lock.json", "{}"),
            (".gitignore", "dist\n"),
            ("turbo.json", r#"{
  "$schema": "https://turbo.build/schema.json", // versions 2
  "ui": "tui",
  "globalDependencies": ["tsconfig.json", ".env"],
  "globalEnv": ["CI", "NPM_TOKEN"],
  "tasks": {
    "build": {
      "dependsOn": ["^build", "codegen"],
      "inputs": ["$TURBO_DEFAULT$", "!README.md", "$TURBO_ROOT$/shared.json"],
      "outputs": ["dist/**", ".next/**", "!.next/cache/**"],
      "env": ["API_URL", "PUBLIC_*"]
    },
    "codegen": { "outputs": ["src/generated/**"], "inputs": ["schema/**", "none/**"], },
    "test": { "dependsOn": ["build"], "outputs": ["coverage/**"], "outputLogs": "new-only" },
    "@acme/web#test": { "dependsOn": ["build", "@acme/ui#build", "gone#build"] },
    "dev": { "cache": false, "persistent": true },
    "deploy": { "cache": false, "dependsOn": ["build"] },
    "prepare-data": { "cache": false },
    "//#format": {},
    "transit": { "dependsOn": ["^transit"] }
  }
}
"#),
            ("tsconfig.json", "{}"),
            ("apps/web/package.json", r#"{"name": "@acme/web", "scripts": {"build": "next build", "test": "vitest run", "dev": "next dev",
                "deploy": "ship", "codegen": "gen", "prepare-data": "fetch"}, "dependencies": {"@acme/ui": "*", "next": "15"}}"#),
            ("apps/web/schema/a.graphql", ""),
            ("apps/web/turbo.json", r#"{"extends": ["//"], "tasks": {"codegen": {"dependsOn": ["$TURBO_EXTENDS$", "prepare-data"], "cache": true}}}"#),
            ("libs/ui/package.json", r#"{"name": "@acme/ui", "main": "dist/index.js", "scripts": {"build": "node build.js"}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== apps/web/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["^build", ":codegen", ":prepare-data", "//:npm"]
outputs = [".next"]
scratch = ["next-env.d.ts"]
env_in = ["API_URL", "CI"]

[test.test]
toolchain = "//:host"
run = "npm run test"
deps = [":build", "//libs/ui:build", "^build", ":codegen", ":prepare-data", "//:npm"]
env_in = ["CI"]

[command.codegen]
toolchain = "//:host"
run = "npm run codegen"
deps = [":prepare-data", "//:npm"]
inputs = ["schema/**", "package.json"]
outputs = ["src/generated"]
env_in = ["CI"]

[command.prepare-data]
toolchain = "//:host"
run = "npm run prepare-data"
deps = ["//:npm"]
env_in = ["CI"]

[run.dev]
run = "npm run dev"
== cas.toml
[workspace]
members = ["apps/*", "libs/*"]
inputs = [".env", "package.json", "shared.json", "tsconfig.json"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }

[fetch.npm]
lockfile = "package-lock.json"

[command.format]
toolchain = ":host"
run = "npm run format"
deps = ["//:npm"]
env_in = ["CI"]
== libs/ui/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["//:npm"]
outputs = ["dist"]
env_in = ["API_URL", "CI"]
"#,
    );
    assert_text(
        &notes(&proposal, &[NoteKind::Dropped]),
        "not carried: turbo.json:3:3: `ui` is a setting of turbo itself\n\
         not carried: turbo.json:5:23: variable `NPM_TOKEN`: it looks like a secret, and what `env_in` passes is part of keys; name it in `secrets` of the step, which reads it from a file\n\
         not carried: turbo.json:9:37: input `!README.md`: nothing is left out of inputs\n\
         not carried: turbo.json:10:42: output `!.next/cache/**`: an output is kept whole, and nothing is left out of it\n\
         not carried: turbo.json:11:26: variable `PUBLIC_*`: `env_in` has whole names: add those that are meant\n\
         not carried: turbo.json:15:66: `gone#build`: there is no package `gone`\n\
         not carried: turbo.json:17:26: `deploy` is not cached: such tasks act on something outside, and a step cannot\n\
         not carried: turbo.json:20:5: task `transit`: no package has such a script\n",
    );
}

#[test]
fn pipelines_of_version_1_are_read() {
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": ["a"]}"#),
            ("turbo.json", r#"{"pipeline": {"build": {"dependsOn": ["$MODE", "^build"], "outputs": ["lib/**"], "outputMode": "full"}, "lint": {}}}"#),
            ("a/package.json", r#"{"name": "a", "scripts": {"build": "x", "lint": "eslint ."}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    assert_text(
        &proposal.files["a/cas.toml"],
        "[command.build]\ntoolchain = \"//:host\"\nrun = \"npm run build\"\noutputs = [\"lib\"]\nenv_in = [\"MODE\"]\n\n\
         [test.lint]\ntoolchain = \"//:host\"\nrun = \"npm run lint\"\n",
    );
    let told = notes(&proposal, &[NoteKind::Dropped]);
    assert_eq!(told, "not carried: turbo.json:1:96: `outputMode`: cas has nothing like it\n");
}

/// A step finds the outputs of its own `deps` alone; with turbo all that ran is there.
#[test]
fn what_a_dependency_waits_for_is_there_as_well() {
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": ["p/*"]}"#),
            (
                "turbo.json",
                r#"{"tasks": {"build": {"dependsOn": ["^build"], "outputs": ["dist"]}, "test": {"dependsOn": ["build"]},
                "c#test": {"dependsOn": ["b#test"]}}}"#,
            ),
            ("p/a/package.json", r#"{"name": "a", "scripts": {"build": "x"}}"#),
            (
                "p/b/package.json",
                r#"{"name": "b", "scripts": {"build": "x", "test": "y"}, "dependencies": {"a": "*"}}"#,
            ),
            ("p/c/package.json", r#"{"name": "c", "scripts": {"test": "y"}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    let deps =
        |path: &str| proposal.files[path].lines().filter(|line| line.starts_with("deps")).collect::<Vec<_>>().join(" ");
    assert_eq!(deps("p/b/cas.toml"), "deps = [\"^build\"] deps = [\":build\", \"^build\"]");
    assert_eq!(deps("p/c/cas.toml"), "deps = [\"//p/b:test\", \"//p/b:build\", \"//p/a:build\"]");
}

#[test]
fn tasks_that_wait_for_each_other_do_not() {
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": ["a", "b"]}"#),
            (
                "turbo.json",
                r#"{"tasks": {"build": {"dependsOn": ["b#gen", "^build"]}, "gen": {"dependsOn": ["a#build"]}}}"#,
            ),
            ("a/package.json", r#"{"name": "a", "scripts": {"build": "x"}}"#),
            ("b/package.json", r#"{"name": "b", "scripts": {"gen": "x"}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    assert!(proposal.files["a/cas.toml"].contains("deps = [\"//b:gen\"]"));
    assert!(!proposal.files["b/cas.toml"].contains("deps"));
    let told = notes(&proposal, &[NoteKind::Check]);
    assert!(told.contains("`//b:gen` would wait for `//a:build`, which waits for it"), "{told}");
}

#[test]
fn nx_targets_become_targets() {
    let proposal = of(
        &[
            ("package.json", r#"{"name": "root", "workspaces": ["packages/*"], "scripts": {"build": "nx run-many -t build"}}"#),
            ("package-lock.json", "{}"),
            (".gitignore", "dist\n"),
            ("nx.json", r#"{
  "namedInputs": {
    "default": ["{projectRoot}/**/*", "sharedGlobals"],
    "sharedGlobals": ["{workspaceRoot}/babel.config.json", { "env": "MODE" }, { "runtime": "node --version" }],
    "production": ["default", "!{projectRoot}/**/*.spec.ts"]
  },
  "targetDefaults": {
    "build": { "dependsOn": ["^build"], "inputs": ["production", "^production"], "outputs": ["{projectRoot}/dist"], "cache": true },
    "deploy": { "cache": false },
    "@nx/vite:build": { "cache": true }
  },
  "plugins": ["@nx/jest/plugin"],
  "nxCloudId": "x"
}
"#),
            ("packages/ui/package.json", r#"{"name": "@acme/ui", "main": "dist/index.js", "scripts": {"build": "node build.js", "dev": "vite", "deploy": "ship"},
                "nx": {"targets": {"docs": {"command": "typedoc {projectRoot}/src --out {projectRoot}/api", "outputs": ["{projectRoot}/api"], "inputs": ["{projectRoot}/src/**"]}}}}"#),
            ("packages/ui/src/index.ts", ""),
            ("apps/shop/project.json", r#"{
  "name": "shop",
  "implicitDependencies": ["@acme/ui"],
  "targets": {
    "build": { "executor": "nx:run-commands", "options": { "commands": ["one", { "command": "two" }], "cwd": "{projectRoot}", "parallel": false, "env": { "A": "1" } } },
    "bundle": { "executor": "@nx/vite:build", "options": { "outputPath": "dist/apps/shop" } },
    "serve": { "executor": "@nx/vite:dev-server" },
    "e2e": { "command": "check", "dependsOn": ["build", { "target": "build", "projects": ["@acme/ui"] }], "outputs": ["{workspaceRoot}/dist/e2e"] }
  }
}
"#),
        ],
        Source::Nx,
    )
    .expect("it is right");
    let path = "/src/node_modules/.bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_text(
        &shown(&proposal).replace(path, "PATH"),
        r#"== apps/shop/cas.toml
[command.build]
toolchain = "//:host"
run = "one && two"
deps = ["//packages/ui:build", "//:npm"]
outputs = ["dist"]
env = { A = "1", PATH = "PATH" }
env_in = ["MODE"]

[test.e2e]
toolchain = "//:host"
run = "cd ../.. && check"
deps = [":build", "//packages/ui:build", "//:npm"]
env = { PATH = "PATH" }
== cas.toml
[workspace]
members = ["packages/*", "apps/shop"]
inputs = ["apps/shop/**", "babel.config.json", "package.json"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }

[fetch.npm]
lockfile = "package-lock.json"
== packages/ui/cas.toml
[command.docs]
toolchain = "//:host"
run = "cd ../.. && typedoc packages/ui/src --out packages/ui/api"
deps = ["//:npm"]
inputs = ["src/**", "package.json"]
outputs = ["api"]
env = { PATH = "PATH" }

[command.build]
toolchain = "//:host"
run = "npm run build"
deps = ["//:npm"]
outputs = ["dist"]
env = { PATH = "PATH" }
env_in = ["MODE"]
"#,
    );
    assert_text(
        &notes(&proposal, &[NoteKind::Dropped]),
        "not carried: apps/shop/project.json:6:29: target `bundle` of `shop`: only Nx knows what `@nx/vite:build` runs; add a target with the command line that it stands for\n\
         not carried: apps/shop/project.json:7:5: target `serve` of `shop`: it does not end, and is no step\n\
         not carried: apps/shop/project.json:8:119: output `{workspaceRoot}/dist/e2e`: it is not in the project's folder, and outputs are; let the command write into it\n\
         not carried: nx.json:4:79: `runtime`: add the command to `probe` of the toolchain, whose output is in every key\n\
         not carried: nx.json:5:31: input `!**/*.spec.ts`: nothing is left out of inputs\n\
         not carried: nx.json:12:3: `plugins`: targets that they infer are not known; those of scripts are carried\n\
         not carried: nx.json:13:3: `nxCloudId` is a setting of Nx itself\n\
         not carried: packages/ui/package.json:1:85: target `dev` of `@acme/ui`: it does not end, and is no step\n\
         not carried: packages/ui/package.json:1:100: `deploy` is not cached: such tasks act on something outside, and a step cannot\n",
    );
}

#[test]
fn an_import_needs_its_file() {
    for (source, file) in [(Source::Turbo, "turbo.json"), (Source::Nx, "nx.json")] {
        match of(&[("package.json", "{}")], source) {
            Err(error @ InitError::NothingToImport { .. }) => {
                assert_eq!(error.to_string(), format!("there is no `{file}` in this folder"));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What turbo does not cache is a step where it is a test or makes something; in a package without a script of a task, its
/// dependencies are waited for.
#[test]
fn tests_that_turbo_does_not_cache_are_carried() {
    let proposal = of(
        &[
            ("package.json", r#"{"workspaces": ["a", "b"]}"#),
            ("jest.config.js", "module.exports = {setupFiles: ['./jest.setup.js']}"),
            ("jest.setup.js", ""),
            (
                "turbo.json",
                r#"{"tasks": {
  "build": {"dependsOn": ["^build"], "outputs": ["dist/**"], "cache": false},
  "test": {"dependsOn": ["build"], "cache": false},
  "test:e2e": {"cache": false},
  "deploy": {"cache": false, "outputs": ["!x"]}}}"#,
            ),
            (
                "a/package.json",
                r#"{"name": "a", "scripts": {"build": "tsup", "deploy": "x", "test": "jest", "test:e2e": "x"}}"#,
            ),
            ("b/package.json", r#"{"name": "b", "dependencies": {"a": "*"}, "scripts": {"test": "jest"}}"#),
        ],
        Source::Turbo,
    )
    .expect("it is right");
    assert_text(
        &shown(&proposal),
        r#"== a/cas.toml
[command.build]
toolchain = "//:host"
run = "npm run build"
outputs = ["dist"]

[test.test]
toolchain = "//:host"
run = "npm run test"
deps = [":build"]
== b/cas.toml
[test.test]
toolchain = "//:host"
run = "npm run test"
deps = ["^build"]
== cas.toml
[workspace]
members = ["a", "b"]
inputs = ["jest.config.js", "jest.setup.js", "package.json"]

# This machine's own programs: not hermetic. What the probes print is part of every key.
[toolchain.host]
host = { probe = ["node --version", "npm --version"] }
"#,
    );
    assert_text(
        &notes(&proposal, &[NoteKind::Check, NoteKind::Dropped]),
        "check: turbo.json:2:71: `cache: false`: it has outputs, so it is a step, and runs when its inputs change\n\
         check: turbo.json:3:45: `cache: false`: it is a test, so it is a step, and runs when its inputs change\n\
         not carried: turbo.json:4:25: `test-e2e` is not cached: such tasks act on something outside, and a step cannot\n\
         not carried: turbo.json:5:23: `deploy` is not cached: such tasks act on something outside, and a step cannot\n\
         not carried: turbo.json:5:42: output `!x`: an output is kept whole, and nothing is left out of it\n",
    );
}

#[test]
fn tasks_with_names_of_tests_are_tests() {
    let scripts = ["unit-test", "integration-tests", "eslint", "check-types", "pretest", "contest", "generate"];
    let texts: Vec<String> = scripts.iter().map(|name| format!("\"{name}\": \"cat x\"")).collect();
    let tasks: Vec<String> = scripts.iter().map(|name| format!("\"{name}\": {{}}")).collect();
    let package = format!(r#"{{"name": "a", "scripts": {{{}}}}}"#, texts.join(", "));
    let turbo = format!(r#"{{"tasks": {{{}}}}}"#, tasks.join(", "));
    let files = [("package.json", r#"{"workspaces": ["a"]}"#), ("turbo.json", &turbo), ("a/package.json", &package)];
    let proposal = of(&files, Source::Turbo).expect("it is right");
    let text = &proposal.files["a/cas.toml"];
    let sections: Vec<&str> = text.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(
        sections,
        [
            "[test.unit-test]",
            "[test.integration-tests]",
            "[test.eslint]",
            "[test.check-types]",
            "[command.pretest]",
            "[command.contest]",
            "[command.generate]"
        ],
        "{text}"
    );
}

#[test]
fn scripts_that_clean_are_no_targets_of_nx() {
    let files = [
        ("package.json", r#"{"workspaces": ["a"]}"#),
        ("nx.json", "{}"),
        ("a/package.json", r#"{"name": "a", "scripts": {"clean": "rm -rf dist", "cleanup-data": "cat x"}}"#),
    ];
    let proposal = of(&files, Source::Nx).expect("it is right");
    let text = &proposal.files["a/cas.toml"];
    assert!(!text.contains("command.clean]") && text.contains("[command.cleanup-data]"), "{text}");
    assert_text(
        &notes(&proposal, &[NoteKind::Dropped]),
        "not carried: a/package.json:1:27: target `clean` of `a`: it removes what others make, and a step starts without that\n",
    );
}
