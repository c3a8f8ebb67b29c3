//! Steps with a verdict each, for the demo and the suites that run as programs.

use std::time::Instant;

/// Collects verdicts; the process's exit code is its answer.
#[derive(Default)]
pub struct Report {
    failed: Vec<String>,
    passed: usize,
}

impl Report {
    /// Runs a step, prints its verdict and what it saw.
    pub fn step(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<String>) {
        let start = Instant::now();
        match step() {
            Ok(seen) => {
                self.passed += 1;
                println!("  ok    {name} ({} ms)", start.elapsed().as_millis());
                if !seen.is_empty() {
                    println!("        {seen}");
                }
            }
            Err(error) => {
                self.failed.push(name.to_owned());
                println!("  FAIL  {name}\n        {error:#}");
            }
        }
    }

    /// Prints the count; success only if every step held.
    pub fn finish(self) -> std::process::ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
    }
}
