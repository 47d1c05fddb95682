//! What a scenario may say, and what is said of one that can't be used.
#![allow(clippy::unwrap_used)]

use super::*;

fn file(text: &str) -> Result<Scenario, String> {
    Scenario::read(Some((Path::new("night.toml"), text)), &Table::new())
}

fn both(text: &str, flags: &[(&str, &str)]) -> Result<Scenario, String> {
    let flags = flags.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    Scenario::read(Some((Path::new("night.toml"), text)), &flags)
}

const EVENING: &str = r#"
url = "ws://127.0.0.1:8080"
seconds = 30
view = 3

[[clients]]
name = "crowd"
count = 500
ramp = 200
pick = "zipf"
markets = 20
skew = 1.2

[[clients]]
name = "desk"
codec = "msgpack"
view = "all"
conflate = 250
pick = "event"

[[clients]]
count = 2
ids = ["1.1", "1.2"]
"#;

#[test]
fn groups_say_what_the_top_does_not() {
    let scenario = file(EVENING).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.address.as_str()), ("night", "127.0.0.1:8080"));
    assert_eq!((scenario.seconds, scenario.clients()), (30, 552));
    let [crowd, desk, third] = &scenario.groups[..] else { panic!() };
    assert_eq!((crowd.count, crowd.ramp, crowd.view), (500, 200, View::Three));
    assert_eq!((crowd.codec, &crowd.pick), (Codec::Json, &Pick::Zipf(20, 1.2)));
    assert_eq!((desk.count, desk.codec, desk.view), (50, Codec::Msgpack, View::All));
    assert_eq!((desk.conflate, &desk.pick), (Conflate::Every(250), &Pick::Event));
    assert_eq!(third.name, "group 3");
    assert_eq!(third.pick, Pick::Ids(vec!["1.1".into(), "1.2".into()]));
}

#[test]
fn a_flag_beats_every_group_and_names_the_run_s_place() {
    let scenario = both(EVENING, &[("view", "1"), ("seconds", "2"), ("url", "ws://h:1")]).unwrap();
    assert!(scenario.groups.iter().all(|group| group.view == View::One));
    assert_eq!((scenario.seconds, scenario.address.as_str()), (2, "h:1"));
}

#[test]
fn a_file_without_groups_is_one_group() {
    let scenario = both("url = \"ws://h:1\"\nclients = 7\nmsgpack = true\n", &[("clients", "9")]).unwrap();
    let [group] = &scenario.groups[..] else { panic!() };
    assert_eq!((group.name.as_str(), group.count, group.codec), ("clients", 9, Codec::Msgpack));
    assert_eq!(group.pick, Pick::All(5));
}

