//! Several workers that serve the same model: sequences are divided among them, and those of a lost worker divided anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use serde_json::Value;

use super::frame::Frame;
use super::link::{Link, failed};
use crate::engine::BackendError;

/// A piece of work: a sequence of a calibration set, and what it is about how long that takes.
pub(super) struct Piece {
    /// The sequence, which stays with one worker, so that its cached prefixes are of use.
    pub sequence: usize,
    /// Tokens of the sequence.
    pub tokens: usize,
}

/// Takes a reply: all pieces of the worker that replies, how many of its replies came before, and the reply. Returns
/// whether that answers one more piece.
pub(super) type Each<'a> = dyn FnMut(&[usize], usize, Frame) -> Result<bool, BackendError> + 'a;

/// One or more workers; a single worker is a pool of one.
pub(super) struct Pool {
    links: Vec<Link>,
    /// Is told of each worker that is lost while others take over its work.
    report: Box<dyn Fn(&str) + Send>,
    /// The worker of each sequence of each calibration set.
    owners: HashMap<(String, usize), usize>,
    /// Tokens that each worker owns.
    loads: Vec<usize>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("links", &self.links).finish_non_exhaustive()
    }
}

/// What a thread that speaks with one worker reports.
enum Event {
    Frame(usize, Frame),
    /// Whether the worker is lost comes with what it ended with.
    Ended(usize, Result<(), BackendError>, bool),
}

impl Pool {
    /// Makes a pool of workers that have said hello alike.
    pub(super) fn new(links: Vec<Link>) -> Self {
        let loads = vec![0; links.len()];
        Self { links, report: Box::new(|_| ()), owners: HashMap::new(), loads }
    }

    /// Runs `report` for each worker that is lost while others take over its work.
    pub(super) fn on_loss(&mut self, report: impl Fn(&str) + Send + 'static) {
        self.report = Box::new(report);
    }

    fn alive(&self) -> impl Iterator<Item = usize> {
        self.links.iter().enumerate().filter(|(_, link)| link.lost().is_none()).map(|(n, _)| n)
    }

    /// Sends a request to every worker, one after the other, and returns the last terminal reply.
    ///
    /// # Errors
    /// That of a worker that refuses; where all are lost, that of the last.
    pub(super) fn tell(
        &mut self,
        request: &Value,
        body: &[u8],
        stale: &(dyn Fn() -> bool + Sync),
    ) -> Result<Value, BackendError> {
        let mut last = None;
        for link in self.links.iter_mut().filter(|link| link.lost().is_none()) {
            match link.ask(request.clone(), body.to_vec(), 0, stale, &mut |_| Ok(())) {
                Ok(head) => last = Some(head),
                Err(error) if link.lost().is_none() => return Err(error),
                Err(_) => {}
            }
        }
        last.ok_or_else(|| self.all_lost())
    }

    /// Divides work among the workers and hands over their replies as they come.
    ///
    /// `request` makes the request for some pieces. Pieces that a lost worker has not answered are divided among the others.
    ///
    /// # Errors
    /// What a worker or `each` refuses; [`BackendError::Cancelled`]; where all workers are lost, why the last is.
    pub(super) fn spread(
        &mut self,
        set: &str,
        pieces: &[Piece],
        request: &(dyn Fn(&[usize]) -> Value + Sync),
        most: usize,
        stale: &(dyn Fn() -> bool + Sync),
        each: &mut Each,
    ) -> Result<(), BackendError> {
        let mut todo: Vec<usize> = (0..pieces.len()).collect();
        while !todo.is_empty() {
            let shares = self.divide(set, pieces, &todo)?;
            let answered = self.round(&shares, request, most, stale, each)?;
            self.report_losses(&shares);
            todo = shares.iter().zip(answered).flat_map(|(share, answered)| share[answered..].to_vec()).collect();
            todo.sort_unstable();
        }
        Ok(())
    }

    /// Returns the pieces of each worker, in order: a sequence goes to the worker that has had it before, a new one to the
    /// worker with the fewest tokens.
    fn divide(&mut self, set: &str, pieces: &[Piece], todo: &[usize]) -> Result<Vec<Vec<usize>>, BackendError> {
        let alive: Vec<usize> = self.alive().collect();
        if alive.is_empty() {
            return Err(self.all_lost());
        }
        let mut shares = vec![Vec::new(); self.links.len()];
        for &n in todo {
            let Piece { sequence, tokens } = pieces[n];
            let key = (set.to_owned(), sequence);
            let owner = match self.owners.get(&key) {
                Some(owner) if alive.contains(owner) => *owner,
                _ => {
                    let least = alive.iter().copied().min_by_key(|&link| self.loads[link]).unwrap_or(0);
                    self.loads[least] += tokens;
                    self.owners.insert(key, least);
                    least
                }
            };
            shares[owner].push(n);
        }
        Ok(shares)
    }

    /// Asks every worker for its share at the same time; returns how many pieces each has answered.
    fn round(
        &mut self,
        shares: &[Vec<usize>],
        request: &(dyn Fn(&[usize]) -> Value + Sync),
        most: usize,
        stale: &(dyn Fn() -> bool + Sync),
        each: &mut Each,
    ) -> Result<Vec<usize>, BackendError> {
        let stop = AtomicBool::new(false);
        let stopped = || stop.load(Ordering::Relaxed) || stale();
        let mut replies = vec![0; shares.len()];
        let mut answered = vec![0; shares.len()];
        let mut refused = None;
        thread::scope(|scope| {
            let (sender, events) = channel();
            for (n, (link, share)) in self.links.iter_mut().zip(shares).enumerate() {
                if share.is_empty() {
                    continue;
                }
                let (sender, stopped) = (sender.clone(), &stopped);
                scope.spawn(move || {
                    let mut forward = |frame| {
                        let _ = sender.send(Event::Frame(n, frame));
                        Ok(())
                    };
                    let done = link.ask(request(share), Vec::new(), most, stopped, &mut forward);
                    let _ = sender.send(Event::Ended(n, done.map(drop), link.lost().is_some()));
                });
            }
            drop(sender);
            for event in events {
                match event {
                    Event::Frame(n, frame) if refused.is_none() => match each(&shares[n], replies[n], frame) {
                        Ok(one_more) => {
                            replies[n] += 1;
                            answered[n] += usize::from(one_more);
                        }
                        Err(error) => {
                            refused = Some(error);
                            stop.store(true, Ordering::Relaxed);
                        }
                    },
                    // Others take over what a lost worker has not answered.
                    Event::Frame(..) | Event::Ended(_, Err(_), true) => {}
                    Event::Ended(n, Ok(()), _) => answered[n] = shares[n].len(),
                    Event::Ended(_, Err(error), false) => {
                        stop.store(true, Ordering::Relaxed);
                        refused.get_or_insert(error);
                    }
                }
            }
        });
        refused.map_or(Ok(answered), Err)
    }

    /// Reports workers that were lost with work to do, if others are left.
    fn report_losses(&self, shares: &[Vec<usize>]) {
        let left = self.alive().count();
        for (n, (link, share)) in self.links.iter().zip(shares).enumerate() {
            if let Some(why) = link.lost().filter(|_| left > 0 && !share.is_empty()) {
                let all = self.links.len();
                (self.report)(&format!("worker {} of {all}: {why}; {left} of {all} take over", n + 1));
            }
        }
    }

    fn all_lost(&self) -> BackendError {
        let why = self.links.iter().rev().find_map(Link::lost).unwrap_or("there is no worker");
        failed(why, Some("start again; the session and the search's journal have what was measured"))
    }
}
