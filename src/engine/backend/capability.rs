//! What only some backends can do, by the names of the worker protocol.

use std::fmt;

/// Something that a backend may or may not be able to do; every backend describes itself, evaluates and records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Tells the most likely token of every target.
    Top1,
    /// Tells the divergence from the reference's predictions.
    Kl,
    /// Runs the indexers of Shared layers beside the forward.
    Shadow,
    /// Measures how well layers could share by attention mass or output.
    Affinity,
    /// Times pattern and reference in alternation.
    Timed,
    /// Resumes at the first layer that differs from an earlier forward.
    Resume,
    /// Runs without selection.
    Dense,
    /// Runs with a window in place of selections.
    Window,
    /// Continues sequences greedily.
    Decode,
    /// Tells how much of the device's memory is free.
    Memory,
    /// Trains indexers.
    Train,
    /// Gives logits of every position.
    Logits,
}

impl Capability {
    const ALL: [Self; 12] = [
        Self::Top1,
        Self::Kl,
        Self::Shadow,
        Self::Affinity,
        Self::Timed,
        Self::Resume,
        Self::Dense,
        Self::Window,
        Self::Decode,
        Self::Memory,
        Self::Train,
        Self::Logits,
    ];

    /// Returns the name in the worker protocol.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top1 => "top1",
            Self::Kl => "kl",
            Self::Shadow => "shadow",
            Self::Affinity => "affinity",
            Self::Timed => "timed",
            Self::Resume => "resume",
            Self::Dense => "dense",
            Self::Window => "window",
            Self::Decode => "decode",
            Self::Memory => "memory",
            Self::Train => "train",
            Self::Logits => "logits",
        }
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Returns those of a backend in this process.
    pub fn all() -> Self {
        Capability::ALL.into_iter().collect()
    }

    /// Returns the set without some.
    pub fn without(self, some: &[Capability]) -> Self {
        Self(some.iter().fold(self.0, |bits, &c| bits & !(1 << c as u16)))
    }

    /// Returns those with the given names; unknown names are ignored.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        Capability::ALL.into_iter().filter(|c| names.contains(&c.name())).collect()
    }

    /// Returns the names of those that the set holds, and of those that it lacks.
    pub fn names(self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (has, lacks): (Vec<_>, Vec<_>) = Capability::ALL.into_iter().partition(|c| self.has(*c));
        let names = |all: Vec<Capability>| all.into_iter().map(Capability::name).collect();
        (names(has), names(lacks))
    }

    /// Returns whether the set holds one.
    pub fn has(self, capability: Capability) -> bool {
        self.0 >> capability as u16 & 1 == 1
    }
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        Self(all.into_iter().fold(0, |bits, c| bits | 1 << c as u16))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names().0).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_named() {
        let set = Capabilities::named(["kl", "timed", "dance"]);
        assert!(set.has(Capability::Kl) && set.has(Capability::Timed) && !set.has(Capability::Train));
        assert_eq!(format!("{set:?}"), r#"{"kl", "timed"}"#);
        assert!(Capability::ALL.into_iter().all(|c| Capabilities::all().has(c)));
        let most = Capabilities::all().without(&[Capability::Train, Capability::Decode]);
        assert!(!most.has(Capability::Train) && !most.has(Capability::Decode) && most.has(Capability::Kl));
    }
}
