//! What a comparison of a kernel with its CPU twin gives, and what its time is worth.

use candle_core::{Device, Result};

/// One kernel, compared or timed.
#[derive(Clone, Debug)]
pub struct GpuCheck {
    /// The kernel.
    pub kernel: String,
    /// `native`, `portable`, `mma.sync` (native without `wgmma`), `timed` or `ceiling`.
    pub form: &'static str,
    /// Sizes of the operands.
    pub sizes: String,
    /// What was compared and how far apart it may be, or what was timed.
    pub rule: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was found.
    pub found: String,
    /// How long one run took; `None` where only the result counts.
    pub timing: Option<KernelTime>,
}

/// What a device is measured to do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// A product of large bf16 matrices, operations per second.
    Bf16,
    /// A product of large e4m3 matrices, operations per second.
    Fp8,
    /// A copy within its memory, bytes read and written per second.
    Copy,
}

impl Ceiling {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
            Self::Copy => "copy",
        }
    }
}

/// The time of a kernel beside what the device can do.
#[derive(Clone, Debug, Default)]
pub struct KernelTime {
    /// Median time of one run, milliseconds.
    pub millis: f64,
    /// Which share of each ceiling that concerns it the kernel reached.
    pub shares: Vec<(Ceiling, f64)>,
    /// The share that it is meant to reach, and of which ceiling.
    pub goal: Option<(Ceiling, f64)>,
}

impl KernelTime {
    /// Relates the time of one run to the work in it: operations or bytes, and the ceiling's number of them per second.
    pub fn of(millis: f64, work: &[(Ceiling, f64, f64)], goal: Option<(Ceiling, f64)>) -> Self {
        let share = |&(ceiling, work, rate): &(Ceiling, f64, f64)| (ceiling, work / rate / (millis / 1e3));
        Self { millis, shares: work.iter().map(share).collect(), goal }
    }

    /// Returns the ceiling that binds first, and the share of it that was reached.
    pub fn tightest(&self) -> Option<(Ceiling, f64)> {
        self.shares.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns whether the goal was reached; `None` where there is none.
    pub fn reached(&self) -> Option<bool> {
        let (of, goal) = self.goal?;
        self.shares.iter().find(|(ceiling, _)| *ceiling == of).map(|(_, share)| *share >= goal)
    }
}

/// Compares every launched kernel, native and portable, with its CPU twin, and times the native ones.
///
/// `tell` hears of each check as soon as it is done. A part that fails is a check that did not pass; the others go on.
///
/// # Errors
/// Where the device is none of CUDA's, or this build has no kernels.
pub fn gpu_check(device: &Device, tell: &mut dyn FnMut(&GpuCheck)) -> Result<Vec<GpuCheck>> {
    #[cfg(feature = "cuda")]
    return super::cuda::gpu_check(device, tell);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = tell;
        candle_core::bail!("this build has no kernels for {device:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_ceiling_and_the_goal() {
        // 4 T operations and 1 GB in 10 ms, on a device of 800 T operations and 1 TB a second.
        let work = [(Ceiling::Bf16, 4e12, 800e12), (Ceiling::Copy, 1e9, 1e12)];
        let goal = |share| KernelTime::of(10.0, &work, Some((Ceiling::Bf16, share)));
        let (bf16, copy) = (goal(0.4).shares[0].1, goal(0.4).shares[1].1);
        assert!((bf16 - 0.5).abs() < 1e-12 && (copy - 0.1).abs() < 1e-12);
        assert_eq!(goal(0.4).tightest(), Some((Ceiling::Bf16, bf16)));
        assert_eq!((goal(0.4).reached(), goal(0.6).reached()), (Some(true), Some(false)));
        // A goal of another ceiling, or none, is neither reached nor missed.
        assert_eq!(KernelTime::of(1.0, &work, Some((Ceiling::Fp8, 0.1))).reached(), None);
        assert_eq!(KernelTime::of(1.0, &work, None).reached(), None);
        assert_eq!(KernelTime::of(1.0, &[], None).tightest(), None);
    }
}
