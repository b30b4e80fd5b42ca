//! Golden digests on this machine's processor. Those of another one: `cargo xtask test --peers arch`.

use std::process::Command;

#[test]
fn everything_made_has_the_golden_digests() {
    let place = tempfile::tempdir().unwrap();
    crate::golden_table::compare(place.path(), &|| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cas"));
        command.env_clear();
        command
    });
}
