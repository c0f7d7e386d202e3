#![no_main]
use chronos_engine::timer::Wheel;
use chronos_fuzz::Choices;
use std::collections::BTreeMap;

// The timing wheel beside an ordered map: nothing early, nothing late, nothing twice, in order.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let mut now = u64::from(choices.short());
    let mut wheel: Wheel<u64> = Wheel::new(now);
    let mut model: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut handles = Vec::new();
    let mut next = 0;
    while !choices.is_empty() {
        let operation = choices.byte();
        let far = u64::from(choices.short()) << (u32::from(operation >> 3) % 24);
        match operation % 8 {
            0..=3 => {
                let due = if operation < 224 { now.saturating_add(far) } else { now.saturating_sub(far) };
                next += 1;
                handles.push((due, next, wheel.insert(due, next, next)));
                model.insert((due, next), next);
            }
            4 | 5 if !handles.is_empty() => {
                let (due, sequence, handle) = handles[far as usize % handles.len()];
                assert_eq!(wheel.get(handle).copied(), model.get(&(due, sequence)).copied());
                assert_eq!(wheel.cancel(handle), model.remove(&(due, sequence)));
            }
            6 => {
                now = wheel.next_expiration().unwrap_or(now).max(now);
                advance(&mut wheel, &mut model, now);
            }
            _ => {
                now = now.saturating_add(far);
                advance(&mut wheel, &mut model, now);
            }
        }
        assert_eq!(wheel.len(), model.len());
        let first = model.keys().next().map(|(due, _)| (*due).max(wheel.present_ms()));
        match (wheel.next_expiration(), first) {
            (Some(at), Some(first)) => assert!(at <= first, "it wakes at {at}, and {first} is due"),
            (at, first) => assert_eq!(at, first),
        }
    }
});

fn advance(wheel: &mut Wheel<u64>, model: &mut BTreeMap<(u64, u64), u64>, now: u64) {
    let mut out = Vec::new();
    wheel.advance(now, &mut out);
    let later = model.split_off(&(now.saturating_add(1), 0));
    let due = std::mem::replace(model, later);
    let due: Vec<_> = due.into_iter().map(|((at, sequence), item)| (at, sequence, item)).collect();
    assert_eq!(out, due, "at {now}");
}
