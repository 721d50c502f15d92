// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A program that treats an IOAS as the VMM of a confidential guest does: it shares the guest's
//! memory with devices, then converts parts of it to private and back, while the devices copy. See
//! `vmm --help`.

mod areas;
mod convert;
mod copier;
mod cost;
mod debugfs;
mod gaps;
mod list;
mod machine;
mod nvme;
mod options;
mod walk;
mod wear;

use std::path::PathBuf;
use std::process::ExitCode;

use options::{Mode, Options};

/// Everything that ends a run says in a sentence what to do about it.
type Result<T> = std::result::Result<T, String>;

/// Writes a file, if one is wanted.
fn write(path: &Option<PathBuf>, text: impl FnOnce() -> String) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    std::fs::write(path, text()).map_err(|e| format!("{} cannot be written: {e}", path.display()))
}

fn main() -> ExitCode {
    let done = Options::parse(lexopt::Parser::from_env()).and_then(|options| {
        let Some(options) = options else {
            print!("{}", options::HELP);
            return Ok(());
        };
        match options.mode {
            Mode::Convert => convert::run(&options),
            Mode::Cost => cost::run(&options),
            Mode::Gaps => gaps::run(&options),
            Mode::Wear => wear::run(&options),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vmm: {e}");
            ExitCode::FAILURE
        }
    }
}
