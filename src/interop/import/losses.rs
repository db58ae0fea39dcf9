//! Log-probabilities of the same prompts under two patterns, target by target.

use super::ImportError;

/// One token of a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptToken {
    /// Its id; meaningless at the first position where the server does not tell it.
    pub id: u32,
    /// Its log-probability, nats; `None` at the first position, which nothing predicts.
    pub logprob: Option<f64>,
    /// The most likely token there, where it was told.
    pub top: Option<u32>,
}

/// What a server said of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Position of the first of `tokens`.
    pub start: usize,
    /// From there on.
    pub tokens: Vec<PromptToken>,
}

/// One target under both patterns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Position of the query; the target is the token after it.
    pub position: usize,
    /// −log p(target), nats.
    pub nll: f64,
    /// The same in the reference.
    pub reference: f64,
    /// Whether the most likely token is the same, where both were told.
    pub same_top: Option<bool>,
}

/// Returns the targets of every prompt under both patterns.
///
/// # Errors
/// [`ImportError`] where prompts differ, or where a log-probability is missing or not finite.
pub fn compare(reference: &[Prompt], run: &[Prompt]) -> Result<Vec<Vec<Pair>>, ImportError> {
    if reference.len() != run.len() {
        return Err(ImportError::Count { ours: run.len(), reference: reference.len() });
    }
    reference.iter().zip(run).enumerate().map(|(response, (theirs, ours))| pairs(response, theirs, ours)).collect()
}

fn pairs(response: usize, reference: &Prompt, run: &Prompt) -> Result<Vec<Pair>, ImportError> {
    let other = |what: String| ImportError::OtherPrompt { response, what };
    let span = |p: &Prompt| (p.start, p.start + p.tokens.len());
    if span(reference) != span(run) {
        let ((a, b), (c, d)) = (span(run), span(reference));
        return Err(other(format!("positions {a} to {b} were told, and {c} to {d} of the reference")));
    }
    let mut pairs = Vec::with_capacity(run.tokens.len());
    for (at, (theirs, ours)) in reference.tokens.iter().zip(&run.tokens).enumerate().skip(1) {
        let position = run.start + at;
        if theirs.id != ours.id {
            return Err(other(format!("token {} at position {position}, where that has {}", ours.id, theirs.id)));
        }
        let nll = |token: &PromptToken| match token.logprob {
            Some(value) if value.is_finite() => Ok(-value),
            value => Err(ImportError::NotFinite { response, position, value: value.unwrap_or(f64::NAN) }),
        };
        pairs.push(Pair {
            position: position - 1,
            nll: nll(ours)?,
            reference: nll(theirs)?,
            same_top: ours.top.zip(theirs.top).map(|(a, b)| a == b),
        });
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(start: usize, tokens: &[(u32, f64)]) -> Prompt {
        let token = |(at, &(id, logprob)): (usize, &(u32, f64))| PromptToken {
            id,
            logprob: (at > 0).then_some(logprob),
            top: Some(id),
        };
        Prompt { start, tokens: tokens.iter().enumerate().map(token).collect() }
    }

    #[test]
    fn targets_belong_to_the_query_before_them() {
        let (a, b) = (prompt(0, &[(5, 0.0), (6, -1.0)]), prompt(0, &[(5, 0.0), (6, -1.5)]));
        let pair = Pair { position: 0, nll: 1.5, reference: 1.0, same_top: Some(true) };
        assert_eq!(compare(std::slice::from_ref(&a), &[b]).unwrap(), [[pair]]);
        let late = prompt(7, &[(5, 0.0), (6, -1.0)]);
        let late = [late];
        assert_eq!(compare(&late, &late).unwrap()[0][0].position, 7);
        assert!(matches!(compare(&[a], &late), Err(ImportError::OtherPrompt { response: 0, .. })));
    }

    #[test]
    fn other_prompts_and_impossible_tokens_are_refused() {
        let a = prompt(0, &[(5, 0.0), (6, -1.0)]);
        let error = |run: &[Prompt]| compare(std::slice::from_ref(&a), run).unwrap_err();
        assert_eq!(error(&[]), ImportError::Count { ours: 0, reference: 1 });
        let told = error(&[prompt(0, &[(5, 0.0), (7, -1.0)])]).to_string();
        assert_eq!(told, "prompt 0 is another one than the reference's: token 7 at position 1, where that has 6");
        let told = error(&[prompt(0, &[(5, 0.0), (6, f64::NEG_INFINITY)])]).to_string();
        assert_eq!(told, "the log-probability at position 1 of response 0 is -inf");
    }
}
