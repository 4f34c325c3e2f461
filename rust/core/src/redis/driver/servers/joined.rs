//! Transactions for one place that follow each other: they are written as one, and answered each for itself.

use crate::redis::driver::request::Request;
use crate::redis::link::{Refusal, Reply};

/// How many requests one transaction carries. The server does nothing else meanwhile, and more of them would hardly save it
/// any work.
const MOST: usize = 16;

/// Marks the requests whose commands are written into the transaction before them.
pub(super) fn join(requests: &mut [Request]) {
    let mut length = 0;
    let mut before: Option<&Request> = None;
    for request in requests {
        let joins = length < MOST && before.is_some_and(|before| request.can_join(before));
        length = if joins { length + 1 } else { 1 };
        request.set_joined(joins);
        before = Some(request);
    }
}

/// Takes the answers to requests from the answers to a pipeline. Those that were joined get what they would have got alone.
pub(super) fn replies_to(requests: &[Request], replies: Vec<Reply>) -> Vec<Vec<Reply>> {
    let mut replies = replies.into_iter();
    let mut own = Vec::with_capacity(requests.len());
    for together in requests.chunk_by(|_, next| next.is_joined()) {
        match together {
            [request] => own.push(request.own_replies(&mut replies)),
            _ => own.extend(parted(together, &mut replies)),
        }
    }
    own
}

/// The answers to a transaction of several requests, for each of these.
fn parted(together: &[Request], replies: &mut impl Iterator<Item = Reply>) -> Vec<Vec<Reply>> {
    let lengths = together.iter().map(Request::count);
    let length: usize = lengths.clone().sum();
    let mut replies: Vec<Reply> = replies.take(length + 2).collect();
    let refused = replies
        .iter()
        .position(|reply| Refusal::of(reply).is_some());
    let end = match refused {
        // The first is the cause; the end of the transaction says only that there was one.
        Some(refused) => Some(replies.swap_remove(refused)),
        None => replies.pop(),
    };
    match end {
        Some(Reply::Array(done)) => {
            let mut done = done.into_iter();
            let part = |length| vec![Reply::Array(done.by_ref().take(length).collect())];
            lengths.map(part).collect()
        }
        end => vec![end.into_iter().collect(); together.len()],
    }
}

#[cfg(test)]
mod tests;
