//! What a training is asked for, as it is typed.

use crate::domain::Targets;

/// What is asked for, as it is typed: such as `200+50 2e-3 served`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingPlan {
    /// Steps of the warm-up.
    pub steps: u64,
    /// Steps of the sparse stage.
    pub sparse_steps: u64,
    /// Peak of the learning rate.
    pub lr: f64,
    /// Whose attention the indexers learn.
    pub targets: Targets,
}

impl Default for TrainingPlan {
    fn default() -> Self {
        Self { steps: 200, sparse_steps: 50, lr: 2e-3, targets: Targets::Served }
    }
}

impl std::fmt::Display for TrainingPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{} {:e} {}", self.steps, self.sparse_steps, self.lr, self.targets.name())
    }
}

impl std::str::FromStr for TrainingPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let steps = words.next().unwrap_or_default();
        let (warm, sparse) = steps.split_once('+').ok_or("steps of both stages, such as 200+50")?;
        let number = |s: &str| s.parse::<u64>().map_err(|_| format!("'{s}' is no number of steps"));
        let (steps, sparse_steps) = (number(warm)?, number(sparse)?);
        if steps + sparse_steps == 0 {
            return Err("at least one step is needed".to_owned());
        }
        let lr = words.next().map_or(Ok(Self::default().lr), |s| {
            let rate = s.parse::<f64>().ok().filter(|r| r.is_finite() && *r > 0.0);
            rate.ok_or_else(|| format!("'{s}' is no learning rate, such as 2e-3"))
        })?;
        let targets = match words.next() {
            None | Some("served") => Targets::Served,
            Some("own") => Targets::Own,
            Some(other) => return Err(format!("'{other}' is neither served nor own")),
        };
        match words.next() {
            None => Ok(Self { steps, sparse_steps, lr, targets }),
            Some(more) => Err(format!("'{more}' is too much: steps, rate, and served or own")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_typed_as_they_are_shown() {
        let plan = TrainingPlan { steps: 30, sparse_steps: 0, lr: 5e-4, targets: Targets::Own };
        assert_eq!(plan.to_string(), "30+0 5e-4 own");
        assert_eq!(plan.to_string().parse(), Ok(plan));
        assert_eq!("200+50".parse(), Ok(TrainingPlan::default()));
        let wrong = |text: &str| text.parse::<TrainingPlan>().unwrap_err();
        assert!(wrong("200").contains("both stages") && wrong("0+0").contains("one step"));
        assert!(
            wrong("1+x").contains("'x'") && wrong("1+1 -3").contains("'-3'") && wrong("1+1 1e-3 all").contains("'all'")
        );
        assert!(wrong("1+1 1e-3 own more").contains("too much"));
    }
}
