//! Input that can't be taken: it is named by its path, and the rest is taken.

use tictac_ingest::mcm::Kind;
use tictac_ingest::problem::ProblemKind;
use tictac_proto::model::{MarketField as M, MarketStatus, SelectionField as S, Side};

use crate::feed::{Feed, definition, market, runner};

#[test]
fn a_wrong_value_costs_that_value() {
    use ProblemKind::Value as V;
    let mut feed = Feed::default();
    let found = feed.faulty(
        r#"{"id":"1.1","tv":"x","img":3,"rc":[
            {"id":7,"ltp":"two","tv":-1,"spn":{"a":1},"spf":1e300,"atb":[[2,1],[2.005,1],[3,-1],[4],[5,1,1],"x",[-1,1],[6,null],[7,1e17]],"atl":5,"trd":[[2,1]]},
            {"ltp":2},
            {"id":"8","ltp":2},
            {"id":8,"hc":0.333,"ltp":2},
            17,
            {"id":9,"ltp":-2,"tv":3,"batl":[[-1,2,1],[64,2,1],[0.5,2,1],[0,2,1],[1,-2,1],[1,3]]}]},
           {"tv":1}, 5, {"id":"","tv":1}, {"id":"1.2","rc":{},"tv":1}"#,
    );
    let want = [
        "mc[0].tv",
        "mc[0].img",
        "mc[0].rc[0].ltp",
        "mc[0].rc[0].tv",
        "mc[0].rc[0].spn",
        "mc[0].rc[0].spf",
        "mc[0].rc[0].atb[1]",
        "mc[0].rc[0].atb[2]",
        "mc[0].rc[0].atb[3]",
        "mc[0].rc[0].atb[4]",
        "mc[0].rc[0].atb[5]",
        "mc[0].rc[0].atb[7]",
        "mc[0].rc[0].atb[8]",
        "mc[0].rc[0].atl",
        "mc[0].rc[1]",
        "mc[0].rc[2].id",
        "mc[0].rc[2]",
        "mc[0].rc[3].hc",
        "mc[0].rc[3]",
        "mc[0].rc[4]",
        "mc[0].rc[5].batl[2]",
        "mc[0].rc[5].batl[5]",
        "mc[1]",
        "mc[2]",
        "mc[4].rc",
        "mc[0].rc[0].atb[6]",
        "mc[0].rc[5].ltp",
        "mc[0].rc[5].batl[0]",
        "mc[0].rc[5].batl[1]",
        "mc[0].rc[5].batl[4]",
        "mc[3].id",
    ];
    assert!(found.iter().all(|f| f.0 == V), "{found:?}");
    assert_eq!(found.iter().map(|f| f.1.as_str()).collect::<Vec<_>>(), want);
    assert_eq!((feed.back(7), feed.side(7, Side::Traded)), (vec![(200, 100)], vec![(200, 100)]));
    assert_eq!((feed.int(9, S::Volume), feed.side(9, Side::Lay)), (Some(300), vec![(200, 100)]));
    assert_eq!(feed.book().selections.len(), 2);
    assert_eq!(feed.books["1.2"].fields.int(M::Matched), Some(100));
    let problem = feed.problems.iter().find(|p| p.at == "mc[0].rc[0].ltp").unwrap();
    assert!(problem.why.contains("a price was expected, a text is there"), "{problem}");
    assert_eq!(problem.excerpt, "\\\"two\\\"");
}

