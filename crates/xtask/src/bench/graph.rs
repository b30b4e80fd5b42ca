//! Many packages: a build in which nothing changed, one file changed, and explanations; beside Turborepo.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::random::Random;
use super::{Bench, RUNS, median, milliseconds, output, peak_kib, ratio, remove};
use crate::peers;
use crate::run::Failure;

/// Packages of the large workspace, and files in each.
const PACKAGES: usize = 1000;
const FILES: usize = 20;
/// Sizes of the growth table.
const GROWTH: [usize; 5] = [100, 300, 1000, 3334, 10_000];

/// Tasks of each package: `build` waits for those of its dependencies, `test` for its own `build`, `lint` for nothing.
const MANIFEST: &str = "\
[workspace]
members = [\"packages/*\"]
[toolchain.machine]
host = {}
[defaults]
toolchain = \"//:machine\"
[defaults.command.build]
run = \"mkdir -p dist && cat src/*.js > dist/out.js\"
deps = [\"^build\"]
outputs = [\"dist\"]
[defaults.command.lint]
run = \"cat src/*.js | wc -c > lint.txt\"
outputs = [\"lint.txt\"]
[defaults.test.test]
run = \"test -e dist/out.js\"
deps = [\":build\"]
";
const MEMBER: &str = "[command.build]\n[command.lint]\n[test.test]\n";
const TURBO: &str = r#"{"tasks":{
"build":{"dependsOn":["^build"],"outputs":["dist/**"]},
"lint":{"outputs":["lint.txt"]},
"test":{"dependsOn":["build"],"outputs":[]}}}"#;

/// Stands in for npm, whose start takes longer than all that these scripts do: with it Turborepo would take an hour to begin.
/// So its times of tasks that run are better than a user's; where nothing runs npm is not called.
const NPM: &str = "\
#!/bin/sh
[ \"$1\" = run ] || exit 1
case \"$2\" in
build) mkdir -p dist && cat src/*.js > dist/out.js ;;
lint) cat src/*.js | wc -c > lint.txt ;;
test) test -e dist/out.js ;;
*) exit 1 ;;
esac
";

/// A workspace of packages, each depending on up to three earlier ones.
fn generate(root: &Path, packages: usize, files: usize) -> Result<(), Failure> {
    remove(root)?;
    fs::create_dir_all(root)?;
    fs::write(root.join("cas.toml"), MANIFEST)?;
    fs::write(root.join("turbo.json"), TURBO)?;
    let manager = r#"{"name":"root","private":true,"packageManager":"npm@10.0.0","workspaces":["packages/*"]}"#;
    fs::write(root.join("package.json"), manager)?;
    fs::write(root.join(".gitignore"), "dist/\nlint.txt\nnode_modules/\n.turbo/\ncas-out/\n")?;
    let mut lock =
        String::from("{\"name\":\"root\",\"lockfileVersion\":3,\"packages\":{\"\":{\"workspaces\":[\"packages/*\"]}");
    let mut random = Random(1);
    for number in 0..packages {
        let folder = root.join(format!("packages/p{number:05}"));
        fs::create_dir_all(folder.join("src"))?;
        let mut names: Vec<String> = Vec::new();
        for _ in 0..random.below(4).min(number) {
            names.push(format!("\"@x/p{:05}\":\"*\"", random.below(number)));
        }
        names.sort();
        names.dedup();
        let scripts = "\"build\":\"mkdir -p dist && cat src/*.js > dist/out.js\",\
                       \"lint\":\"cat src/*.js | wc -c > lint.txt\",\"test\":\"test -e dist/out.js\"";
        let manifest = format!(
            "{{\"name\":\"@x/p{number:05}\",\"version\":\"1.0.0\",\"scripts\":{{{scripts}}},\"dependencies\":{{{}}}}}",
            names.join(",")
        );
        fs::write(folder.join("package.json"), manifest)?;
        fs::write(folder.join("cas.toml"), MEMBER)?;
        for file in 0..files.saturating_sub(2) {
            fs::write(folder.join(format!("src/f{file:02}.js")), format!("export const x{file} = {number};\n"))?;
        }
        // Writing to a string cannot fail.
        let _ = write!(
            lock,
            ",\"node_modules/@x/p{number:05}\":{{\"resolved\":\"packages/p{number:05}\",\"link\":true}},\
             \"packages/p{number:05}\":{{\"name\":\"@x/p{number:05}\",\"version\":\"1.0.0\"}}"
        );
    }
    lock.push_str("}}");
    fs::write(root.join("package-lock.json"), lock)?;
    output(Command::new("git").args(["init", "-q"]).current_dir(root))?;
    output(Command::new("git").args(["add", "."]).current_dir(root))?;
    let names = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
    output(Command::new("git").args(names).args(["commit", "-q", "-m", "all"]).current_dir(root))?;
    Ok(())
}

/// What both do in a workspace: all tasks of all packages.
struct Tool<'a> {
    name: String,
    run: Box<dyn Fn() -> Command + 'a>,
}

pub(super) fn graph(bench: &mut Bench) -> Result<(), Failure> {
    bench.head("Many packages")?;
    let root = bench.folder.join("workspace");
    generate(&root, PACKAGES, FILES)?;
    bench.write(&format!(
        "{PACKAGES} packages of {FILES} files, each depending on up to three earlier ones; tasks `build` (after those of its dependencies),\n\
         `test` (after its own `build`), `lint`: {} tasks, with the programs of the machine.\n",
        PACKAGES * 3
    ));
    let turbo = peers::turbo();
    let table = {
        let ours = || bench.cas(&root, "store", &["build", "//...", "--tests"]);
        let mut tools = vec![Tool { name: "cas".to_owned(), run: Box::new(ours) }];
        if let Some(program) = &turbo {
            let programs = bench.folder.join("programs");
            fs::create_dir_all(&programs)?;
            fs::write(programs.join("npm"), NPM)?;
            fs::set_permissions(programs.join("npm"), fs::Permissions::from_mode(0o755))?;
            let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
            let root = &root;
            let run = move || {
                let mut command = turbo_run(program, root);
                command.env("PATH", &path);
                command
            };
            tools.push(Tool { name: "turbo".to_owned(), run: Box::new(run) });
        }
        measure(&root, &tools)?
    };
    bench.write(&table);
    bench.write(match turbo {
        Some(_) => {
            "Turborepo had a shell script in the place of npm, since npm's start takes longer than these tasks.\n"
        }
        None => "Turborepo was not measured: `cargo xtask peers` installs it.\n",
    });
    let why = median(|| Ok(bench.cas(&root, "store", &["why", &format!("//packages/p{:05}:build", PACKAGES - 1)])))?;
    bench.write(&format!("`cas why` of the last package: {}.\n", milliseconds(why)));
    affected(bench, &root)?;
    let help = median(|| {
        let mut command = Command::new(&bench.cas);
        command.arg("--help");
        Ok(command)
    })?;
    bench.write(&format!("`cas --help`: {}.\n", milliseconds(help)));
    bench
        .write("## Growth\n\nThe same with 3 files a package, without tests: two steps a package. `graph` resolves and prints, it reads no other files.\n");
    bench.write(
        "| packages | targets | `cas graph` | first build | per step | nothing changed | per step | peak memory |\n\
         |---|---|---|---|---|---|---|---|",
    );
    for packages in GROWTH {
        let root = bench.folder.join("growth");
        generate(&root, packages, 3)?;
        let store = format!("growth-{packages}");
        let graph = median(|| Ok(bench.cas(&root, &store, &["graph", "--format", "json"])))?;
        let started = Instant::now();
        output(&mut bench.cas(&root, &store, &["build", "//..."]))?;
        let first = started.elapsed();
        // What it found is written down by the first build that finds it.
        output(&mut bench.cas(&root, &store, &["build", "//..."]))?;
        let nothing = median(|| Ok(bench.cas(&root, &store, &["build", "//..."])))?;
        let peak = peak_kib(&bench.cas(&root, &store, &["build", "//..."]))?;
        let (steps, targets) = (packages * 2, packages * 3);
        let each = |time: Duration| (time / u32::try_from(steps).unwrap_or(u32::MAX)).as_secs_f64();
        bench.write(&format!(
            "| {packages} | {targets} | {} | {:.1} s | {:.1} ms | {} | {:.0} µs | {} MiB |",
            milliseconds(graph),
            first.as_secs_f64(),
            each(first) * 1e3,
            milliseconds(nothing),
            each(nothing) * 1e6,
            peak / 1024
        ));
        remove(&bench.folder.join(store))?;
    }
    Ok(())
}

/// How long it takes to compare with revisions near and far.
fn affected(bench: &mut Bench, root: &Path) -> Result<(), Failure> {
    far(root)?;
    for (what, revision) in [("HEAD", "HEAD"), ("one commit", "HEAD~1"), ("1,000 commits", "far~1000")] {
        let command = || bench.cas(root, "store", &["affected", "--since", revision, "--format", "json"]);
        let found = output(&mut command())?.matches("\"reasons\"").count();
        let time = median(|| Ok(command()))?;
        bench.write(&format!("`cas affected` since {what}, {found} targets: {}.", milliseconds(time)));
    }
    bench.write("");
    Ok(())
}

/// A thousand commits, each of one file; the working tree is that of the last.
fn far(root: &Path) -> Result<(), Failure> {
    let mut random = Random(2);
    let mut text = String::new();
    for number in 0..1000 {
        let path = format!("packages/p{:05}/src/f{:02}.js", random.below(PACKAGES), random.below(FILES - 2));
        let content = format!("export const changed = {number};\n");
        let message = format!("change {number}");
        let from = if number == 0 { "from HEAD\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "commit refs/heads/far\ncommitter bench <bench@example.org> {number} +0000\ndata {}\n{message}\n{from}\
             M 100644 inline {path}\ndata {}\n{content}\n",
            message.len(),
            content.len()
        );
    }
    let mut import = Command::new("git");
    import.args(["fast-import", "--quiet"]).current_dir(root).stdin(std::process::Stdio::piped());
    let mut child = import.spawn()?;
    std::io::Write::write_all(&mut child.stdin.take().ok_or("git takes no input")?, text.as_bytes())?;
    if !child.wait()?.success() {
        return Err("git fast-import failed".into());
    }
    output(Command::new("git").args(["checkout", "-q", "-f", "far"]).current_dir(root))?;
    Ok(())
}

fn turbo_run(program: &Path, root: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "build", "lint", "test", "--output-logs=none", "--no-daemon"]).current_dir(root);
    command.env("TURBO_TELEMETRY_DISABLED", "1").env("DO_NOT_TRACK", "1").env_remove("CI");
    command
}

fn measure(root: &Path, tools: &[Tool<'_>]) -> Result<String, Failure> {
    let mut rows: Vec<(String, Duration, Duration, Duration)> = Vec::new();
    for tool in tools {
        let started = Instant::now();
        output(&mut (tool.run)())?;
        let first = started.elapsed();
        output(&mut (tool.run)())?;
        let nothing = median(|| Ok((tool.run)()))?;
        // The last package: nothing depends on it.
        let file = root.join(format!("packages/p{:05}/src/f00.js", PACKAGES - 1));
        let mut times = Vec::new();
        for _ in 0..RUNS {
            // Peers look at sizes and times, so both move.
            let text = fs::read_to_string(&file)?;
            fs::write(&file, format!("{text}// {}\n", times.len()))?;
            let started = Instant::now();
            output(&mut (tool.run)())?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        rows.push((tool.name.clone(), first, nothing, times[RUNS / 2]));
    }
    let mut text = String::from("| | first build | nothing changed | one file changed |\n|---|---|---|---|\n");
    for (name, first, nothing, one) in &rows {
        let _ = writeln!(
            text,
            "| {name} | {:.1} s | {} | {} |",
            first.as_secs_f64(),
            milliseconds(*nothing),
            milliseconds(*one)
        );
    }
    if let [(_, first, nothing, one), (_, their_first, their_nothing, their_one)] = rows.as_slice() {
        let _ = writeln!(
            text,
            "| ratio | {} | {} | {} |",
            ratio(*first, *their_first),
            ratio(*nothing, *their_nothing),
            ratio(*one, *their_one)
        );
    }
    Ok(text)
}
