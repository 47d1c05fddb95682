//! What fails a run, and what makes it doubtful.
#![allow(clippy::unwrap_used)]

use toml::Table;

use super::*;

/// A run of two groups that was right.
fn figures() -> Figures {
    let text = "url = \"ws://h:1\"\n[[clients]]\nname = \"crowd\"\n[[clients]]\nname = \"desk\"";
    let scenario = Scenario::read(Some((std::path::Path::new("t.toml"), text)), &Table::new()).unwrap();
    let mut figures = Figures::new(&scenario, 4).unwrap();
    for group in &mut figures.groups {
        group.measured_s = 5.0;
        (group.sum.deliveries, group.sum.digests) = (100, 10);
    }
    figures
}

fn concluded(change: impl FnOnce(&mut Figures)) -> Figures {
    let mut figures = figures();
    change(&mut figures);
    figures.conclude();
    figures
}

#[test]
fn clocks_that_differ_make_figures_doubtful() {
    let figures = concluded(|figures| {
        figures.reference.early.checked(-2_500);
        figures.groups[0].sum.early.checked(-100);
    });
    assert!(figures.good());
    assert!(
        figures.warnings.iter().any(|warning| warning.contains("2 changes") && warning.contains("2.5 ms")),
        "{:?}",
        figures.warnings
    );
}

#[test]
fn a_run_that_compared_nothing_fails() {
    let figures = concluded(|figures| figures.compared.sampled = 3);
    assert!(figures.problems[0].contains("none of 3 books"), "{:?}", figures.problems);
    assert!(concluded(|figures| (figures.compared.sampled, figures.compared.gone) = (3, 3)).good());
}

#[test]
fn a_group_that_nothing_came_to_fails_the_run() {
    assert!(concluded(|_| {}).good());
    let figures = concluded(|figures| figures.groups[1].sum.deliveries = 0);
    assert!(figures.problems.iter().any(|problem| problem.contains("no update came to \"desk\"")));
    let figures = concluded(|figures| figures.groups[0].sum.digests = 0);
    assert!(figures.problems.iter().any(|problem| problem.contains("no digest of \"crowd\"")));
    let short = concluded(|figures| {
        (figures.groups[0].sum.digests, figures.groups[0].measured_s) = (0, 1.0);
    });
    assert!(short.good(), "{:?}", short.problems);
}
