use super::super::zone;
use super::*;
use proptest::prelude::*;

/// All instants after `from`, to `to`, at which an expression occurs, as the zone's clock shows them.
fn shown(expression: &str, name: &str, from: &str, to: &str) -> Vec<String> {
    let (cron, zone): (Cron, _) = (expression.parse().unwrap(), zone(name).unwrap());
    let micros = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_microsecond();
    let (mut at, to) = (micros(from), micros(to));
    let mut out = Vec::new();
    while let Some(next) = cron.next_after(at, &zone).filter(|next| *next <= to) {
        let instant = jiff::Timestamp::from_microsecond(next).unwrap();
        out.push(instant.to_zoned(zone.clone()).strftime("%m-%d %H:%M%:z").to_string());
        at = next;
    }
    out
}

#[test]
fn what_a_clock_does_not_show_happens_once_when_it_is_put_forward() {
    // Berlin, 29 March 2026: 02:00 is 03:00.
    let days = ("2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z");
    let berlin = |cron| shown(cron, "Europe/Berlin", days.0, days.1);
    assert_eq!(berlin("30 2 * * *"), ["03-28 02:30+01:00", "03-29 03:00+02:00", "03-30 02:30+02:00"]);
    assert_eq!(berlin("*/20 2 29 3 *"), ["03-29 03:00+02:00"]);
    assert_eq!(berlin("0,30 2,3 29 3 *"), ["03-29 03:00+02:00", "03-29 03:30+02:00"]);
    // New York, 8 March 2026.
    let days = ("2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z");
    let york = shown("15 2 * * *", "America/New_York", days.0, days.1);
    assert_eq!(york, ["03-08 03:00-04:00", "03-09 02:15-04:00"]);
    // Lord Howe, 4 October 2026: 02:00 is 02:30.
    let days = ("2026-10-02T16:00:00Z", "2026-10-05T16:00:00Z");
    let howe = |cron| shown(cron, "Australia/Lord_Howe", days.0, days.1);
    assert_eq!(howe("10 2 * * *"), ["10-04 02:30+11:00", "10-05 02:10+11:00", "10-06 02:10+11:00"]);
    assert_eq!(howe("45 2 4 10 *"), ["10-04 02:45+11:00"]);
}

#[test]
fn what_a_clock_shows_twice_happens_the_first_time() {
    // Berlin, 25 October 2026: 03:00 is 02:00.
    let days = ("2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
    let berlin = |cron| shown(cron, "Europe/Berlin", days.0, days.1);
    assert_eq!(berlin("30 2 * * *"), ["10-25 02:30+02:00", "10-26 02:30+01:00"]);
    assert_eq!(
        berlin("0,30 1-3 25 10 *"),
        [
            "10-25 01:00+02:00",
            "10-25 01:30+02:00",
            "10-25 02:00+02:00",
            "10-25 02:30+02:00",
            "10-25 03:00+01:00",
            "10-25 03:30+01:00"
        ]
    );
    // New York, 1 November 2026.
    let days = ("2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z");
    let york = shown("30 1 * * *", "America/New_York", days.0, days.1);
    assert_eq!(york, ["11-01 01:30-04:00", "11-02 01:30-05:00"]);
    // Lord Howe, 5 April 2026: 02:00 is 01:30.
    let days = ("2026-04-03T18:00:00Z", "2026-04-05T18:00:00Z");
    let howe = shown("45 1 * * *", "Australia/Lord_Howe", days.0, days.1);
    assert_eq!(howe, ["04-05 01:45+11:00", "04-06 01:45+10:30"]);
}

#[test]
fn fields_are_lists_of_ranges_with_steps_and_names() {
    let at = |cron: &str| shown(cron, "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    assert_eq!(at("0 7-9/2,22 * jan Thu"), ["01-01 07:00+00:00", "01-01 09:00+00:00", "01-01 22:00+00:00"]);
    assert_eq!(at("30/15 5 ? * ?"), ["01-01 05:30+00:00", "01-01 05:45+00:00"]);
    assert_eq!(at("@daily"), ["01-02 00:00+00:00"]);
    assert_eq!(at("0 0 12 * * 7"), Vec::<String>::new());
    // Either field of days, where both say something.
    let days = shown("0 0 13 * fri", "UTC", "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z");
    assert_eq!(days.len(), 4);
    let days = shown("0 0 10 * fri", "UTC", "2026-02-01T00:00:00Z", "2026-02-28T00:00:00Z");
    assert_eq!(days.len(), 5);
    let leap = shown("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-03-01T00:00:00Z");
    assert_eq!(leap, ["02-29 00:00+00:00"]);
    let never: Cron = "0 0 31 2 *".parse().unwrap();
    assert_eq!(never.next_after(0, &TimeZone::UTC), None);
}

#[test]
fn what_is_no_expression_is_refused() {
    for bad in [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "5-1 * * * *",
        "*/0 * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "+1 * * * *",
        "a * * * *",
        "0 0 L * *",
        "0 0 * * 5#2",
        "? * * * *",
        "99999999999999999999 * * * *",
        "@never",
    ] {
        assert!(bad.parse::<Cron>().is_err(), "{bad}");
    }
}

/// A field as text and as the values it means.
fn field(least: u32, most: u32) -> impl Strategy<Value = (String, Vec<u32>)> {
    let range = (least..=most, least..=most, 1..=most);
    prop_oneof![
        2 => Just(("*".to_owned(), (least..=most).collect())),
        2 => (1..=most).prop_map(move |step| {
            (format!("*/{step}"), (least..=most).filter(|value| (value - least).is_multiple_of(step)).collect())
        }),
        4 => prop::collection::vec(range, 1..3).prop_map(|parts| {
            let mut text = Vec::new();
            let mut values = Vec::new();
            for (a, b, step) in parts {
                let (from, to) = (a.min(b), a.max(b));
                text.push(format!("{from}-{to}/{step}"));
                values.extend((from..=to).filter(|value| (value - from).is_multiple_of(step)));
            }
            (text.join(","), values)
        }),
    ]
}

type Fields = [(String, Vec<u32>); 5];

fn fields() -> impl Strategy<Value = Fields> {
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6))
        .prop_map(|(a, b, c, d, e)| [a, b, c, d, e])
}

