//! What goes wrong, when, and for how long.

use rand::Rng;
use rand::rngs::SmallRng;

/// Ingests that run, where all do.
pub const PLACES: usize = 3;
pub const VIEWERS: usize = 2;

macro_rules! faults {
    ($($name:ident $text:literal)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($name),* }
        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$name),*];
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

faults! {
    Killed "ingest killed at any await"
    Stopped "ingest told to stop"
    Paused "ingest stopped and revived"
    CutOff "ingest cut off from the log"
    SlowLog "slow way to the log"
    LostCalls "requests and answers lost"
    LogAway "log away"
    LogFull "log full"
    Failover "log falls back to a replica"
    Amnesia "log forgets all"
    InputLost "source's messages lost"
    InputBreaks "subscription to sources breaks"
    InputDeaf "subscription to sources deaf"
    InputSlow "source's messages late"
    MuteSource "source answers no request"
    ViewerDeaf "gateway's subscription deaf"
    ViewerLost "gateway's subscription lost"
    ViewerFails "gateway's readings fail or are late"
    ClockJump "clock set"
    Operator "operator suspends"
}

/// One step of the plot.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Kill(usize),
    Stop(usize),
    Start(usize),
    Pause(usize, bool),
    Cut(usize, bool),
    Delay(usize, (u64, u64)),
    Lose(usize, u32),
    /// No answer (or else refused at once), or back.
    Away {
        away: bool,
        silent: bool,
    },
    Full(bool),
    Copy,
    FallBack,
    Forget,
    InputLost(usize, u32),
    /// Deaf or not, and whether it is told.
    InputDeaf {
        place: usize,
        deaf: bool,
        told: bool,
    },
    InputSlow(usize, u64),
    Mute(bool),
    ViewerDeaf(usize, bool),
    ViewerLost(usize, bool),
    ViewerFails(usize, u32),
    Jump(i64),
    Hold(bool),
}

impl Fault {
    /// Its steps, with their times in ms; `until` ends the stretch.
    pub fn plot(self, dice: &mut SmallRng, until: u64) -> Vec<(u64, Step)> {
        let begin = dice.random_range(0..until / 2);
        let end = (begin + dice.random_range(50..until)).min(until);
        let (place, viewer) = (dice.random_range(0..PLACES), dice.random_range(0..VIEWERS));
        let silent = dice.random_bool(0.5);
        match self {
            Self::Killed => vec![(begin, Step::Kill(place)), (end, Step::Start(place))],
            Self::Stopped => vec![(begin, Step::Stop(place)), (end, Step::Start(place))],
            Self::Paused => vec![(begin, Step::Pause(place, true)), (end, Step::Pause(place, false))],
            Self::CutOff => vec![(begin, Step::Cut(place, true)), (end, Step::Cut(place, false))],
            Self::SlowLog => {
                // Also one that is always slow: each call takes longer than the time between two signs of life, and almost
                // as long as it may.
                let (least, most) = if dice.random_bool(0.5) {
                    let most = dice.random_range(250..480);
                    (most - 20, most)
                } else {
                    (0, dice.random_range(1..400))
                };
                let all = dice.random_bool(0.5);
                let places = if all { 0..PLACES } else { place..place + 1 };
                places
                    .flat_map(|p| [(begin, Step::Delay(p, (least, most))), (end, Step::Delay(p, (0, 2)))])
                    .collect()
            }
            Self::LostCalls => {
                vec![(begin, Step::Lose(place, dice.random_range(1..150))), (end, Step::Lose(place, 0))]
            }
            Self::LogAway => {
                let away = |away| Step::Away { away, silent };
                vec![(begin, away(true)), (end, away(false))]
            }
            Self::LogFull => vec![(begin, Step::Full(true)), (end, Step::Full(false))],
            Self::Failover => {
                let copied = begin.saturating_sub(dice.random_range(0..500));
                vec![(copied, Step::Copy), (begin, Step::FallBack)]
            }
            Self::Amnesia => vec![(begin, Step::Forget)],
            Self::InputLost => {
                let some = dice.random_range(1..200);
                vec![(begin, Step::InputLost(place, some)), (end, Step::InputLost(place, 0))]
            }
            Self::InputBreaks => {
                let deaf = |deaf| Step::InputDeaf { place, deaf, told: true };
                vec![(begin, deaf(true)), (end, deaf(false))]
            }
            Self::InputDeaf => {
                // A probe finds it: then it is a break like any other.
                let end = end.min(begin + 2_000);
                let deaf = |deaf, told| Step::InputDeaf { place, deaf, told };
                vec![(begin, deaf(true, false)), (end, deaf(false, true))]
            }
            Self::InputSlow => {
                vec![
                    (begin, Step::InputSlow(place, dice.random_range(1..300))),
                    (end, Step::InputSlow(place, 5)),
                ]
            }
            Self::MuteSource => vec![(begin, Step::Mute(true)), (end, Step::Mute(false))],
            Self::ViewerDeaf => {
                vec![(begin, Step::ViewerDeaf(viewer, true)), (end, Step::ViewerDeaf(viewer, false))]
            }
            Self::ViewerLost => {
                vec![(begin, Step::ViewerLost(viewer, true)), (end, Step::ViewerLost(viewer, false))]
            }
            Self::ViewerFails => {
                let some = dice.random_range(1..700);
                vec![(begin, Step::ViewerFails(viewer, some)), (end, Step::ViewerFails(viewer, 0))]
            }
            Self::ClockJump => vec![(begin, Step::Jump(dice.random_range(-4_000_000..4_000_000)))],
            Self::Operator => vec![(begin, Step::Hold(true)), (end, Step::Hold(false))],
        }
    }
}
