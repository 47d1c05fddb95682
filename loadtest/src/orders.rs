//! What a measured server is told on its standard input, a line each, and answers on its standard output: `listening ADDRESS`
//! first, `ready COUNT` when the markets are there, `done COUNT` when everything that was due is handed on.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// Orders that may wait.
const WAITING: usize = 16;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// `markets COUNT`
    Markets(usize),
    /// `pulse RATE SECONDS MARKETS SKEW STOPS WIDTH`
    Pulse {
        /// Changes a second.
        rate: f64,
        /// For how long.
        seconds: f64,
        /// Over how many markets.
        markets: usize,
        /// Zipf's exponent.
        skew: f64,
        /// Stops a second, of the first market.
        stops: f64,
        /// Levels that each change brings beside the one that says when it was due.
        width: usize,
    },
    /// `quit`, or the end of the input.
    Quit,
}

impl Order {
    /// The line that says it.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::Markets(count) => format!("markets {count}\n"),
            Self::Pulse { rate, seconds, markets, skew, stops, width } => {
                format!("pulse {rate} {seconds} {markets} {skew} {stops} {width}\n")
            }
            Self::Quit => "quit\n".into(),
        }
    }

    /// What a line says.
    ///
    /// # Errors
    /// Where that is nothing.
    pub fn read(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            let word = words.get(at).copied().unwrap_or("");
            word.parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n >= 0.0)
                .ok_or(format!("{word:?} is no number: {line}"))
        };
        match words.first().copied() {
            Some("markets") => Ok(Self::Markets(number(1)? as usize)),
            Some("pulse") => Ok(Self::Pulse {
                rate: number(1)?.max(0.001),
                seconds: number(2)?,
                markets: number(3)? as usize,
                skew: number(4)?,
                stops: number(5)?,
                width: number(6)? as usize,
            }),
            Some("quit") => Ok(Self::Quit),
            _ => Err(format!("{line:?}: markets COUNT, pulse RATE SECONDS MARKETS SKEW STOPS WIDTH or quit")),
        }
    }
}

/// Orders as they come.
#[derive(Debug)]
pub struct Orders(Receiver<Order>);

impl Orders {
    /// Those of standard input.
    #[must_use]
    pub fn of_stdin() -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                match Order::read(&line) {
                    Ok(order) => drop(sender.send(order)),
                    Err(why) => eprintln!("{why}"),
                }
            }
            // Whoever gave them is gone.
            let _ = sender.send(Order::Quit);
        });
        Self(receiver)
    }

    /// The next one that is there.
    #[must_use]
    pub fn take(&self) -> Option<Order> {
        match self.0.try_recv() {
            Ok(order) => Some(order),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Order::Quit),
        }
    }

    /// Waits for the next one.
    #[must_use]
    pub fn wait(&self) -> Order {
        self.0.recv().unwrap_or(Order::Quit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_as_it_is_written() {
        let pulse = Order::Pulse { rate: 0.5, seconds: 2.5, markets: 20, skew: 1.0, stops: 2.0, width: 3 };
        for order in [Order::Markets(7), pulse, Order::Quit] {
            assert_eq!(Order::read(&order.line()), Ok(order));
        }
        for bad in ["", "pulse", "pulse x 1 1 1 0 0", "pulse 1 1 1 -1 0 0", "pulse 1 1 1 1 0", "stop"] {
            assert!(Order::read(bad).is_err(), "{bad}");
        }
    }
}
