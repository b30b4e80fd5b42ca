//! The golden digests of another processor's `cas`, which an emulator runs. `cargo xtask test --peers arch` compiles it.

use std::process::Command;

#[test]
#[ignore = "cargo xtask test --peers arch"]
fn another_processor_makes_the_golden_digests() {
    let variable = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let (program, runner) = (variable("CAS_ARCH_PROGRAM"), variable("CAS_ARCH_RUNNER"));
    let place = tempfile::tempdir().unwrap();
    crate::golden_table::compare(place.path(), &|| {
        let mut command = Command::new(&runner);
        command.arg(&program).env_clear();
        command
    });
}
