//! The binary `chronos`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