/// Goes from minute to minute, and takes each that the clock shows for the first time, and the end of each gap that has
/// one which it does not show.
fn model(fields: &Fields, from: i64, minutes: i64, zone: &TimeZone) -> Vec<i64> {
    let [minute, hour, day, month, weekday] = fields;
    let star = |field: &(String, Vec<u32>)| field.0.starts_with('*');
    let on = |shown: DateTime| {
        let days = day.1.contains(&(shown.day() as u32));
        let weekdays = weekday.1.contains(&(shown.weekday().to_sunday_zero_offset() as u32));
        minute.1.contains(&(shown.minute() as u32))
            && hour.1.contains(&(shown.hour() as u32))
            && month.1.contains(&(shown.month() as u32))
            && if star(day) || star(weekday) { days && weekdays } else { days || weekdays }
    };
    let mut out = Vec::new();
    let mut latest: Option<DateTime> = None;
    for n in 0..minutes {
        let at = from + n * 60_000_000;
        let shown = zone.to_datetime(jiff::Timestamp::from_microsecond(at).unwrap());
        let mut occurs = false;
        // Every minute of the clock's face since the latest that it showed.
        let mut face =
            latest.map_or(shown, |latest| latest.checked_add(jiff::Span::new().minutes(1)).unwrap());
        while face <= shown {
            occurs |= on(face);
            face = face.checked_add(jiff::Span::new().minutes(1)).unwrap();
        }
        if occurs {
            out.push(at);
        }
        latest = latest.max(Some(shown));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn it_occurs_when_a_model_that_goes_from_minute_to_minute_says(
        fields in fields(),
        place in prop::sample::select(vec![
            ("Europe/Berlin", "2026-03-28T20:00:00Z"),
            ("Europe/Berlin", "2026-10-24T20:00:00Z"),
            ("America/New_York", "2026-03-08T00:00:00Z"),
            ("America/New_York", "2026-11-01T00:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T08:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T08:00:00Z"),
            ("UTC", "2026-12-31T00:00:00Z"),
        ]),
    ) {
        const MINUTES: i64 = 48 * 60;
        let zone = zone(place.0).unwrap();
        let from = place.1.parse::<jiff::Timestamp>().unwrap().as_microsecond();
        let text = fields.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" ");
        let cron: Cron = text.parse().unwrap();
        let (mut at, end) = (from - 1, from + (MINUTES - 1) * 60_000_000);
        let mut found = Vec::new();
        while let Some(next) = cron.next_after(at, &zone).filter(|next| *next <= end) {
            found.push(next);
            at = next;
        }
        prop_assert_eq!(found, model(&fields, from, MINUTES, &zone), "{}", text);
    }
}
