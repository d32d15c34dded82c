//! How the story is told: lines with the time since the start.

use std::io::Write;
use std::time::Instant;

use anyhow::Result;

/// Standard output.
pub(super) struct Terminal {
    start: Instant,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(super) fn title(&self, text: &str) {
        self.line(&format!("\n── {text} ──"));
    }

    pub(super) fn say(&self, text: &str) {
        self.line(&format!("{:7.2} s  {text}", self.start.elapsed().as_secs_f32()));
    }

    pub(super) fn block(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("    {line}"));
        }
    }

    /// Does something that takes its time, and says how much.
    pub(super) async fn step<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let begin = Instant::now();
        self.say(&format!("{what} …"));
        let done = work.await;
        let took = begin.elapsed().as_secs_f32();
        match &done {
            Ok(_) => self.say(&format!("  done in {took:.2} s")),
            Err(_) => self.say(&format!("  failed after {took:.2} s")),
        }
        done
    }

    pub(super) fn line(&self, text: &str) {
        let mut output = std::io::stdout().lock();
        // Whoever closed the terminal does not listen any more, and that is no reason to stop half-way.
        let _closed = writeln!(output, "{text}").and_then(|()| output.flush());
    }
}
