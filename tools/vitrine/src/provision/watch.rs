//! `vitrine provision --watch`: looks at guests again and again; one that waits for its key, after a restart say, is verified anew and given
//! it.
//!
//! What a guest says of its state is not verified: all it can bring about is that the guest is.

use core::time::Duration;
use std::sync::Arc;
use std::thread;

use client::{Address, Client, Health, Options, State, Trust};

use crate::terminal;

/// One per boot of a guest; `None` of one that showed no evidence.
pub type Boot = Option<[u8; 16]>;

/// Looks after all of them, each in a thread of its own, for ever. `deliver` verifies a guest, is told which boot of it had the key last,
/// and tells which has it now.
pub fn watch<F, E>(addresses: &[Address], interval: Duration, deliver: F)
where
    F: Fn(&Address, Boot) -> Result<Boot, E> + Send + Sync + 'static,
    E: ToString,
{
    let deliver = Arc::new(deliver);
    let threads: Vec<_> = addresses
        .iter()
        .cloned()
        .map(|address| {
            let deliver = Arc::clone(&deliver);
            thread::spawn(move || {
                let mut guest = Guest::default();
                loop {
                    let found = look(&address, interval);
                    if let Some(words) = guest.tend(found, |boot| deliver(&address, boot)) {
                        println!("{address}: {}", terminal::printable(&words));
                    }
                    thread::sleep(interval);
                }
            })
        })
        .collect();
    for thread in threads {
        // They do not end.
        let _ = thread.join();
    }
}

/// What a guest says of itself, if it answers.
fn look(address: &Address, patience: Duration) -> Result<Health, client::Error> {
    let mut options = Options::new(Trust::InsecureNoTee);
    options.connect_timeout = patience;
    options.answer_timeout = patience;
    Client::new(address.clone(), options)?.health()
}

/// What is known of a guest.
#[derive(Default)]
struct Guest {
    /// The boot that had the key last.
    had: Boot,
    /// The first line of what was said last.
    said: String,
}

impl Guest {
    /// Delivers the key if the guest waits for it. What there is to say, if that is something new.
    fn tend<E: ToString>(
        &mut self,
        found: Result<Health, client::Error>,
        deliver: impl FnOnce(Boot) -> Result<Boot, E>,
    ) -> Option<String> {
        let words = match found {
            Ok(Health {
                state: State::Sealed,
                ..
            }) => match deliver(self.had) {
                Ok(boot) => {
                    self.had = boot;
                    "has the key".to_owned()
                }
                Err(failure) => failure.to_string(),
            },
            Ok(health) => match health.reason {
                Some(reason) => format!("failed: {reason}"),
                None => format!("{:?}", health.state).to_lowercase(),
            },
            Err(error) => error.to_string(),
        };
        // What follows the first line may name the time.
        let news = words.lines().next().unwrap_or_default();
        if news == self.said {
            return None;
        }
        news.clone_into(&mut self.said);
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(state: &str) -> Result<Health, client::Error> {
        Ok(serde_json::from_value(serde_json::json!({ "state": state })).unwrap())
    }

    #[test]
    fn only_a_sealed_guest_gets_the_key_and_each_boot_of_it() {
        let mut guest = Guest::default();
        let never = |_| -> Result<Boot, String> { panic!("it has its key") };
        let boot = |number: u8| Some([number; 16]);

        let words = guest.tend(health("booting"), never);
        assert_eq!(words.as_deref(), Some("booting"));
        // Verification fails, twice with the same words; then it holds.
        let refuse = |had| {
            assert_eq!(had, None);
            Err("evidence-mismatch")
        };
        let words = guest.tend(health("sealed"), refuse);
        assert_eq!(words.as_deref(), Some("evidence-mismatch"));
        assert_eq!(guest.tend(health("sealed"), refuse), None);
        let words = guest.tend(health("sealed"), |_| Ok::<_, String>(boot(1)));
        assert_eq!(words.as_deref(), Some("has the key"));

        for state in ["loading", "ready"] {
            assert_eq!(guest.tend(health(state), never).as_deref(), Some(state));
        }
        let gone = guest.tend(Err(client::Error::Closed), never);
        assert!(gone.is_some());
        // It is back, and the deliverer is told who had the key before.
        let words = guest.tend(health("sealed"), |had| {
            assert_eq!(had, boot(1));
            Ok::<_, String>(boot(2))
        });
        assert_eq!(words.as_deref(), Some("has the key"));
        assert_eq!(guest.had, boot(2));
    }
}