#[test]
fn an_error_names_the_value_the_reason_and_the_remedy() {
    let with = |more: &str| format!("url = \"ws://h:1\"\n{more}");
    for (text, parts) in [
        ("clients = 7", &["no gateway", "ws://host:port"][..]),
        ("url = \"http://h:1\"", &["http://h:1", "ws://host:port"]),
        ("url = \"wss://h:1\"", &["wss://h:1", "TLS"]),
        ("url = \"ws://h\"", &["ws://h:", "ws://host:port"]),
        (&with("secs = 3"), &["night.toml: secs", "there are", "seconds"]),
        (&with("second = 3"), &["night.toml: second:", "do you mean `seconds`?"]),
        (&with("[[clients]]\ncout = 3"), &["night.toml: clients[1].cout:", "do you mean `count`?"]),
        (&with("[[clients]]\nseconds = 3"), &["clients[1].seconds", "no such setting"]),
        (&with("seconds = 0"), &["night.toml: seconds = 0", "from 1 to 86400"]),
        (&with("clients = \"many\""), &["clients = \"many\"", "from 1 to 50000"]),
        (&with("clients = [1]"), &["clients = [1]", "[[clients]]"]),
        (&with("[[clients]]\nview = 7"), &["clients[1].view = 7", "1, 3, 10 or all"]),
        (&with("view = 7"), &["night.toml: view = 7", "1, 3, 10 or all"]),
        (&with("codec = \"xml\""), &["codec = \"xml\"", "json or msgpack"]),
        (&with("pick = \"some\""), &["pick = \"some\"", "all, hot, zipf or event"]),
        (&with("pick = \"event\"\nmarkets = 2"), &["markets = 2", "leave it out"]),
        (&with("markets = 2\n[[clients]]\npick = \"event\""), &[]),
        (&with("pick = \"zipf\"\nskew = 2\n[[clients]]\nids = [\"a\"]"), &[]),
        (&with("[[clients]]\npick = \"event\"\nmarkets = 2"), &["clients[1].markets = 2", "leave it out"]),
        (&with("pick = \"hot\"\nmarkets = 0"), &["markets = 0", "give how many"]),
        (&with("skew = 2"), &["skew = 2", "zipf"]),
        (&with("ids = [\"a\"]\npick = \"zipf\""), &["ids", "leave `pick` out"]),
        (&with("ids = [1]"), &["ids = [1]", "list of texts"]),
        (&with("ids = [\"1.1\", \"2\", \"1.1\"]"), &["ids = ", "1.1 is there twice", "once"]),
        (&with("codec = \"json\"\nmsgpack = true"), &["codec = \"json\"", "leave one"]),
        (&with("transport = \"tcp\""), &["transport = \"tcp\"", "ws or sse"]),
        (&with("transport = \"sse\"\nmsgpack = true"), &["transport = \"sse\"", "text", "codec = \"json\""]),
        (
            &with("codec = \"msgpack\"\n[[clients]]\ntransport = \"sse\""),
            &["clients[1].transport = \"sse\"", "text", "codec = \"json\"", "transport = \"ws\""],
        ),
        (&with("read = \"2 bits\""), &["read = \"2 bits\"", "such as", "2KB/s"]),
        (&with("[[clients]]\ncount = 4\nchurn = 5"), &["clients[1].churn = 5", "at most once", "4 at most"]),
        (&with("read = \"8MB/s\""), &["read = \"8MB/s\"", "5MB/s", "leave it out"]),
        (&with("churn = -1"), &["churn = -1", "from 0.001"]),
        (&with("storm_at = 10"), &["storm_at = 10", "within the 10 s", "earlier"]),
        (&with("storm_at = 50"), &["storm_at = 50", "within the 10 s"]),
        (&with("report = 5"), &["report = 5", "quotes"]),
        (&with("[[clients]]\ncount = 40000\n[[clients]]\ncount = 40000"), &["80000 clients", "50000"]),
        ("url = ", &["night.toml", "line 1"]),
    ] {
        let said = file(text);
        if parts.is_empty() {
            assert!(said.is_ok(), "{text}: {said:?}");
            continue;
        }
        let error = said.map(|_| text).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    let error = both(EVENING, &[("clients", "9")]).unwrap_err();
    assert!(error.contains("--clients") && error.contains("3 groups") && error.contains("count"), "{error}");
    let error = both(EVENING, &[("storm_at", "30")]).unwrap_err();
    assert!(error.starts_with("--storm-at 30: "), "{error}");
}

#[test]
fn what_befalls_clients_is_read_and_told() {
    let text = "url = \"ws://h:1\"\ntransport = \"sse\"\nread = \"20KB/s\"\nchurn = 2.5\nstorm_at = 9";
    let group = file(text).unwrap().groups.remove(0);
    assert_eq!((group.transport, group.codec, group.read), (Transport::Sse, Codec::Json, Some(20_000)));
    assert_eq!((group.churn, group.storm_at), (Some(2.5), Some(9)));
    let what = group.described();
    for part in [
        "server-sent events",
        "each reads 20.0 kB a second",
        "2.5 leave and come back each second",
        "all are cut in second 9",
    ] {
        assert!(what.contains(part), "{what}");
    }
}

#[test]
fn a_rate_has_a_unit() {
    for (text, bytes) in [("2KB/s", 2_000), ("1.5 MB/s", 1_500_000), ("500b/s", 500)] {
        assert_eq!(values::rate(text), Ok(bytes), "{text}");
    }
    for text in ["2", "2KB", "KB/s", "0B/s", "-1KB/s", "2GB/s", ""] {
        assert!(values::rate(text).is_err(), "{text}");
    }
}

#[test]
fn the_nearest_name_is_what_was_meant() {
    for (said, meant) in [("conflat", Some("conflate")), ("marktes", Some("markets")), ("xyz", None)] {
        assert_eq!(keys::nearest(said, &keys::GROUP), meant, "{said}");
    }
}
