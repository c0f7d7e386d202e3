//! Transactions of one to four appends and readings over a few lists. A list is a row, its elements the row's text. A
//! list gets some dozens of elements and then no more, so that readings stay short.

use super::{Asker, changed, rows, think};
use crate::history::{Act, Mop};
use chronos_tests::random::Random;
use std::cell::Cell;
use tokio_postgres::{Client, Error};

/// The table.
pub const TABLE: &str = "CREATE TABLE chaos_append (k BIGINT PRIMARY KEY, v TEXT NOT NULL)";

const AT_ONCE: i64 = 5;
const ELEMENTS_EACH: i64 = 40;

/// Works until the end.
pub async fn work(mut asker: Asker, mut random: Random) {
    while !asker.world.stopped() {
        let steps = random.within(1..5);
        let mops: Vec<Mop> = (0..steps).map(|_| draw(&asker, &mut random)).collect();
        // A statement is a transaction too.
        let alone = mops.len() == 1 && random.one_in(2);
        let writes = mops.iter().any(|mop| matches!(mop, Mop::Append(..)));
        let told = asker.ask(Act::Txn(mops.clone()), writes, async |sql, at_stake| match alone {
            true => Ok(Act::Txn(vec![step(sql, &mops[0]).await?])),
            false => transaction(sql, &mops, at_stake).await,
        });
        if told.await.is_none() {
            // Its session may be within the transaction that failed.
            asker.session = None;
        }
        think(&mut random, 40).await;
    }
}

fn draw(asker: &Asker, random: &mut Random) -> Mop {
    let appends = &asker.world.appends;
    let key = appends.get() / (AT_ONCE * ELEMENTS_EACH) * AT_ONCE + random.within(0..AT_ONCE as u64) as i64;
    if random.one_in(2) {
        return Mop::Read(key, None);
    }
    appends.set(appends.get() + 1);
    Mop::Append(key, asker.world.unique())
}

async fn transaction(sql: &Client, mops: &[Mop], at_stake: &Cell<bool>) -> Result<Act, Error> {
    // Until COMMIT is sent, nothing can come of it.
    let writes = at_stake.replace(false);
    sql.batch_execute("BEGIN").await?;
    let mut told = Vec::new();
    for mop in mops {
        told.push(step(sql, mop).await?);
    }
    at_stake.set(writes);
    sql.batch_execute("COMMIT").await?;
    Ok(Act::Txn(told))
}

async fn step(sql: &Client, mop: &Mop) -> Result<Mop, Error> {
    match mop {
        Mop::Append(key, element) => {
            let update = format!("UPDATE chaos_append SET v = v || '{element},' WHERE k = {key}");
            if changed(&sql.simple_query(&update).await?) == 0 {
                let insert = format!("INSERT INTO chaos_append (k, v) VALUES ({key}, '{element},')");
                sql.simple_query(&insert).await?;
            }
            Ok(mop.clone())
        }
        Mop::Read(key, _) => {
            let told = sql.simple_query(&format!("SELECT v FROM chaos_append WHERE k = {key}")).await?;
            let list = rows::<1>(&told).first().and_then(|[v]| v.map(elements));
            Ok(Mop::Read(*key, Some(list.unwrap_or_default())))
        }
    }
}

/// Reads every list that was ever used, in one transaction. Whether it could.
pub async fn read_all(asker: &mut Asker) -> bool {
    let keys = 0..(asker.world.appends.get() / (AT_ONCE * ELEMENTS_EACH) + 1) * AT_ONCE;
    let asked = keys.clone().map(|key| Mop::Read(key, None)).collect();
    let told = asker.ask(Act::Txn(asked), false, async |sql, _| {
        let told = sql.simple_query("SELECT k, v FROM chaos_append").await?;
        let mut lists: std::collections::BTreeMap<i64, Vec<i64>> = rows::<2>(&told)
            .into_iter()
            .filter_map(|[k, v]| Some((k?.parse().ok()?, elements(v?))))
            .collect();
        let read = keys.map(|key| Mop::Read(key, Some(lists.remove(&key).unwrap_or_default())));
        Ok(Act::Txn(read.collect()))
    });
    told.await.is_some()
}

/// What is no number is an element that nobody appended.
fn elements(text: &str) -> Vec<i64> {
    text.split_terminator(',').map(|element| element.parse().unwrap_or(i64::MIN)).collect()
}
