//! The binary: everything is in the library; see `cli`.

fn main() -> std::process::ExitCode {
    habittod::cli::run(std::env::args_os().skip(1)).into()
}
