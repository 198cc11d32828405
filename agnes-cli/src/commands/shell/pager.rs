//! What does not fit on the screen goes through a pager.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// Standard output, once it is known whether what is written fits on the screen.
pub(super) struct Pager {
    /// What was written, as long as it fits; none once it is shown as it comes.
    waiting: Option<Vec<u8>>,
    /// Lines that are left on the screen, and how wide it is.
    left: usize,
    width: usize,
    pager: Option<Child>,
}

impl Pager {
    /// One that pages only if `pages`.
    pub(super) fn new(pages: bool) -> Self {
        let (height, width) = console::Term::stdout().size();
        // A line is left for the prompt, and one for what is said of the rows.
        let left = usize::from(height).saturating_sub(2);
        Self { waiting: pages.then(Vec::new), left, width: usize::from(width).max(1), pager: None }
    }

    /// Shows what is left, and waits for whoever looks at it.
    ///
    /// # Errors
    /// Those of standard output.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Some(waiting) = self.waiting.take() {
            let mut out = io::stdout().lock();
            out.write_all(&waiting)?;
            out.flush()?;
        }
        if self.pager.is_none() {
            io::stdout().flush()?;
        }
        Ok(())
    }

    /// Lines of the screen that a text takes.
    fn lines(&self, text: &[u8]) -> usize {
        let ends = text.iter().filter(|byte| **byte == b'\n').count();
        ends + text.split(|byte| *byte == b'\n').map(|line| line.len() / (self.width * 4)).sum::<usize>()
    }
}

/// The pager of `PAGER`, else `less`; nothing where there is none, or none is wanted.
fn start() -> Option<Child> {
    let mut command = match std::env::var("PAGER") {
        Ok(named) if named.trim().is_empty() || named.trim() == "cat" => return None,
        // It may come with arguments, as every program that starts it allows.
        Ok(named) if cfg!(unix) => {
            let mut shell = Command::new("sh");
            shell.args(["-c", &named]);
            shell
        }
        Ok(named) => Command::new(named),
        Err(_) => Command::new("less"),
    };
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", "FRSX");
    }
    command.stdin(Stdio::piped()).spawn().ok()
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(waiting) = &mut self.waiting {
            waiting.extend_from_slice(bytes);
            let lines = self.lines(bytes);
            match self.left.checked_sub(lines) {
                Some(left) => self.left = left,
                None => {
                    let waiting = self.waiting.take().unwrap_or_default();
                    self.pager = start();
                    self.write_all(&waiting)?;
                }
            }
            return Ok(bytes.len());
        }
        match self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            Some(input) => input.write(bytes),
            None => io::stdout().lock().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            Some(input) => input.flush(),
            None => io::stdout().lock().flush(),
        }
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        if let Some(mut pager) = self.pager.take() {
            drop(pager.stdin.take());
            let _ = pager.wait();
        }
    }
}
