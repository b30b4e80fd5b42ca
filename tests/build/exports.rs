//! Images that leave: which one, where to, what is there already, and what is in the way.

use crate::{Home, SHA256, text};

/// Runs a command that has to succeed.
#[track_caller]
fn done(home: &Home, arguments: &[&str]) -> String {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that has to fail, and returns what it says.
#[track_caller]
fn fails(home: &Home, arguments: &[&str], code: i32) -> String {
    let output = home.cas(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    stderr
}

/// A workspace whose image `both` is for two platforms.
fn several() -> Home {
    Home::new(&format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n[image.both]\n\
         layers = [{{ from = \":data\", to = \"/\" }}]\nplatforms = [\"linux/riscv64\", \"linux/s390x\"]\n"
    ))
}

#[test]
fn a_platform_chooses_the_image_that_is_looked_at() {
    let home = several();
    for architecture in ["riscv64", "s390x"] {
        let platform = format!("linux/{architecture}");
        let told = done(&home, &["image", "analyze", ":both", "--platform", &platform]);
        assert!(told.lines().next().is_some_and(|line| line.ends_with(&platform)), "{told}");
    }
    // The platform is part of the configuration, so an image that is compared with itself is equal for each.
    assert_eq!(done(&home, &["image", "diff", ":both", ":both", "--platform", "linux/s390x"]), "");
    for command in [&["analyze", ":both"][..], &["diff", ":both", ":both"]] {
        let arguments = [&["image"], command, &["--platform", "linux/arm64"]].concat();
        let told = fails(&home, &arguments, 2);
        assert!(told.contains("`//:both` has no image for linux/arm64"), "{told}");
        assert!(told.contains("hint: it is for linux/riscv64, linux/s390x"), "{told}");
    }
}
