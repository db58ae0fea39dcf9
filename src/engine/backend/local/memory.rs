//! How much memory the process holds.

/// The most anonymous memory seen when asked: what is the process's own, without mapped files.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peak(Option<u64>);

impl Peak {
    /// Looks at the memory held now.
    pub(super) fn sample(&mut self) {
        self.0 = self.0.max(anonymous_bytes());
    }

    /// Returns the most bytes seen; `None` where the system does not tell.
    pub(super) fn bytes(self) -> Option<u64> {
        self.0
    }
}

/// Reads `RssAnon` of this process; only Linux tells.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_never_falls() {
        let mut peak = Peak::default();
        peak.sample();
        if !cfg!(target_os = "linux") {
            use std::io::Write as _;
            // Not captured by the test harness, so that CI can list it.
            let _ = writeln!(std::io::stderr(), "skipped: only Linux tells how much memory is anonymous");
            return;
        }
        let before = peak.bytes().unwrap();
        let held = std::hint::black_box(vec![1u8; 32 << 20]);
        peak.sample();
        drop(held);
        let after = peak.bytes().unwrap();
        assert!(after >= before + (24 << 20), "{before} then {after}");
        peak.sample();
        assert!(peak.bytes().unwrap() >= after);
    }
}
