//! The `cas` binary.

fn main() {
    // Before all else: the helper of a sandbox forks, so nothing may have started a thread.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == cas_sandbox::HELPER_ARGUMENT) {
        end(cas_sandbox::sandbox_main());
    }
    end(i32::from(cas_cli::run(std::env::args_os()).code()));
}

#[expect(clippy::exit, reason = "this is main, the one place that ends the process")]
fn end(code: i32) -> ! {
    std::process::exit(code)
}