#[test]
fn a_wrong_value_of_a_definition_stays_what_it_was() {
    let mut feed = Feed::default();
    feed.mc(&market(&definition(r#","venue":"Ascot","betDelay":5,"marketTime":"2025-05-09T19:00:00.000Z""#)));
    let long = "x".repeat(300);
    let found = feed.faulty(&market(&definition(&format!(
        r#","venue":7,"betDelay":1.5,"marketTime":"soon","marketType":"{long}","status":"PAUSED","inPlay":"no",
        "priceLadderDefinition":{{"type":"ODD"}},"eachWayDivisor":-1,"runners":[5,{{"name":"x"}},{{"id":7,"status":"ILL","sortPriority":"a"}},{{"id":6,"bsp":true}}]"#,
    ))));
    let paths: Vec<&str> =
        found.iter().map(|f| f.1.strip_prefix("mc[0].marketDefinition.").unwrap()).collect();
    let want = [
        "venue",
        "betDelay",
        "marketTime",
        "marketType",
        "status",
        "inPlay",
        "eachWayDivisor",
        "runners[0]",
        "runners[1]",
        "runners[2].status",
        "runners[2].sortPriority",
        "runners[3].bsp",
        "priceLadderDefinition.type",
    ];
    assert_eq!(paths, want);
    assert_eq!(found[3].0, ProblemKind::TooLarge);
    let fields = &feed.book().fields;
    assert_eq!((fields.text(M::Venue), fields.int(M::BetDelay)), (Some("Ascot"), Some(5)));
    assert_eq!((fields.int(M::Start), feed.book().status()), (Some(1_746_817_200_000), MarketStatus::Open));
    assert_eq!((feed.int(7, S::Status), feed.int(7, S::Sort)), (Some(0), Some(1)));
    assert!(feed.book().selections.contains_key(&runner(6)));
    assert_eq!(
        feed.faulty(r#"{"id":"1.1","marketDefinition":[1]}"#),
        [(ProblemKind::Value, "mc[0].marketDefinition".into())]
    );
}

#[test]
fn other_operations_and_no_objects_are_named() {
    let mut feed = Feed::default();
    for (line, kind, at) in [
        (r#"{"op":"connection","connectionId":"1"}"#, ProblemKind::Operation, "op"),
        (r#"{"mc":[{"id":"1.1","tv":1}]}"#, ProblemKind::Operation, "op"),
        ("[1,2]", ProblemKind::Syntax, "message"),
        ("hello", ProblemKind::Syntax, "message"),
    ] {
        let read = feed.read(line);
        assert_eq!((read.kind, feed.updates.len()), (Kind::None, 0), "{line}");
        assert_eq!((feed.problems[0].kind, feed.problems[0].at.as_str()), (kind, at), "{line}");
        assert_eq!(feed.problems.len(), 1, "{line}");
    }
    assert!(feed.read(r#"{"op":"mcm","mc":5}"#).kind == Kind::Change);
    assert_eq!(feed.problems[0].at, "mc");
}

#[test]
fn a_line_that_breaks_off_loses_the_broken_market_only() {
    let mut feed = Feed::default();
    let line = r#"{"op":"mcm","pt":1,"mc":[{"id":"1.1","rc":[{"id":7,"ltp":2}]},{"id":"1.2","img":true,"rc":[{"id":8,"ltp":12}]}]}"#;
    for end in 1..line.len() {
        let mut feed = Feed::default();
        let read = feed.read(&line[..end]);
        assert!(read.broken, "{}", &line[..end]);
        assert_eq!(feed.problems.last().map(|p| p.kind), Some(ProblemKind::Syntax));
        let whole = line[..end].matches("}]}").count();
        assert_eq!(feed.updates.len(), whole, "{}", &line[..end]);
    }
    assert!(!feed.read(line).broken);
    let twice = feed.read(&format!("{line}{line}"));
    assert!(twice.broken && feed.updates.len() == 2, "the first is taken, the second is named");
    assert!(feed.problems[0].why.contains("one message a line"), "{}", feed.problems[0]);
}

#[test]
fn limits_are_kept_and_named() {
    let mut feed = Feed::default();
    let runners: Vec<String> = (1..=1030).map(|id| format!("{{\"id\":{id},\"ltp\":2}}")).collect();
    let found = feed.faulty(&format!("{{\"id\":\"1.1\",\"rc\":[{}]}}", runners.join(",")));
    assert_eq!((found.len(), &found[0]), (6, &(ProblemKind::TooLarge, "mc[0].rc[1024]".to_owned())));
    assert_eq!(feed.book().selections.len(), 1024);
    let defined: Vec<String> =
        (1000..=1100).map(|id| format!("{{\"id\":{id},\"status\":\"ACTIVE\"}}")).collect();
    let more = format!(",\"runners\":[{}]", defined.join(","));
    let found = feed.faulty(&market(&definition(&more)));
    assert_eq!(found, [(ProblemKind::TooLarge, "mc[0].marketDefinition.runners".to_owned())]);
    assert_eq!(feed.book().selections.len(), 1024);

    let rows: Vec<String> = (1..=2100).map(|p| format!("[{p},1]")).collect();
    let found =
        feed.faulty(&format!("{{\"id\":\"1.2\",\"rc\":[{{\"id\":1,\"atb\":[{}]}}]}}", rows.join(",")));
    assert_eq!(found, [(ProblemKind::TooLarge, "mc[0].rc[0].atb".to_owned())]);
    assert_eq!(feed.books["1.2"].selections[&runner(1)].ladder(Side::Back).len(), 2048);

    let id = "1".repeat(65);
    assert_eq!(
        feed.faulty(&format!("{{\"id\":\"{id}\",\"tv\":1}}")),
        [(ProblemKind::Value, "mc[0].id".to_owned())]
    );
    let wrong = ["5"; 500].join(",");
    assert_eq!(feed.faulty(&wrong).len(), tictac_ingest::mcm::MAX_PROBLEMS, "problems are bounded too");
    let huge = vec![b' '; tictac_ingest::mcm::MAX_LINE + 1];
    let mut problems = Vec::new();
    assert!(feed.reader.read("bf", &huge, &mut Vec::new(), &mut problems).broken);
    assert_eq!(problems[0].kind, ProblemKind::TooLarge);
}
