//! Inserts of unique elements into a table without a primary key.

use super::{Asker, rows, think};
use crate::history::Act;
use chronos_tests::random::Random;

/// The table.
pub const TABLE: &str = "CREATE TABLE chaos_set (id BIGINT NOT NULL)";

/// Inserts until the end.
pub async fn work(mut asker: Asker, mut random: Random) {
    while !asker.world.stopped() {
        let element = asker.world.unique();
        let statement = format!("INSERT INTO chaos_set (id) VALUES ({element})");
        asker
            .ask(Act::Add(element), true, async |sql, _| {
                sql.simple_query(&statement).await?;
                Ok(Act::Add(element))
            })
            .await;
        think(&mut random, 60).await;
    }
}

/// Reads all. Whether it could.
pub async fn read(asker: &mut Asker) -> bool {
    let told = asker.ask(Act::Elements(Vec::new()), false, async |sql, _| {
        let told = sql.simple_query("SELECT id FROM chaos_set").await?;
        let number = |[id]: [Option<&str>; 1]| id.and_then(|id| id.parse().ok()).unwrap_or(i64::MIN);
        Ok(Act::Elements(rows(&told).into_iter().map(number).collect()))
    });
    told.await.is_some()
}
