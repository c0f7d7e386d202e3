//! Single rows that are read, written, and compared-and-set. A row is used for a hundred calls and then never again,
//! so that its history stays short enough to check.

use super::{Asker, changed, rows, think};
use crate::history::Act;
use chronos_tests::random::Random;

/// The table.
pub const TABLE: &str = "CREATE TABLE chaos_register (k BIGINT PRIMARY KEY, v BIGINT NOT NULL)";

const AT_ONCE: i64 = 3;
const CALLS_EACH: i64 = 100;
const VALUES: u64 = 5;

/// Works until the end.
pub async fn work(mut asker: Asker, mut random: Random) {
    while !asker.world.stopped() {
        let nth = asker.world.registers.replace(asker.world.registers.get() + 1);
        let key = nth / (AT_ONCE * CALLS_EACH) * AT_ONCE + nth % AT_ONCE;
        let mut value = || random.within(0..VALUES) as i64;
        let (from, to) = (value(), value());
        match random.within(0..10) {
            0..4 => read(&mut asker, key).await,
            4..7 => write(&mut asker, key, to).await,
            _ => compare_and_set(&mut asker, key, from, to).await,
        }
        think(&mut random, 40).await;
    }
}

async fn read(asker: &mut Asker, key: i64) {
    let statement = format!("SELECT v FROM chaos_register WHERE k = {key}");
    asker
        .ask(Act::Read(key, None), false, async |sql, _| {
            let told = sql.simple_query(&statement).await?;
            let value = rows::<1>(&told).first().and_then(|[v]| v.and_then(|v| v.parse().ok()));
            Ok(Act::Read(key, value))
        })
        .await;
}

async fn write(asker: &mut Asker, key: i64, to: i64) {
    asker
        .ask(Act::Write(key, to), true, async |sql, _| {
            let update = format!("UPDATE chaos_register SET v = {to} WHERE k = {key}");
            if changed(&sql.simple_query(&update).await?) == 0 {
                sql.simple_query(&format!("INSERT INTO chaos_register (k, v) VALUES ({key}, {to})")).await?;
            }
            Ok(Act::Write(key, to))
        })
        .await;
}

async fn compare_and_set(asker: &mut Asker, key: i64, from: i64, to: i64) {
    let statement = format!("UPDATE chaos_register SET v = {to} WHERE k = {key} AND v = {from}");
    asker
        .ask(Act::Cas(key, from, to, None), true, async |sql, _| {
            let told = sql.simple_query(&statement).await?;
            Ok(Act::Cas(key, from, to, Some(changed(&told) == 1)))
        })
        .await;
}
