//! Automation of the project: `cargo xtask <command>`. Depends on little, so that it starts fast.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command line tool")]
#![expect(clippy::disallowed_methods, reason = "the rules are those of cas; this runs beside it")]

mod adopt;
mod arch;
mod bench;
mod bumps;
mod demo;
mod dist;
mod judges;
mod peers;
mod run;
mod ship;
mod test;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  demo            build the example monorepo twice, run it, install its packages
  adopt [NAME]    build and test public workspaces with what `cas init` and `cas import` write
  bench [NAME]    time cas beside its peers, and write docs/benchmarks
  bumps           count what dependency bumps cost in layers, and write docs/benchmarks/bumps.md
  dist            build the program for others, twice, and try it in an empty root; writes target/dist
  peers           install the programs that tests/peers compares with, where that is possible
  test [FILTER]   run the core tests; the last line is `N passed, N failed[, N skipped]`
  test --peers GROUP  run the tests of slow peers: `images`, `arch` (another processor), `registry`, `signing`, or `all`
  vm [KERNEL [ROW]]  run the sandbox on other kernels and in hosts that lack something, in virtual machines
  lint            check formatting, and compile with every warning an error
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo"] => match demo::run() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error),
        },
        ["adopt"] => adopt::run(""),
        ["adopt", name] => adopt::run(name),
        ["bench"] => bench::run(""),
        ["bench", name] => bench::run(name),
        ["dist"] => dist::run(),
        ["bumps"] => bumps::run(),
        ["peers"] => peers::install(),
        ["test"] => test::run(None),
        ["test", "--peers", group] => judges::run(group),
        ["test", filter] => test::run(Some(filter)),
        ["vm"] => vm::run("", ""),
        ["vm", kernel] => vm::run(kernel, ""),
        ["vm", kernel, row] => vm::run(kernel, row),
        ["lint"] => run::lint(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
