//! The examples of the book: what a page shows is what happens.
//!
//! Marks in a page, as comments of their own line before a fence: `<!-- file: PATH -->` writes it to the page's workspace,
//! `<!-- run -->` runs it: lines after `$ ` are commands, others what they print, on both streams; `…` stands for anything in a
//! line, and alone in one for any lines. A fence `console` without that has `<!-- not run: WHY -->`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::root;

/// A fence with its mark.
struct Fence<'a> {
    mark: &'a str,
    language: &'a str,
    lines: Vec<&'a str>,
}

fn fences(page: &str) -> Vec<Fence<'_>> {
    let mut found = Vec::new();
    let (mut lines, mut mark) = (page.lines(), "");
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            mark = comment;
        } else if let Some(language) = line.strip_prefix("```") {
            let lines = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            found.push(Fence { mark: std::mem::take(&mut mark), language, lines });
        } else if !line.is_empty() {
            mark = "";
        }
    }
    found
}

/// Whether what was printed is what is shown.
fn agrees(shown: &[&str], printed: &[&str]) -> bool {
    match shown {
        [] => printed.is_empty(),
        ["…", rest @ ..] => (0..=printed.len()).any(|from| agrees(rest, &printed[from..])),
        [first, rest @ ..] => match printed {
            [line, others @ ..] => agrees_in_line(first, line) && agrees(rest, others),
            [] => false,
        },
    }
}

fn agrees_in_line(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (index, part) in parts.iter().enumerate() {
        let found = if index + 1 == parts.len() { rest.strip_suffix(part).map(str::len) } else { rest.find(part) };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty()
}

/// Runs a page from its beginning to its end, in one workspace.
fn run(name: &str) -> usize {
    let page = fs::read_to_string(root().join("docs/book").join(name)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let workspace = home.path().join("workspace");
    fs::create_dir(&workspace).unwrap();
    let mut count = 0;
    for fence in fences(&page) {
        if let Some(path) = fence.mark.strip_prefix("file: ") {
            write(&workspace.join(path), &format!("{}\n", fence.lines.join("\n")));
        } else if fence.language == "console" && fence.mark == "run" {
            let starts: Vec<usize> = (0..fence.lines.len()).filter(|at| fence.lines[*at].starts_with("$ ")).collect();
            assert_eq!(starts.first(), Some(&0), "{name}: a fence begins with a command");
            for (position, start) in starts.iter().enumerate() {
                let end = starts.get(position + 1).copied().unwrap_or(fence.lines.len());
                one(name, &workspace, &fence.lines[*start][2..], &fence.lines[start + 1..end]);
                count += 1;
            }
        } else {
            assert!(
                fence.language != "console" || fence.mark.starts_with("not run: "),
                "{name}: an example is neither run nor says why not:\n{}",
                fence.lines.join("\n")
            );
        }
    }
    count
}

fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn one(name: &str, workspace: &Path, command: &str, shown: &[&str]) {
    let program = Path::new(env!("CARGO_BIN_EXE_cas")).parent().unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .current_dir(workspace)
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", program.display()))
        .env("HOME", workspace.parent().unwrap())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = printed.lines().map(str::trim_end).collect();
    assert!(agrees(shown, &lines), "{name}: `{command}` printed\n{printed}\nand not\n{}", shown.join("\n"));
}

/// Whether steps can run here with this machine's programs.
fn can_run() -> bool {
    let can = Path::new("/bin/sh").exists() && Path::new("/usr/bin/env").exists();
    if !can {
        eprintln!("SKIPPED: this machine has no shell for the examples");
    }
    can
}

#[test]
fn getting_started() {
    assert!(!can_run() || run("getting-started.md") > 5);
}

#[test]
fn concepts() {
    assert!(!can_run() || run("concepts.md") > 0);
}

#[test]
fn errors() {
    assert!(!can_run() || run("errors.md") > 10);
}

#[test]
fn from_turborepo() {
    assert!(!can_run() || run("from-turborepo.md") > 0);
}

#[test]
fn images() {
    let has_busybox = Path::new("/bin/busybox").exists();
    if !has_busybox {
        eprintln!("SKIPPED: the images of the examples need /bin/busybox");
    }
    assert!(!has_busybox || !can_run() || run("images.md") > 30);
}

#[test]
fn serve() {
    let has_busybox = Path::new("/bin/busybox").exists();
    if !has_busybox {
        eprintln!("SKIPPED: the image of the example needs /bin/busybox");
    }
    assert!(!has_busybox || !can_run() || run("serve.md") > 10);
}

/// Pages that come later are run as well, or have no example.
#[test]
fn all_pages_are_run() {
    let run = ["getting-started.md", "concepts.md", "errors.md", "from-turborepo.md", "images.md", "serve.md"];
    for entry in fs::read_dir(root().join("docs/book")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if run.contains(&name.as_str()) || !name.ends_with(".md") {
            continue;
        }
        let page = fs::read_to_string(root().join("docs/book").join(&name)).unwrap();
        assert!(
            fences(&page).iter().all(|fence| fence.language != "console"),
            "`{name}` has examples that nobody runs"
        );
    }
}

#[test]
fn what_is_shown_is_compared_line_by_line() {
    let cases: [(&[&str], &[&str], bool); 8] = [
        (&["a"], &["a"], true),
        (&["a"], &["a", "b"], false),
        (&["a", "…"], &["a", "b", "c"], true),
        (&["…", "c"], &["a", "b", "c"], true),
        (&["ran //:a in … s"], &["ran //:a in 0.12 s"], true),
        (&["ran //:a in … s"], &["ran //:a in 0.12"], false),
        (&["x … y …"], &["x 1 y 2"], true),
        (&[], &["a"], false),
    ];
    for (shown, printed, expected) in cases {
        assert_eq!(agrees(shown, printed), expected, "{shown:?} {printed:?}");
    }
}
